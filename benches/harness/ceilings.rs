//! What a machine can do at most: measured here, or assumed.

use anyhow::Result;
use latent_attention::device::{Ceiling, Device};
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::shape::Work;

/// Bytes of each of the copy's two buffers: many times an L2 cache.
const COPY_BYTES: usize = 1 << 30;

/// Rounds of products per launch: some milliseconds.
const MMA_ROUNDS: u32 = 20_000;

/// Launches of products before the first that counts, about half a second of them, so that the clocks are where work
/// keeps them.
const WARM_UP: usize = 200;

/// The rates that bound every operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Where they are from.
    pub name: String,
    /// Bytes moved by a copy, read and written ones counted.
    pub tb_per_s: f64,
    /// bf16 products on tensor cores.
    pub tflop_per_s: f64,
}

impl Ceilings {
    /// Measures a GPU's.
    ///
    /// # Errors
    /// What the device says.
    pub fn measure(device: &Device, clock: &Clock, name: &str) -> Result<Self> {
        let ceiling = Ceiling::new(device)?;
        let (stream, mut flops) = (clock.stream(), 0);
        let mut out = device.allocate(ceiling.mma_elements())?;
        for _ in 0..WARM_UP {
            ceiling.mma(stream, MMA_ROUNDS, &mut out.view_mut())?;
        }
        let mma = clock.time(1, |stream, _| {
            flops = ceiling.mma(stream, MMA_ROUNDS, &mut out.view_mut())?;
            Ok(())
        })?;
        let words = COPY_BYTES / 8;
        // Random bits are what caches hold.
        let numbers: Vec<u64> = (0..1 << 16).map(|i: u64| (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let from = device.upload(&super::memory::repeated(&numbers, words))?;
        let mut to = device.allocate::<u64>(words)?;
        let copy = clock.time(1, |stream, _| ceiling.copy(stream, &from.view(), &mut to.view_mut()))?;
        Ok(Self {
            name: name.into(),
            tb_per_s: 2.0 * COPY_BYTES as f64 / copy.median_us / 1e6,
            tflop_per_s: flops as f64 / mma.median_us / 1e6,
        })
    }

    /// Rates to estimate with where none can be measured: those in the project's design for an H200, and the peaks in
    /// NVIDIA's data sheets of the H100 SXM and of the A100 80GB SXM, which no program reaches.
    pub fn assumed() -> Vec<Self> {
        let machine = |name: &str, tb_per_s, tflop_per_s| Self { name: name.into(), tb_per_s, tflop_per_s };
        vec![machine("H200", 4.3, 790.0), machine("H100", 3.35, 989.0), machine("A100", 2.04, 312.0)]
    }

    /// Microseconds that the work takes at least.
    pub fn least_us(&self, work: &Work) -> f64 {
        (work.bytes as f64 / self.tb_per_s).max(work.flops as f64 / self.tflop_per_s) / 1e6
    }

    /// Whether its bytes rather than its arithmetic bound the work.
    pub fn is_bound_by_bytes(&self, work: &Work) -> bool {
        work.bytes as f64 / self.tb_per_s >= work.flops as f64 / self.tflop_per_s
    }
}
