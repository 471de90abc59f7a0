//! The functions over candle's tensors: CPU tensors through the reference, through the CPU's operations in place, and through
//! the kernels on the simulator, which is what CUDA tensors take.

mod attend;
#[path = "../../../../tests/common/backtrace.rs"]
mod backtrace;
#[path = "../../../../tests/common/mod.rs"]
#[allow(dead_code)] // Its batches are used, not its random geometries.
mod common;
#[cfg(feature = "cuda")]
mod cuda;
mod refusals;
mod store;

use candle_core::{DType, Device, Tensor};
use common::{Batch, random};
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, RopeFormat};
use latent_attention::ops::DecodeConfig;
use latent_attention_candle::Mla;
use rand::rngs::ChaCha8Rng;

/// Shared and per-head rotated keys, a latent that does not divide among the heads, no rotation, nothing but rotation.
fn geometries() -> [Geometry; 4] {
    [
        Geometry::deepseek(4, 40, 8, 16, 16).unwrap(),
        Geometry::mha2mla(4, 2, 16, 8, 1).and_then(|g| g.with_latent_rank(21)).unwrap(),
        Geometry::mha2mla(2, 2, 8, 0, 8).unwrap(),
        Geometry::mha2mla(4, 2, 8, 8, 8).unwrap(),
    ]
}

const FORMATS: [CacheFormat; 3] =
    [CacheFormat::BF16, CacheFormat::INT4, CacheFormat::int4(Group::G32).with_rope(RopeFormat::Int8)];

/// Operations for steps of up to 16 query tokens over sequences of up to 100.
fn config(g: Geometry, format: CacheFormat) -> DecodeConfig {
    let layout = CacheLayout::new(&g, format, 8).unwrap();
    DecodeConfig::new(g, layout, g.default_scale() as f32, 16, 100)
}

/// The same operations by the reference, by the CPU and by the kernels.
fn all(config: DecodeConfig) -> [Mla; 3] {
    [Mla::reference(config).unwrap(), Mla::new(&Device::Cpu, config).unwrap(), Mla::simulated(config).unwrap()]
}

/// Numbers that bf16 holds, so that all see the same, in bf16.
fn numbers(rng: &mut ChaCha8Rng, dims: &[usize]) -> Tensor {
    let values = random(rng, dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap()
}

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(cache: &Tensor) -> Vec<u8> {
    cache.flatten_all().unwrap().to_vec1().unwrap()
}

/// Page table and lengths of a batch, as i32 or as u32.
fn tables(batch: &Batch, dtype: DType) -> (Tensor, Tensor) {
    let tensor = |numbers: &[i32], dims: &[usize]| match dtype {
        DType::U32 => Tensor::from_vec(numbers.iter().map(|n| n.cast_unsigned()).collect(), dims, &Device::Cpu),
        _ => Tensor::from_slice(numbers, dims, &Device::Cpu),
    };
    let sequences = batch.seq_lens.len();
    let table = tensor(&batch.table, &[sequences, batch.max_pages]).unwrap();
    (table, tensor(&batch.seq_lens, &[sequences]).unwrap())
}

/// `[T]` slots.
fn slots(slots: &[i64]) -> Tensor {
    Tensor::from_slice(slots, slots.len(), &Device::Cpu).unwrap()
}
