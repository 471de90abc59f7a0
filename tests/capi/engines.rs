//! What engines ask of the C library beside a layer's own step: chunks of a cached prefix.

use half::bf16;
use latent_attention::capi::*;

use super::{created, dense, device, download, geometry, message, upload};

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
