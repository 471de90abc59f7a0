//! How ranges are chosen, as a C program says it.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache, RangeSetting};
use latent_attention_c::*;

use super::{created, dense, device, download, format, geometry, message, upload};

#[test]
fn tokens_are_stored_with_the_ranges_of_their_format() {
    let (device, stream) = device();
    let geometry = LaGeometry { latent_rank: 128, ..geometry() };
    // Evenly spread, which a shorter range is the best for.
    let numbers = |len: usize| (0..len).map(|i| bf16::from_f32((i * 37 % 101) as f32)).collect::<Vec<_>>();
    let (latent, key) = (numbers(128), numbers(2 * 8));
    let stored =
        [(LA_RANGE_MIN_MAX, RangeSetting::MinMax), (LA_RANGE_MSE, RangeSetting::Mse)].map(|(range, setting)| {
            let sizes = Geometry::mha2mla(4, 2, 16, 8, 64).unwrap();
            let layout = CacheLayout::new(&sizes, CacheFormat::INT4.with_range(setting), 16).unwrap();
            let mut want = PagedCache::new(layout, 1).unwrap();
            let cache = upload(device, want.bytes());
            let args = LaRopeAppendArgs {
                k_rope: dense(upload(device, &key), [1, 2, 8]),
                c_kv: dense(upload(device, &latent), [1, 1, 128]),
                slots: upload(device, &[5i64]),
                cache,
                ..Default::default()
            };
            let format = LaCacheFormat { range, ..format() };
            let config = LaRopeAppendConfig { geometry, format, pairing: LA_PAIRING_HALF };
            // SAFETY: as the header asks.
            unsafe {
                let append = created(|out| la_rope_append_create(device, &config, out));
                assert_eq!(la_rope_append_run(append, stream, &args), LaStatus::Ok, "{}", message());
                la_rope_append_destroy(append);
            }
            let wide = |values: &[bf16]| values.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
            want.write(5, &wide(&latent), &wide(&key)).unwrap();
            let bytes: Vec<u8> = download(device, cache);
            assert!(bytes == want.bytes(), "{setting:?}");
            bytes
        });
    assert!(stored[0] != stored[1]);
}

#[test]
fn zero_is_from_minimum_to_maximum_and_unknown_ranges_are_refused() {
    let mut int4 = LaCacheFormat { range: LA_RANGE_MSE, ..Default::default() };
    // SAFETY: as the header asks.
    assert_eq!(unsafe { la_cache_format_int4(16, &mut int4) }, LaStatus::Ok);
    assert_eq!((int4.range, LaCacheFormat::default().range), (LA_RANGE_MIN_MAX, 0));
    let mut layouts = [LaCacheLayout::default(); 2];
    for (range, layout) in [LA_RANGE_MIN_MAX, LA_RANGE_MSE].into_iter().zip(&mut layouts) {
        // SAFETY: as the header asks.
        let status = unsafe { la_cache_layout(&geometry(), &LaCacheFormat { range, ..format() }, layout) };
        assert_eq!(status, LaStatus::Ok);
    }
    assert_eq!(layouts[0], layouts[1]);
    let unknown = LaCacheFormat { range: 2, ..format() };
    // SAFETY: as the header asks.
    let status = unsafe { la_cache_layout(&geometry(), &unknown, &mut layouts[0]) };
    let text = "cache format: range 2: must be LA_RANGE_MIN_MAX or LA_RANGE_MSE";
    assert_eq!((status, message()), (LaStatus::Config, text.into()));
}
