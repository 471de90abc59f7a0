//! What does not fit is refused, by a message that names it.

use candle_core::{DType, Device, MetalDevice, Result, Tensor};
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::ops::DecodeConfig;
use latent_attention_candle::Mla;

use super::backtrace::assert_passes_with_backtraces;
use super::{all, bytes, config, slots};

/// 4 query heads, 2 KV heads with a rotated key of 4 each, 4 unrotated dimensions, a latent of 6, values of 8.
fn geometry() -> Geometry {
    Geometry::mha2mla(4, 2, 8, 4, 3).unwrap()
}

/// Zeros in bf16, which all take.
fn zeros(dims: &[usize]) -> Tensor {
    Tensor::zeros(dims, DType::BF16, &Device::Cpu).unwrap()
}

fn ints(numbers: &[i32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(numbers, dims, &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_refused<T>(result: Result<T>, message: &str) {
    assert_eq!(result.err().map(|error| error.to_string()).as_deref(), Some(message));
}

#[test]
fn operations_that_cannot_be_made() {
    let layout = CacheLayout::new(&Geometry::mha2mla(4, 2, 8, 4, 4).unwrap(), CacheFormat::INT4, 8).unwrap();
    let config = DecodeConfig::new(geometry(), layout, 1.0, 16, 100);
    let message = "cache layout: latent rank: expected 6 from the geometry, got 8";
    for made in [Mla::new(&Device::Cpu, config), Mla::reference(config), Mla::simulated(config)] {
        assert_refused(made, message);
    }
    for scale in [f32::NAN, f32::INFINITY] {
        let mut config = super::config(geometry(), CacheFormat::INT4);
        config.scale = scale;
        let message = format!("scale {scale}: must be finite");
        for made in [Mla::new(&Device::Cpu, config), Mla::reference(config), Mla::simulated(config)] {
            assert_refused(made, &message);
        }
    }
    assert_refused(
        Mla::new(&Device::Metal(MetalDevice), super::config(geometry(), CacheFormat::INT4)),
        "Metal: the device must be the CPU or, in a build with feature `cuda`, a CUDA device",
    );
}

#[test]
fn tokens_that_cannot_be_stored() {
    for mla in all(config(geometry(), CacheFormat::BF16)) {
        let cache = mla.new_cache(2).unwrap(); // 2 pages of 8 tokens of 16 + 16 bytes
        let (c_kv, k_pe, slot_mapping) = (zeros(&[2, 6]), zeros(&[2, 8]), slots(&[1, 2]));
        let store = |c_kv: &Tensor, k_pe: &Tensor, slots: &Tensor| mla.concat_and_cache_mla(c_kv, k_pe, &cache, slots);
        store(&c_kv, &k_pe, &slot_mapping).unwrap();
        assert_refused(store(&zeros(&[2, 7]), &k_pe, &slot_mapping), "c_kv: expected [tokens 2, latent 6], got [2, 7]");
        assert_refused(
            store(&c_kv, &zeros(&[3, 8]), &slot_mapping),
            "k_pe: expected [tokens 2, rope heads x rope 8], got [3, 8]",
        );
        assert_refused(
            store(&c_kv, &zeros(&[2, 1, 8]), &slot_mapping),
            "k_pe: expected [tokens 2, rope heads 2, rope 4], got [2, 1, 8]",
        );
        assert_refused(store(&c_kv, &k_pe, &ints(&[1, 2], &[2])), "slot_mapping: holds i32, must hold i64");
        assert_refused(
            store(&c_kv, &k_pe, &slot_mapping.unsqueeze(1).unwrap()),
            "slot_mapping: expected [tokens 2], got [2, 1]",
        );
        assert_refused(
            store(&c_kv, &k_pe, &slot_mapping.get(0).unwrap()),
            "slot_mapping: expected a dimension of tokens, got a scalar",
        );
    }
}

#[test]
fn slots_that_are_not_there_are_errors_on_the_cpu_and_nothing_is_written() {
    let [reference, cpu, _] = all(config(geometry(), CacheFormat::BF16));
    for mla in [reference, cpu] {
        let cache = mla.new_cache(2).unwrap();
        let ones = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
        let store = |numbers| mla.concat_and_cache_mla(&ones(&[2, 6]), &ones(&[2, 8]), &cache, &slots(numbers));
        assert_refused(store(&[0, 16]), "slot_mapping [1] = 16 is outside of negative or 0..16 slots");
        assert_refused(store(&[5, 5]), "slot 5: two tokens of one step cannot share a slot");
        assert!(bytes(&cache).iter().all(|&byte| byte == 0));
    }
}

#[test]
fn caches_that_are_none() {
    for mla in all(config(geometry(), CacheFormat::BF16)) {
        let store = |cache: &Tensor| mla.concat_and_cache_mla(&zeros(&[1, 6]), &zeros(&[1, 8]), cache, &slots(&[1]));
        let cache = |dims: &[usize]| Tensor::zeros(dims, DType::U8, &Device::Cpu).unwrap();
        assert_refused(store(&zeros(&[2, 256])), "cache: holds bf16, must hold u8");
        assert_refused(store(&cache(&[2, 255])), "cache: expected [pages 2, page bytes 256], got [2, 255]");
        assert_refused(store(&cache(&[256, 2]).t().unwrap()), "cache: is not contiguous: [2, 256] with strides [1, 2]");
    }
}

#[test]
fn queries_and_weights_of_another_shape_or_type() {
    let [reference, cpu, kernels] = all(config(geometry(), CacheFormat::BF16));
    for mla in [&reference, &cpu, &kernels] {
        assert_refused(
            mla.absorb_query(&zeros(&[1, 4, 5]), &zeros(&[2, 4, 6])),
            "q_nope: expected [tokens 1, query heads 4, nope 4], got [1, 4, 5]",
        );
        assert_refused(
            mla.absorb_query(&zeros(&[1, 4, 4]), &zeros(&[4, 4, 6])),
            "up_key: expected [kv heads 2, nope 4, latent 6], got [4, 4, 6]",
        );
        let expand = |o_latent: &[usize], up_value: &[usize], bias: Tensor| {
            mla.expand_output(&zeros(o_latent), &zeros(up_value), Some(&bias))
        };
        let bias = || zeros(&[2, 8]).to_dtype(DType::F32).unwrap();
        expand(&[1, 4, 6], &[2, 8, 6], bias()).unwrap();
        assert_refused(
            expand(&[4, 6], &[2, 8, 6], bias()),
            "o_latent: expected [tokens 4, query heads 4, latent 6], got [4, 6]",
        );
        assert_refused(
            expand(&[1, 4, 6], &[2, 6, 8], bias()),
            "up_value: expected [kv heads 2, value 8, latent 6], got [2, 6, 8]",
        );
        assert_refused(
            expand(&[1, 4, 6], &[2, 8, 6], bias().flatten_all().unwrap()),
            "value_bias: expected [kv heads 2, value 8], got [16]",
        );
    }
    let (whole, floats) = (ints(&[0; 16], &[1, 4, 4]), zeros(&[1, 4, 4]).to_dtype(DType::F32).unwrap());
    let up_key = zeros(&[2, 4, 6]);
    for mla in [&reference, &cpu] {
        assert_refused(mla.absorb_query(&whole, &up_key), "q_nope: holds i32, must hold f64 or f32 or bf16 or f16");
        mla.absorb_query(&floats, &up_key).unwrap();
    }
    assert_refused(kernels.absorb_query(&floats, &up_key), "q_nope: holds f32, must hold bf16");
    let bias = zeros(&[2, 8]);
    assert_refused(
        kernels.expand_output(&zeros(&[1, 4, 6]), &zeros(&[2, 8, 6]), Some(&bias)),
        "value_bias: holds bf16, must hold f32",
    );
    let transposed = zeros(&[1, 4, 4]).transpose(1, 2).unwrap();
    assert_refused(
        kernels.absorb_query(&transposed, &up_key),
        "q_nope: its last dimension must be dense, but [1, 4, 4] has strides [16, 1, 4]",
    );
}

#[test]
fn batches_that_do_not_fit() {
    for mla in all(config(geometry(), CacheFormat::BF16)) {
        let plan = |tables: &Tensor, lens: &[i32]| mla.plan(tables, &ints(lens, &[lens.len()]), None, 6);
        let tables = ints(&[0, 1, 2, 3], &[2, 2]);
        plan(&tables, &[9, 16]).unwrap();
        assert_refused(plan(&zeros(&[2, 2]), &[9, 16]), "block_tables: holds bf16, must hold i32 or u32");
        assert_refused(plan(&tables, &[9]), "block_tables: expected [sequences 1, pages 2], got [2, 2]");
        assert_refused(plan(&tables, &[9, -1]), "seq_lens [1] = -1 is outside of 0 and above");
        assert_refused(
            plan(&tables, &[9, 17]),
            "page table: expected 3 pages for the 17 tokens of sequence 1, got 2 pages",
        );
        assert_refused(
            plan(&tables, &[9, 101]),
            "context_lens [1] = 101 is outside of 0..=100 tokens that these operations were made for",
        );
        assert_refused(
            plan(&ints(&[0, 6, 2, 3], &[2, 2]), &[9, 16]),
            "page table [sequence 0, page 1] = 6 is outside of 0..6 pages",
        );
        assert_refused(
            plan(&ints(&[0; 34], &[17, 2]), &[1; 17]),
            "17 query tokens: these operations were made for at most 16",
        );
        assert_refused(
            mla.plan(&tables, &ints(&[9, 16], &[2]), Some(&[1]), 6),
            "query starts: expected 3 ascending numbers from 0, got [0, 1]",
        );
        assert_refused(
            mla.plan(&tables, &ints(&[9, 16], &[1, 2]), None, 6),
            "context_lens: expected [sequences 1], got [1, 2]",
        );
        let cache = mla.new_cache(6).unwrap();
        let chunk = |sums: &[i32], starts: Option<&Tensor>| {
            mla.gather_mla_cache(&cache, &tables, &ints(sums, &[sums.len()]), starts)
        };
        let gather = |sums: &[i32]| chunk(sums, None);
        gather(&[0, 9, 9]).unwrap();
        assert_refused(gather(&[1, 9, 9]), "cu_seq_lens: expected ascending numbers from 0, got [1, 9, 9]");
        assert_refused(gather(&[0, 9, 8]), "cu_seq_lens: expected ascending numbers from 0, got [0, 9, 8]");
        assert_refused(gather(&[]), "cu_seq_lens: expected ascending numbers from 0, got []");
        assert_refused(gather(&[0, 9]), "block_tables: expected [sequences 1, pages 2], got [2, 2]");
        let from = |starts: &[i32]| chunk(&[0, 9, 9], Some(&ints(starts, &[starts.len()])));
        // The second sequence has no token in the chunk, so that it may have ended anywhere before.
        from(&[7, 1000]).unwrap();
        assert_refused(from(&[7]), "seq_starts: expected [sequences 2], got [1]");
        assert_refused(from(&[7, -1]), "seq_starts [1] = -1 is outside of 0 and above");
        assert_refused(from(&[8, 0]), "page table: expected 3 pages for the 17 tokens of sequence 0, got 2 pages");
        assert_refused(chunk(&[0, 9, 9], Some(&zeros(&[2]))), "seq_starts: holds bf16, must hold i32 or u32");
    }
}

#[test]
fn attention_by_a_plan_for_something_else() {
    let (tables, lens) = (ints(&[0, 1], &[1, 2]), ints(&[9], &[1]));
    let [reference, cpu, kernels] = all(config(geometry(), CacheFormat::BF16));
    let others = all(config(geometry(), CacheFormat::INT4));
    for (mla, other) in [&reference, &cpu, &kernels].into_iter().zip(&others) {
        let mut plan = mla.plan(&tables, &lens, None, 3).unwrap();
        let (cache, q_latent, q_pe) = (mla.new_cache(3).unwrap(), zeros(&[1, 4, 6]), zeros(&[1, 4, 4]));
        mla.attend(&q_latent, &q_pe, &cache, &mut plan).unwrap();
        assert_refused(
            mla.attend(&zeros(&[2, 4, 6]), &q_pe, &cache, &mut plan),
            "q_latent: expected [query tokens 1, query heads 4, latent 6], got [2, 4, 6]",
        );
        assert_refused(
            mla.attend(&q_latent, &zeros(&[1, 4, 6]), &cache, &mut plan),
            "q_pe: expected [query tokens 1, query heads 4, rope 4], got [1, 4, 6]",
        );
        assert_refused(
            mla.attend(&q_latent, &q_pe, &mla.new_cache(2).unwrap(), &mut plan),
            "cache: has 2 pages, the plan is for caches of 3 or more",
        );
        assert_refused(
            other.attend(&q_latent, &q_pe, &cache, &mut plan),
            "plan: was made by operations of another configuration",
        );
    }
    // Each simulator has memory of its own.
    let elsewhere = Mla::simulated(*kernels.config()).unwrap();
    let mut plan = kernels.plan(&tables, &lens, None, 3).unwrap();
    let attended =
        elsewhere.attend(&zeros(&[1, 4, 6]), &zeros(&[1, 4, 4]), &elsewhere.new_cache(3).unwrap(), &mut plan);
    let message = attended.unwrap_err().to_string();
    assert!(message.starts_with("plan: is on "), "{message}");
    // The CPU's is the process's.
    let mut plan = cpu.plan(&tables, &lens, None, 3).unwrap();
    let another = Mla::new(&Device::Cpu, *cpu.config()).unwrap();
    another.attend(&zeros(&[1, 4, 6]), &zeros(&[1, 4, 4]), &another.new_cache(3).unwrap(), &mut plan).unwrap();
    let mut plan = reference.plan(&tables, &lens, None, 3).unwrap();
    assert_refused(
        kernels.attend(&zeros(&[1, 4, 6]), &zeros(&[1, 4, 4]), &kernels.new_cache(3).unwrap(), &mut plan),
        "plan: was made by the reference",
    );
}

#[test]
fn messages_are_the_same_where_candle_appends_backtraces() {
    assert_passes_with_backtraces("refusals::operations_that_cannot_be_made");
    assert_passes_with_backtraces("refusals::queries_and_weights_of_another_shape_or_type");
    // Through candle's own way of writing in place.
    assert_passes_with_backtraces("refusals::slots_that_are_not_there_are_errors_on_the_cpu_and_nothing_is_written");
}
