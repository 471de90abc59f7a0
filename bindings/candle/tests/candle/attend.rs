//! Absorb, attend, expand: the attention of a layer.

use candle_core::{D, DType, Device, Tensor};
use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::ops::SplitPolicy;
use latent_attention_candle::{Mla, MlaPlan};
use rand::rngs::ChaCha8Rng;

use super::common::{Batch, assert_close, rng};
use super::{FORMATS, all, config, f64s, geometries, numbers, tables};

/// What one layer's attention reads, besides cache and batch.
struct Layer {
    up_key: Tensor,
    up_value: Tensor,
    value_bias: Tensor,
    q_nope: Tensor,
    q_pe: Tensor,
}

impl Layer {
    fn new(rng: &mut ChaCha8Rng, g: &Geometry, tokens: usize) -> Self {
        Self {
            up_key: numbers(rng, &[g.kv_heads, g.nope_dim, g.latent_rank]),
            up_value: numbers(rng, &[g.kv_heads, g.value_dim, g.latent_rank]),
            value_bias: numbers(rng, &[g.kv_heads, g.value_dim]).to_dtype(DType::F32).unwrap(),
            q_nope: numbers(rng, &[tokens, g.query_heads, g.nope_dim]),
            q_pe: numbers(rng, &[tokens, g.query_heads, g.rope_dim]),
        }
    }

    /// The layer's output and log-sum-exp, computed of queries of a type.
    fn attend(&self, mla: &Mla, dtype: DType, cache: &Tensor, plan: &mut MlaPlan) -> (Tensor, Tensor) {
        let [q_nope, q_pe] = [&self.q_nope, &self.q_pe].map(|q| q.to_dtype(dtype).unwrap());
        let q_latent = mla.absorb_query(&q_nope, &self.up_key).unwrap();
        let (o_latent, lse) = mla.attend(&q_latent, &q_pe, cache, plan).unwrap();
        (mla.expand_output(&o_latent, &self.up_value, Some(&self.value_bias)).unwrap(), lse)
    }

    /// Softmax attention of one sequence's query tokens over explicit keys and values, in candle's f64.
    fn naive(
        &self,
        g: &Geometry,
        scale: f64,
        queries: std::ops::Range<usize>,
        latents: &Tensor,
        keys: &Tensor,
    ) -> candle_core::Result<Vec<f64>> {
        let wide = |t: &Tensor| t.to_dtype(DType::F64);
        let (tokens, count) = (latents.dim(0)?, queries.len());
        let (latents, keys) = (wide(latents)?, wide(keys)?.reshape((tokens, g.rope_heads, g.rope_dim))?);
        let mut heads = Vec::new();
        for head in 0..g.query_heads {
            let query = |q: &Tensor| wide(&q.narrow(0, queries.start, count)?.narrow(1, head, 1)?.squeeze(1)?);
            let up = |w: &Tensor| latents.matmul(&wide(&w.get(g.kv_head_of(head))?)?.t()?);
            let mut scores = Tensor::zeros((count, tokens), DType::F64, &Device::Cpu)?;
            if g.nope_dim > 0 {
                scores = (scores + query(&self.q_nope)?.matmul(&up(&self.up_key)?.t()?)?)?;
            }
            if g.rope_dim > 0 {
                let key = keys.narrow(1, g.rope_head_of(head), 1)?.squeeze(1)?;
                scores = (scores + query(&self.q_pe)?.matmul(&key.t()?)?)?;
            }
            let hidden: Vec<f64> = (0..count * tokens)
                .map(|i| if i % tokens > tokens - count + i / tokens { f64::NEG_INFINITY } else { 0.0 })
                .collect();
            let scores = ((scores * scale)? + Tensor::from_vec(hidden, (count, tokens), &Device::Cpu)?)?;
            let exps = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let weights = exps.broadcast_div(&exps.sum_keepdim(D::Minus1)?)?;
            let bias = wide(&self.value_bias.get(g.kv_head_of(head))?)?;
            heads.push(weights.matmul(&up(&self.up_value)?)?.broadcast_add(&bias)?);
        }
        Ok(f64s(&Tensor::stack(&heads, 1)?))
    }
}

/// Types of the queries, and what results may differ by: the latents that are compared with were rounded to f32; the CPU and
/// the kernels round query, latent output and output to bf16.
const TOLERANCES: [(DType, f64); 3] = [(DType::F64, 1e-6), (DType::F32, 0.02), (DType::BF16, 0.02)];

