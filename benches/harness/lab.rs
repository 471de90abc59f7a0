//! Where operations are measured: a device, its memory, and a clock or a meter.

use std::process::Command;

use anyhow::Result;
use half::bf16;
use latent_attention::device::{Device, Simulation, Stream};
use latent_attention::image::Arch;
use latent_attention::ops::DecodeVariant;
use ptx_sim::meter::Meter;

use super::cache::CacheMemory;
use super::clock::{Clock, Times};
use super::memory::Numbers;
use super::predict::Predictions;

/// Most shared memory of a block of the simulated device: an H100's or H200's, so that kernels choose the tiles that
/// they choose there.
const SIMULATED_SHARED_BYTES: usize = 227 * 1024;

/// Bytes for caches where nvidia-smi does not say how much is free, and on the simulator.
const DEFAULT_CACHE_BYTES: usize = 8 << 30;

/// A device to measure on.
pub struct Lab {
    pub device: Device,
    pub gauge: Gauge,
    pub numbers: Numbers,
    pub cache: CacheMemory,
    /// Where times are predicted instead of taken, as far as they can be.
    pub predictions: Option<Predictions>,
    /// How `decode` is served, where the ways to do it are compared.
    pub variant: Option<DecodeVariant>,
    /// And what came out of the first copy of its inputs.
    pub attended: Vec<bf16>,
}

/// What measures: a GPU and the CPU have a clock, the simulator counts.
pub enum Gauge {
    Clock(Clock),
    Meter(Stream),
}

/// What was measured of one shape.
#[derive(Clone, Debug)]
pub enum Sample {
    Times(Times),
    Counts(Box<Meter>),
}

impl Lab {
    /// On a GPU, the `ordinal`-th. Caches take up to `cache_bytes`, or 70 % of what is free.
    pub fn on_gpu(device: Device, ordinal: usize, cache_bytes: Option<usize>) -> Result<Self> {
        let limit = cache_bytes.or_else(|| free_bytes(ordinal).map(|free| free / 10 * 7));
        let gauge = Gauge::Clock(Clock::new(&device)?);
        Self::new(device, gauge, limit)
    }

    /// On the CPU.
    pub fn on_cpu(device: Device, cache_bytes: Option<usize>) -> Result<Self> {
        let gauge = Gauge::Clock(Clock::new(&device)?);
        Self::new(device, gauge, cache_bytes)
    }

    /// On a simulated device. One multiprocessor, so that a sequence is divided as little as possible and counts grow
    /// with tokens alone. The checker is off: it is the tests' business, and several times slower.
    pub fn simulated(cache_bytes: Option<usize>) -> Result<Self> {
        let predictions = Predictions::new();
        if let Err(why) = &predictions {
            eprintln!("no times are predicted: {why}");
        }
        Ok(Self { predictions: predictions.ok(), ..Self::simulating(Arch::Compute80, cache_bytes)? })
    }

    /// The same with a Hopper GPU's own kernels too, and without predictions.
    pub fn simulated_hopper(cache_bytes: Option<usize>) -> Result<Self> {
        Self::simulating(Arch::Compute90a, cache_bytes)
    }

    fn simulating(arch: Arch, cache_bytes: Option<usize>) -> Result<Self> {
        let simulation = Simulation::default().with_multiprocessors(1).with_shared_bytes(SIMULATED_SHARED_BYTES);
        let device = Device::simulate(simulation.with_checked(false).with_arch(arch));
        let gauge = Gauge::Meter(device.stream()?);
        Self::new(device, gauge, cache_bytes)
    }

    fn new(device: Device, gauge: Gauge, cache_bytes: Option<usize>) -> Result<Self> {
        let numbers = Numbers::new(&device)?;
        let cache = CacheMemory::new(&device, cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES))?;
        Ok(Self { device, gauge, numbers, cache, predictions: None, variant: None, attended: Vec::new() })
    }
}

impl Gauge {
    /// A stream for what is not measured.
    pub fn stream(&self) -> &Stream {
        match self {
            Self::Clock(clock) => clock.stream(),
            Self::Meter(stream) => stream,
        }
    }

    /// How many copies of its inputs a launch that moves so many bytes should have.
    pub fn copies(&self, bytes: u64) -> usize {
        match self {
            Self::Clock(_) => Clock::copies(bytes),
            Self::Meter(_) => 1,
        }
    }

    /// Measures what `launch` does, given the number of a copy of its inputs.
    pub fn measure(
        &self,
        copies: usize,
        mut launch: impl FnMut(&Stream, usize) -> latent_attention::Result<()>,
    ) -> Result<Sample> {
        match self {
            Self::Clock(clock) => Ok(Sample::Times(clock.time(copies, launch)?)),
            Self::Meter(stream) => {
                // What was launched to prepare it is not counted.
                drop(stream.device().take_counts());
                launch(stream, 0)?;
                let mut sum = Meter::default();
                stream.device().take_counts().values().for_each(|counted| sum.add(&counted.meter));
                Ok(Sample::Counts(Box::new(sum)))
            }
        }
    }
}

/// Free bytes of a GPU's memory, as nvidia-smi says.
fn free_bytes(ordinal: usize) -> Option<usize> {
    let free = nvidia_smi(ordinal, "memory.free")?;
    Some(free.split(' ').next()?.parse::<usize>().ok()? << 20)
}

/// One property of a GPU, as nvidia-smi prints it.
pub fn nvidia_smi(ordinal: usize, property: &str) -> Option<String> {
    let arguments = [format!("--id={ordinal}"), format!("--query-gpu={property}"), "--format=csv,noheader".into()];
    let output = Command::new("nvidia-smi").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned())
}
