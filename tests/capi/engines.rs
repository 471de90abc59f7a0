//! What engines ask of the C library beside a layer's own step: chunks of a cached prefix, keys that are rotated
//! already.

use half::bf16;
use latent_attention::capi::*;

use super::{created, dense, device, download, format, geometry, message, upload};

#[test]
fn gather_takes_a_chunk_of_each_sequence() {
    let (device, stream) = device();
    let geometry = LaGeometry { rope_heads: 1, ..geometry() };
    let format = LaCacheFormat { latent_row: LA_ROW_BF16, rope_row: LA_ROW_BF16, page_size: 8, ..Default::default() };
    // A page of 8 tokens: latents of 32 numbers, then rotated keys of 8, all of them their token's number.
    let rows = |width: usize| (0..8 * width).map(move |i| bf16::from_f32((i / width) as f32));
    let page: Vec<bf16> = rows(32).chain(rows(8)).collect();
    let cache = upload(device, &page);
    let batch = LaBatch {
        query_starts: upload(device, &[0, 0, 0]),
        seq_lens: upload(device, &[7, 2]),
        page_table: upload(device, &[0, 0]),
        page_starts: LaArray::default(),
        max_pages: 1,
        page_count: 1,
    };
    // Tokens 3 to 5 of the first sequence; the second has ended before its token 3.
    let mut args = LaGatherArgs {
        cache: LaArray { elements: 2 * cache.elements, ..cache },
        token_starts: upload(device, &[0, 3, 3]),
        first_tokens: upload(device, &[3, 3]),
        gathered: dense(upload(device, &[bf16::NAN; 3 * 40]), [3, 1, 40]),
    };
    let wide = |values: Vec<bf16>| values.into_iter().map(bf16::to_f32).collect::<Vec<_>>();
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        let gather = created(|out| la_gather_create(device, &LaGatherConfig { geometry, format }, out));
        assert_eq!(la_gather_run(gather, stream, &batch, &args), LaStatus::Ok, "{}", message());
        assert_eq!(wide(download(device, args.gathered.memory)), [[3.0; 40], [4.0; 40], [5.0; 40]].concat());
        args.first_tokens = LaArray::default();
        assert_eq!(la_gather_run(gather, stream, &batch, &args), LaStatus::Ok, "{}", message());
        assert_eq!(wide(download(device, args.gathered.memory)), [[0.0; 40], [1.0; 40], [2.0; 40]].concat());
        args.gathered.sizes[2] = 39;
        assert_eq!(la_gather_run(gather, stream, &batch, &args), LaStatus::Shape);
        let text = "gathered: expected [tokens 3, one 1, latent + rotated keys 40], got [3, 1, 39]";
        assert_eq!(message(), text);
        la_gather_destroy(gather);
    }
}

#[test]
fn rotated_keys_are_appended_without_queries_and_tables() {
    let (device, stream) = device();
    let format = LaCacheFormat { latent_row: LA_ROW_BF16, rope_row: LA_ROW_BF16, page_size: 8, ..Default::default() };
    let numbers = |len: usize| (0..len).map(|i| bf16::from_f32(i as f32)).collect::<Vec<_>>();
    let (latent, keys) = (numbers(32), numbers(2 * 8));
    let cache = upload(device, &vec![0u8; 8 * 2 * (32 + 2 * 8)]);
    let mut args = LaRopeAppendArgs {
        k_rope: dense(upload(device, &keys), [1, 2, 8]),
        c_kv: dense(upload(device, &latent), [1, 1, 32]),
        slots: upload(device, &[5i64]),
        cache,
        ..Default::default()
    };
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        let config = LaRopeAppendConfig { geometry: geometry(), format, pairing: LA_PAIRING_HALF };
        let append = created(|out| la_rope_append_create(device, &config, out));
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Ok, "{}", message());
        let bytes: Vec<u8> = download(device, cache);
        let row = |start: usize, len: usize| {
            bytes[start..start + 2 * len].as_chunks().0.iter().map(|&raw| bf16::from_le_bytes(raw)).collect::<Vec<_>>()
        };
        assert_eq!((row(5 * 64, 32), row(8 * 64 + 5 * 32, 2 * 8)), (latent, keys));

        args.q_rotated = dense(upload(device, &[bf16::ONE; 4 * 8]), [1, 4, 8]);
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Config);
        assert_eq!(message(), "q_rotated: is given without a rotation");
        (args.q_rotated, args.positions) = (LaTensor::default(), upload(device, &[0]));
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Config);
        assert_eq!(message(), "positions: is given without a rotation");
        (args.cos, args.frequencies) = (upload(device, &[1.0f32; 4]), 4);
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Shape);
        assert!(message().ends_with("got 4 cosines and 0 sines"), "{}", message());
        la_rope_append_destroy(append);
    }
}
