//! Results are the same to the bit whatever the pool, and with fixed splits whatever the batch.

use std::sync::Arc;

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, Group, RopeFormat};
use latent_attention::device::{CpuConfig, CpuLevel, Device};
use latent_attention::ops::KernelFamily;
use latent_attention::reference::Attended;
use rand::rngs::ChaCha8Rng;

use crate::common::{Batch, random, rng};
use crate::on_device::OnDevice;
use crate::properties::backend::{Backend, numbers};
use crate::properties::decode::Case;
use crate::properties::rope_append::Step;

/// The device with so many threads of its own.
fn with_threads(level: CpuLevel, threads: usize) -> OnDevice {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let config = CpuConfig::default().with_level(level).with_pool(Arc::new(pool));
    OnDevice(Device::cpu_with(config).unwrap(), KernelFamily::Measured)
}

/// A layer with several KV heads, whose latents are no multiple of any vector.
fn geometry() -> Geometry {
    let mut geometry = Geometry::mha2mla(12, 4, 24, 8, 1).unwrap();
    (geometry.latent_rank, geometry.value_dim) = (530, 40);
    geometry.validate().unwrap()
}

const FORMATS: [CacheFormat; 3] =
    [CacheFormat::INT4, CacheFormat::int4(Group::G32).with_rope(RopeFormat::Int8), CacheFormat::BF16];

/// What every operation makes of random numbers.
#[derive(PartialEq)]
struct Results {
    attended: Vec<Attended>,
    numbers: Vec<Vec<f64>>,
    cache: Vec<u8>,
    saturated: usize,
}

impl Results {
    fn of(backend: &OnDevice) -> Self {
        let (g, rng) = (geometry(), &mut rng(1));
        let mut results = Self { attended: vec![], numbers: vec![], cache: vec![], saturated: 0 };
        let weights = |rng: &mut ChaCha8Rng, dim: usize| random(rng, g.kv_heads * dim * g.latent_rank);
        let (up_key, up_value) = (weights(rng, g.nope_dim), weights(rng, g.value_dim));
        let bias = random(rng, g.kv_heads * g.value_dim);
        for format in FORMATS {
            let batch = Batch::new(rng, &[700, 5, 0, 130], &[1, 2, 1, 6], 16);
            let case = Case::new(backend, rng, g, format, batch);
            let attended = backend.decode(&case.inputs(), &case.cache);
            let tokens = attended.lse.len() / g.query_heads;
            let q_nope = vec![0.37; tokens * g.query_heads * g.nope_dim];
            let sequences = case.batch.sequences();
            let projected = backend.up_project(&g, [&up_key, &up_value, &bias], &sequences, &case.cache);
            results.numbers.extend([
                backend.absorb_query(&g, &up_key, &q_nope, tokens),
                backend.expand_output(&g, &up_value, &bias, &attended.o_latent),
                backend.gather(&sequences, None, &case.cache),
                projected.keys,
                projected.values,
            ]);
            results.attended.push(attended);

            let mut cache = case.cache;
            let mut step = Step::new(rng, g, 150, cache.slots());
            step.c_kv[7] = f32::INFINITY;
            for values in [&mut step.q_rope, &mut step.k_rope, &mut step.c_kv] {
                *values = numbers(backend, std::mem::take(values));
            }
            results.saturated += backend.rope_append(&step.params(), &step.inputs(), &mut cache);
            backend.copy_pages(&[[0, 2], [1, 3]], &mut cache);
            results.cache.extend_from_slice(cache.bytes());
        }
        results
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for level in CpuLevel::available() {
        let one = Results::of(&with_threads(level, 1));
        assert!(one.saturated > 0);
        for threads in [2, 5] {
            assert!(Results::of(&with_threads(level, threads)) == one, "{level}, {threads} threads");
        }
    }
}
