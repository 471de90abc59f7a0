//! What engines ask of the C library beside a layer's own step: rows without tokens, chunks of a cached prefix, keys
//! that are rotated already, results that do not depend on the batch.

use half::bf16;
use latent_attention_c::*;

use super::{bytes, created, dense, device, download, format, geometry, memory, message, upload};

#[test]
fn rows_of_length_0_give_zeros_and_minus_infinity() {
    // What a rank that has none of a sequence's tokens gives the others to merge: never NaN.
    let (device, stream) = device();
    let mut layout = LaCacheLayout::default();
    // SAFETY: as the header asks.
    unsafe {
        assert_eq!(la_cache_layout(&geometry(), &format(), &mut layout), LaStatus::Ok);
        // A sequence without tokens, one with 2 of which the page is of zeros, and another without.
        let batch = LaBatch {
            query_starts: upload(device, &[0, 1, 2, 3]),
            seq_lens: upload(device, &[0, 2, 0]),
            page_table: upload(device, &[i32::MAX, 0, i32::MAX]),
            max_pages: 1,
            page_count: 1,
            ..Default::default()
        };
        let args = LaDecodeArgs {
            q_latent: dense(upload(device, &[bf16::ONE; 3 * 4 * 32]), [3, 4, 32]),
            q_rope: dense(upload(device, &[bf16::ONE; 3 * 4 * 8]), [3, 4, 8]),
            cache: bytes(memory(device, layout.page_bytes), layout.page_bytes),
            o_latent: upload(device, &[bf16::NAN; 3 * 4 * 32]),
            lse: upload(device, &[f32::NAN; 3 * 4]),
        };
        for fixed_tokens in [0, 1] {
            let config = LaDecodeConfig {
                geometry: geometry(),
                format: format(),
                scale: 1.0,
                fixed_tokens,
                max_query_tokens: 3,
                max_tokens: 16,
            };
            let decode = created(|out| la_decode_create(device, &config, out));
            let mut size = 0;
            assert_eq!(la_decode_workspace_bytes(decode, &mut size), LaStatus::Ok);
            let workspace = bytes(memory(device, size), size);
            let plan = created(|out| la_decode_plan(decode, stream, &batch, 3, workspace, out));
            assert_eq!(la_decode_run(decode, stream, plan, &args), LaStatus::Ok, "{}", message());
            assert!(download::<bf16>(device, args.o_latent).iter().all(|o| o.to_bits() == 0), "all latents are zeros");
            let lse: Vec<f32> = download(device, args.lse);
            assert!(lse[..4].iter().chain(&lse[8..]).all(|&lse| lse == f32::NEG_INFINITY), "{lse:?}");
            // Two scores of 0.
            assert!(lse[4..8].iter().all(|lse| (lse - std::f32::consts::LN_2).abs() < 1e-6), "{lse:?}");
            la_plan_destroy(plan);
            la_decode_destroy(decode);
        }

        // Two parts of two rows: of the first row, neither saw anything; of the second, one did.
        let nothing = f32::NEG_INFINITY;
        let args = LaCombineArgs {
            rows: 2,
            splits: 2,
            o_partial: upload(device, &[f32::NAN, 3.0, f32::NAN, f32::NAN]),
            lse_partial: upload(device, &[nothing, 0.5, nothing, nothing]),
            o_latent: upload(device, &[bf16::NAN; 2]),
            lse: upload(device, &[f32::NAN; 2]),
        };
        let combine = created(|out| la_combine_create(device, &LaCombineConfig { latent_rank: 1, max_splits: 2 }, out));
        assert_eq!(la_combine_run(combine, stream, &args), LaStatus::Ok, "{}", message());
        assert_eq!(download::<bf16>(device, args.o_latent), [0.0, 3.0].map(bf16::from_f32));
        assert_eq!(download::<f32>(device, args.lse), [nothing, 0.5]);
        la_combine_destroy(combine);
    }
}

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
        cache: bytes(cache.address, 2 * cache.elements),
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
        let record: Vec<u8> = download(device, cache);
        let row = |start: usize, len: usize| {
            record[start..start + 2 * len].as_chunks().0.iter().map(|&raw| bf16::from_le_bytes(raw)).collect::<Vec<_>>()
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
        assert_eq!(message(), "sines: expected elements of f32, got nothing");

        // Of no tokens, arrays that are there have a type only, as an empty tensor of PyTorch's.
        let nothing = |dtype| LaArray { dtype, ..Default::default() };
        let empty = |sizes| dense(nothing(LA_DTYPE_BF16), sizes);
        (args.sin, args.frequency_index) = (args.cos, upload(device, &[0u32; 2 * 4]));
        (args.positions, args.slots) = (nothing(LA_DTYPE_I32), nothing(LA_DTYPE_I64));
        (args.k_rope, args.c_kv) = (empty([0, 2, 8]), empty([0, 1, 32]));
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Ok, "{}", message());
        args.slots = upload(device, &[5i64]);
        assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Shape);
        la_rope_append_destroy(append);
    }
}

/// A large number, a one for each of three warps that split the sum, and the large number's negative. In order, ones are
/// lost beside the large number; a warp by itself keeps its one.
#[test]
fn absorb_sums_in_order_if_it_is_to_be_batch_invariant() {
    let (device, stream) = device();
    let geometry =
        LaGeometry { query_heads: 1, kv_heads: 1, latent_rank: 512, rope_heads: 1, value_dim: 1, ..geometry() };
    let mut numbers = [bf16::ZERO; 512];
    let large = (1 << 24) as f32;
    for (k, number) in [(0, large), (128, 1.0), (256, 1.0), (384, 1.0), (400, -large)] {
        numbers[k] = bf16::from_f32(number);
    }
    let args = LaExpandOutputArgs {
        up_value: dense(upload(device, &[bf16::ONE; 512]), [1, 1, 512]),
        o_latent: dense(upload(device, &numbers), [1, 1, 512]),
        out: dense(upload(device, &[bf16::NAN]), [1, 1, 1]),
        ..Default::default()
    };
    for (batch_invariant, expected) in [(0, 1.0), (1, 0.0)] {
        // SAFETY: as the header asks.
        unsafe {
            let config = LaAbsorbConfig { geometry, batch_invariant };
            let expand = created(|out| la_expand_output_create(device, &config, out));
            assert_eq!(la_expand_output_run(expand, stream, &args), LaStatus::Ok, "{}", message());
            la_expand_output_destroy(expand);
        }
        assert_eq!(download::<bf16>(device, args.out.memory), [bf16::from_f32(expected)]);
    }
}