/// Llama3-8B's sizes, in which the kernels for few and for many tokens sum in other orders.
#[test]
fn a_fixed_policy_gives_a_token_the_same_bits_in_any_batch() {
    let mut rng = rng(8);
    let g = Geometry::named("llama3-8b-d64").unwrap();
    let layer = Layer::new(&mut rng, &g, 5);
    let o_latent = numbers(&mut rng, &[5, g.query_heads, g.latent_rank]);
    let mla = Mla::simulated(config(g, CacheFormat::INT4).with_policy(SplitPolicy::Fixed { tokens: 16 })).unwrap();
    let first = |t: &Tensor| f64s(&t.narrow(0, 0, 1).unwrap());
    let absorb = |q_nope: &Tensor| first(&mla.absorb_query(q_nope, &layer.up_key).unwrap());
    let expand = |o: &Tensor| first(&mla.expand_output(o, &layer.up_value, Some(&layer.value_bias)).unwrap());
    assert_eq!(absorb(&layer.q_nope), absorb(&layer.q_nope.narrow(0, 0, 1).unwrap()));
    assert_eq!(expand(&o_latent), expand(&o_latent.narrow(0, 0, 1).unwrap()));
}

#[test]
fn a_ragged_batch_attends_like_softmax_over_explicit_keys_and_values() {
    let mut rng = rng(5);
    for g in geometries() {
        for format in FORMATS {
            let (config, lens) = (config(g, format), [9, 0, 30]);
            // A decoded token, nothing, and a chunk of a prefill.
            let query_lens = [1, 0, 5];
            let batch = Batch::new(&mut rng, &lens, &query_lens, 8);
            let cache = tensor_of(&batch, &mut rng, &g, format);
            let layer = Layer::new(&mut rng, &g, 6);
            let (block_tables, context_lens) = tables(&batch, DType::U32);
            for (mla, (dtype, tolerance)) in all(config).iter().zip(TOLERANCES) {
                let mut plan = mla.plan(&block_tables, &context_lens, Some(&query_lens), batch.pages).unwrap();
                let (out, lse) = layer.attend(mla, dtype, &cache, &mut plan);
                assert_eq!((out.dims(), lse.dims()), (&[6, g.query_heads, g.value_dim][..], &[6, g.query_heads][..]));
                let cu_seq_lens = Tensor::new(&[0i32, 9, 9, 39], &Device::Cpu).unwrap();
                let (latents, keys) =
                    all(config)[0].gather_mla_cache(&cache, &block_tables, &cu_seq_lens, None).unwrap();
                let rows = |from, len| [&latents, &keys].map(|t| t.narrow(0, from, len).unwrap());
                let ([first, first_keys], [last, last_keys]) = (rows(0, 9), rows(9, 30));
                let scale = f64::from(config.scale);
                let mut want = layer.naive(&g, scale, 0..1, &first, &first_keys).unwrap();
                want.extend(layer.naive(&g, scale, 1..6, &last, &last_keys).unwrap());
                assert_close(&f64s(&out), &want, tolerance);
            }
        }
    }
}

#[test]
fn both_kinds_of_index_and_one_plan_or_many_give_the_same() {
    let mut rng = rng(6);
    let g = geometries()[0];
    let batch = Batch::new(&mut rng, &[17, 4], &[1, 1], 8);
    let cache = tensor_of(&batch, &mut rng, &g, CacheFormat::INT4);
    let layers = [Layer::new(&mut rng, &g, 2), Layer::new(&mut rng, &g, 2)];
    for mla in all(config(g, CacheFormat::INT4)) {
        let (block_tables, context_lens) = tables(&batch, DType::U32);
        let mut shared = mla.plan(&block_tables, &context_lens, None, batch.pages).unwrap();
        for layer in &layers {
            let (planned, planned_lse) = layer.attend(&mla, DType::BF16, &cache, &mut shared);
            for dtype in [DType::U32, DType::I32] {
                let (block_tables, context_lens) = tables(&batch, dtype);
                let q_latent = mla.absorb_query(&layer.q_nope, &layer.up_key).unwrap();
                let decoded = mla.mla_decode(&q_latent, &layer.q_pe, &cache, &block_tables, &context_lens).unwrap();
                let out = mla.expand_output(&decoded.0, &layer.up_value, Some(&layer.value_bias)).unwrap();
                assert_eq!(f64s(&out), f64s(&planned));
                assert_eq!(f64s(&decoded.1), f64s(&planned_lse));
            }
        }
    }
}

