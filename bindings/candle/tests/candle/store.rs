//! `concat_and_cache_mla` and its inverse.

use candle_core::{DType, Device, Tensor};
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, PagedCache, RangeSetting};

use super::common::{Batch, rng};
use super::{FORMATS, all, bytes, config, f64s, geometries, numbers, slots, tables};

/// Tokens of a step, slots in any order, one of them nowhere.
const SLOTS: [i64; 4] = [17, -1, 3, 8];

#[test]
fn a_token_is_stored_as_the_codec_writes_it() {
    let mut rng = rng(1);
    for g in geometries() {
        for format in FORMATS {
            let config = config(g, format);
            let (c_kv, k_pe) = (numbers(&mut rng, &[4, g.latent_rank]), numbers(&mut rng, &[4, g.rope_width()]));
            let mut want = PagedCache::new(config.layout, 3).unwrap();
            let [latents, keys] = [&c_kv, &k_pe].map(|t| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap());
            for (t, &slot) in SLOTS.iter().enumerate().filter(|(_, slot)| **slot >= 0) {
                want.write(slot as usize, &latents[t], &keys[t]).unwrap();
            }
            for mla in all(config) {
                let cache = mla.new_cache(3).unwrap();
                mla.concat_and_cache_mla(&c_kv, &k_pe, &cache, &slots(&SLOTS)).unwrap();
                assert_eq!(bytes(&cache), want.bytes(), "{mla:?}");
            }
        }
    }
}

#[test]
fn a_cache_anywhere_in_memory_is_written_in_place() {
    let (mut rng, g) = (rng(11), geometries()[0]);
    let [reference, cpu, _] = all(config(g, CacheFormat::INT4));
    let (c_kv, k_pe) = (numbers(&mut rng, &[4, g.latent_rank]), numbers(&mut rng, &[4, g.rope_width()]));
    let page_bytes = cpu.config().layout.page_bytes();
    for offset in [0, 16, 8, 1] {
        let [want, cache] = [&reference, &cpu].map(|mla| {
            let all = Tensor::zeros(3 * page_bytes + 32, DType::U8, &Device::Cpu).unwrap();
            let cache = all.narrow(0, offset, 3 * page_bytes).unwrap().reshape((3, page_bytes)).unwrap();
            let stored = mla.concat_and_cache_mla(&c_kv, &k_pe, &cache, &slots(&SLOTS));
            stored.map(|()| bytes(&all))
        });
        match cache {
            Ok(cache) => assert_eq!(cache, want.unwrap(), "{offset}"),
            Err(error) => assert!(offset % 16 != 0 && error.to_string().contains("cache"), "{offset}: {error}"),
        }
    }
}

#[test]
fn ranges_are_those_of_the_format() {
    let mut rng = rng(4);
    let g = Geometry::deepseek(2, 128, 8, 8, 8).unwrap();
    let (c_kv, k_pe) = (numbers(&mut rng, &[4, 128]), numbers(&mut rng, &[4, 8]));
    let [whole, best] = [RangeSetting::MinMax, RangeSetting::Mse].map(|range| {
        let [reference, cpu, kernels] = all(config(g, CacheFormat::INT4.with_range(range))).map(|mla| {
            let cache = mla.new_cache(3).unwrap();
            mla.concat_and_cache_mla(&c_kv, &k_pe, &cache, &slots(&SLOTS)).unwrap();
            bytes(&cache)
        });
        assert_eq!([&cpu, &kernels], [&reference; 2], "{range:?}");
        reference
    });
    assert_ne!(whole, best);
}

