//! CUDA tensors, on the first GPU: `cargo test -p latent-attention-candle --features cuda --test candle -- --ignored`.

use candle_core::{DType, Device, Result, Tensor};
use latent_attention_candle::Mla;

use super::common::{Batch, assert_close, rng};
use super::{FORMATS, bytes, config, f64s, geometries, numbers, slots, tables};

/// A layer's inputs, in host memory.
struct Inputs {
    batch: Batch,
    query_lens: [usize; 3],
    /// Latents, rotated keys and something else side by side.
    projected: Tensor,
    slot_mapping: Tensor,
    q_nope: Tensor,
    q_pe: Tensor,
    up_key: Tensor,
    up_value: Tensor,
    value_bias: Tensor,
}

/// The cache's bytes, and every number that came out of it.
fn run(mla: &Mla, device: &Device, inputs: &Inputs) -> Result<(Vec<u8>, Vec<f64>)> {
    let there = |tensor: &Tensor| tensor.to_device(device);
    let (g, cache) = (&mla.config().geometry, mla.new_cache(inputs.batch.pages)?);
    let projected = there(&inputs.projected)?;
    let (c_kv, k_pe) =
        (projected.narrow(1, 3, g.latent_rank)?, projected.narrow(1, 3 + g.latent_rank, g.rope_width())?);
    mla.concat_and_cache_mla(&c_kv, &k_pe, &cache, &there(&inputs.slot_mapping)?)?;
    let q_latent = mla.absorb_query(&there(&inputs.q_nope)?, &there(&inputs.up_key)?)?;
    let (block_tables, context_lens) = tables(&inputs.batch, DType::U32);
    let (block_tables, context_lens) = (there(&block_tables)?, there(&context_lens)?);
    let mut plan = mla.plan(&block_tables, &context_lens, Some(&inputs.query_lens), inputs.batch.pages)?;
    let (o_latent, lse) = mla.attend(&q_latent, &there(&inputs.q_pe)?, &cache, &mut plan)?;
    let out = mla.expand_output(&o_latent, &there(&inputs.up_value)?, Some(&there(&inputs.value_bias)?))?;
    let cu_seq_lens = there(&Tensor::new(&[0i32, 9, 9, 39], &Device::Cpu)?)?;
    let (latents, keys) = mla.gather_mla_cache(&cache, &block_tables, &cu_seq_lens, None)?;
    Ok((bytes(&cache), [out, lse, latents, keys].iter().flat_map(f64s).collect()))
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_stores_and_computes_what_the_simulator_does() {
    let mut rng = rng(10);
    let gpu = Device::new_cuda(0).unwrap();
    // candle has no empty tensors on a GPU.
    for g in geometries().into_iter().filter(|g| g.rope_dim > 0 && g.nope_dim > 0) {
        for format in FORMATS {
            let (lens, query_lens) = ([9, 0, 30], [1, 0, 5]);
            let batch = Batch::new(&mut rng, &lens, &query_lens, 8);
            let tokens = [(0, 9), (2, 30)].into_iter().flat_map(|(b, len)| (0..len).map(move |t| (b, t)));
            let places: Vec<i64> = tokens.map(|(b, t)| batch.slot(b, t) as i64).collect();
            let inputs = Inputs {
                projected: numbers(&mut rng, &[39, 5 + g.latent_rank + g.rope_width()]),
                slot_mapping: slots(&places),
                q_nope: numbers(&mut rng, &[6, g.query_heads, g.nope_dim]),
                q_pe: numbers(&mut rng, &[6, g.query_heads, g.rope_dim]),
                up_key: numbers(&mut rng, &[g.kv_heads, g.nope_dim, g.latent_rank]),
                up_value: numbers(&mut rng, &[g.kv_heads, g.value_dim, g.latent_rank]),
                value_bias: numbers(&mut rng, &[g.kv_heads, g.value_dim]).to_dtype(DType::F32).unwrap(),
                batch,
                query_lens,
            };
            let config = config(g, format);
            let (stored, computed) = run(&Mla::new(&gpu, config).unwrap(), &gpu, &inputs).unwrap();
            let want = run(&Mla::simulated(config).unwrap(), &Device::Cpu, &inputs).unwrap();
            assert_eq!(stored, want.0);
            // Both round to bf16; sums are taken in another order.
            assert_close(&computed, &want.1, 0.02);
        }
    }
}