#[test]
fn the_log_sum_exp_is_that_of_the_reference() {
    let mut rng = rng(7);
    let g = geometries()[1];
    let batch = Batch::new(&mut rng, &[11, 0], &[1, 1], 8);
    let cache = tensor_of(&batch, &mut rng, &g, CacheFormat::INT4);
    let layer = Layer::new(&mut rng, &g, 2);
    let (block_tables, context_lens) = tables(&batch, DType::I32);
    let [reference, cpu, kernels] = all(config(g, CacheFormat::INT4)).map(|mla| {
        let mut plan = mla.plan(&block_tables, &context_lens, None, batch.pages).unwrap();
        let q_latent = mla.absorb_query(&layer.q_nope, &layer.up_key).unwrap();
        mla.attend(&q_latent, &layer.q_pe, &cache, &mut plan).unwrap()
    });
    for (_, lse) in [&cpu, &kernels] {
        assert_close(&f64s(lse)[..g.query_heads], &f64s(&reference.1)[..g.query_heads], 0.01);
    }
    for (o_latent, lse) in [reference, cpu, kernels] {
        assert_eq!(lse.dtype(), DType::F32);
        // The empty sequence's query sees nothing.
        assert!(f64s(&lse)[g.query_heads..].iter().all(|&lse| lse == f64::NEG_INFINITY));
        assert!(f64s(&o_latent)[g.query_heads * g.latent_rank..].iter().all(|&o| o == 0.0));
    }
}

#[test]
fn results_come_in_the_type_of_the_query() {
    let mut rng = rng(8);
    let g = geometries()[0];
    let [reference, cpu, _] = &all(config(g, CacheFormat::BF16));
    let layer = Layer::new(&mut rng, &g, 1);
    let cache = cpu.new_cache(2).unwrap();
    let index = |rows: &[u32], dims: &[usize]| Tensor::from_slice(rows, dims, &Device::Cpu).unwrap();
    let types = [DType::F64, DType::F32, DType::F16, DType::BF16];
    for (mla, dtype) in [reference, cpu].into_iter().flat_map(|mla| types.map(|dtype| (mla, dtype))) {
        let q_latent = mla.absorb_query(&layer.q_nope.to_dtype(dtype).unwrap(), &layer.up_key).unwrap();
        let q_pe = layer.q_pe.to_dtype(dtype).unwrap();
        let (o_latent, lse) =
            mla.mla_decode(&q_latent, &q_pe, &cache, &index(&[1], &[1, 1]), &index(&[3], &[1])).unwrap();
        let out = mla.expand_output(&o_latent, &layer.up_value, None).unwrap();
        assert_eq!([q_latent.dtype(), o_latent.dtype(), out.dtype(), lse.dtype()], [dtype, dtype, dtype, DType::F32]);
    }
}

#[test]
fn slices_of_wider_queries_need_no_copy() {
    let mut rng = rng(9);
    let g = geometries()[0];
    let head = g.nope_dim + g.rope_dim;
    let wide = numbers(&mut rng, &[3, g.query_heads, head]);
    let up_key = numbers(&mut rng, &[g.kv_heads, g.nope_dim, g.latent_rank]);
    for mla in all(config(g, CacheFormat::BF16)) {
        let q_nope = wide.narrow(2, 0, g.nope_dim).unwrap();
        let [sliced, copied] =
            [q_nope.clone(), q_nope.contiguous().unwrap()].map(|q| mla.absorb_query(&q, &up_key).unwrap());
        assert_eq!(f64s(&sliced), f64s(&copied));
    }
}

#[test]
fn engines_may_share_operations_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Mla>();
    is_shared::<MlaPlan>();
}

/// The batch's cache with every unused byte poisoned, as a tensor.
fn tensor_of(batch: &Batch, rng: &mut ChaCha8Rng, g: &Geometry, format: CacheFormat) -> Tensor {
    let cache = batch.poisoned_cache(rng, g, format);
    Tensor::from_slice(cache.bytes(), (batch.pages, cache.layout().page_bytes()), &Device::Cpu).unwrap()
}