#[test]
fn keys_are_stored_as_they_are() {
    // Rotated by nothing, an infinite number would make its partner NaN, and a -0 become 0.
    let g = geometries()[0];
    let k_pe = [f32::NEG_INFINITY, -0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -0.0];
    let k_pe = Tensor::new(&[k_pe], &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
    let c_kv = Tensor::zeros((1, g.latent_rank), DType::BF16, &Device::Cpu).unwrap();
    for format in FORMATS {
        let [reference, cpu, kernels] = all(config(g, format)).map(|mla| {
            let cache = mla.new_cache(1).unwrap();
            mla.concat_and_cache_mla(&c_kv, &k_pe, &cache, &slots(&[3])).unwrap();
            bytes(&cache)
        });
        assert_eq!([cpu, kernels], [reference.clone(), reference], "{format:?}");
    }
}

#[test]
fn slices_of_wider_tensors_and_keys_by_head_are_stored_alike() {
    let mut rng = rng(2);
    let g = geometries()[1];
    for mla in all(config(g, CacheFormat::INT4)) {
        // As the down-projection puts them out: latent and keys side by side.
        let wide = numbers(&mut rng, &[4, g.latent_rank + g.rope_width()]);
        let c_kv = wide.narrow(1, 0, g.latent_rank).unwrap();
        let k_pe = wide.narrow(1, g.latent_rank, g.rope_width()).unwrap();
        let by_head = k_pe.contiguous().unwrap().reshape((4, g.rope_heads, g.rope_dim)).unwrap();
        let [sliced, copied] = [(); 2].map(|()| mla.new_cache(3).unwrap());
        mla.concat_and_cache_mla(&c_kv, &k_pe, &sliced, &slots(&SLOTS)).unwrap();
        mla.concat_and_cache_mla(&c_kv.contiguous().unwrap(), &by_head, &copied, &slots(&SLOTS)).unwrap();
        assert_eq!(bytes(&sliced), bytes(&copied));
    }
}

#[test]
fn a_layer_of_a_larger_tensor_is_written_alone() {
    let mut rng = rng(3);
    let g = geometries()[0];
    for mla in all(config(g, CacheFormat::INT4)) {
        let (c_kv, k_pe) = (numbers(&mut rng, &[4, g.latent_rank]), numbers(&mut rng, &[4, g.rope_width()]));
        let layers = Tensor::zeros((3, 3, mla.config().layout.page_bytes()), DType::U8, &Device::Cpu).unwrap();
        let [layer, alone] = [layers.get(1).unwrap(), mla.new_cache(3).unwrap()];
        for cache in [&layer, &alone] {
            mla.concat_and_cache_mla(&c_kv, &k_pe, cache, &slots(&SLOTS)).unwrap();
        }
        assert_eq!(bytes(&layers.get(1).unwrap()), bytes(&alone));
        for other in [0, 2] {
            assert!(bytes(&layers.get(other).unwrap()).iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn without_tokens_nothing_is_written() {
    let g = geometries()[0];
    for mla in all(config(g, CacheFormat::BF16)) {
        let cache = mla.new_cache(2).unwrap();
        let empty = |width| Tensor::zeros((0, width), DType::BF16, &Device::Cpu).unwrap();
        mla.concat_and_cache_mla(&empty(g.latent_rank), &empty(g.rope_width()), &cache, &slots(&[])).unwrap();
        assert!(bytes(&cache).iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_batch_without_tokens_or_without_sequences_gathers_nothing() {
    let g = geometries()[0];
    for mla in all(config(g, CacheFormat::INT4)) {
        let cache = mla.new_cache(2).unwrap();
        for sums in [&[0u32, 0, 0][..], &[0]] {
            let block_tables = Tensor::zeros((sums.len() - 1, 1), DType::U32, &Device::Cpu).unwrap();
            let sums = Tensor::new(sums, &Device::Cpu).unwrap();
            let (latents, keys) = mla.gather_mla_cache(&cache, &block_tables, &sums, None).unwrap();
            assert_eq!((latents.dims(), keys.dims()), (&[0, g.latent_rank][..], &[0, g.rope_width()][..]));
        }
    }
}

#[test]
fn gathering_gives_back_what_the_cache_decodes_to() {
    let mut rng = rng(4);
    for g in geometries() {
        for format in FORMATS {
            let config = config(g, format);
            let batch = Batch::new(&mut rng, &[9, 0, 16], &[0, 0, 0], 8);
            let paged = batch.poisoned_cache(&mut rng, &g, format);
            let cache =
                Tensor::from_slice(paged.bytes(), (batch.pages, config.layout.page_bytes()), &Device::Cpu).unwrap();
            let tokens = [(0, 9), (2, 16)].map(|(b, len)| (0..len).map(move |t| (b, t)));
            let places: Vec<usize> = tokens.into_iter().flatten().map(|(b, t)| batch.slot(b, t)).collect();
            let cu_seq_lens = Tensor::new(&[0u32, 9, 9, 25], &Device::Cpu).unwrap();
            let block_tables = tables(&batch, DType::I32).0;
            let [reference, cpu, kernels] = all(config).map(|mla| {
                let (latents, keys) = mla.gather_mla_cache(&cache, &block_tables, &cu_seq_lens, None).unwrap();
                assert_eq!((latents.dims(), keys.dims()), (&[25, g.latent_rank][..], &[25, g.rope_width()][..]));
                // A chunk: the first sequence's tokens 6 to 8, the last one's 6 to 15; the second has ended.
                let sums = Tensor::new(&[0u32, 3, 3, 13], &Device::Cpu).unwrap();
                let starts = Tensor::new(&[6u32, 6, 6], &Device::Cpu).unwrap();
                let chunk = mla.gather_mla_cache(&cache, &block_tables, &sums, Some(&starts)).unwrap();
                for (chunk, whole) in [(&chunk.0, &latents), (&chunk.1, &keys)] {
                    let want = [whole.narrow(0, 6, 3).unwrap(), whole.narrow(0, 15, 10).unwrap()];
                    assert_eq!(f64s(chunk), f64s(&Tensor::cat(&want, 0).unwrap()));
                }
                (latents, keys)
            });
            let want =
                |read: &dyn Fn(usize) -> Vec<f64>| places.iter().flat_map(|&slot| read(slot)).collect::<Vec<_>>();
            let latents = want(&|slot| paged.latent(slot).unwrap());
            let keys = want(&|slot| paged.rope(slot).unwrap());
            // Rounded once: to f32 by the reference, to bf16 by the others.
            let rounded = |values: &[f64], dtype| {
                f64s(&Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap())
            };
            assert_eq!(f64s(&reference.0), rounded(&latents, DType::F32));
            assert_eq!(f64s(&reference.1), rounded(&keys, DType::F32));
            for gathered in [cpu, kernels] {
                assert_eq!(f64s(&gathered.0), rounded(&latents, DType::BF16));
                assert_eq!(f64s(&gathered.1), rounded(&keys, DType::BF16));
            }
        }
    }
}
