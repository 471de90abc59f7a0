//! What a machine can do at most: measured here, or assumed.

use anyhow::Result;
use latent_attention::device::{Ceiling, Device};
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::lab::nvidia_smi;
use super::shape::Work;

/// Bytes of each of the copy's two buffers: many times an L2 cache.
const COPY_BYTES: usize = 1 << 30;
const CPU_COPY_BYTES: usize = COPY_BYTES / 4;

/// Rounds of products per launch: some milliseconds. One of `wgmma` is 32 of `mma.sync`.
const MMA_ROUNDS: u32 = 20_000;
const WGMMA_ROUNDS: u32 = MMA_ROUNDS / 32;

/// The same on the CPU.
const CPU_ROUNDS: u32 = 200;
/// One of 8-bit integers is 32 of f32.
const CPU_INT8_ROUNDS: u32 = CPU_ROUNDS / 8;

/// Launches of products before the first that counts, about half a second of them, so that the clocks are where work
/// keeps them.
const WARM_UP: usize = 200;

/// The rates that bound every operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Where they are from.
    pub name: String,
    /// Bytes moved at most: the faster of reads alone and of a copy, whose read and written bytes are counted. In files of
    /// before `rates`, the copy's.
    pub tb_per_s: f64,
    /// bf16 products on tensor cores at most: by `wgmma` where there is, else by `mma.sync`. In files of before `rates`, by
    /// `mma.sync`. On the CPU products of 8-bit integers where there are any, else of f32.
    pub tflop_per_s: f64,
    /// What they are the largest of, if they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

/// What was measured of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Of a copy, bytes read and written.
    pub copy_tb_per_s: f64,
    /// Of reads alone.
    pub read_tb_per_s: f64,
    /// Of products by `mma.sync`, on the CPU of those in f32.
    pub mma_tflop_per_s: f64,
    /// Of products by `wgmma`, on Hopper.
    pub wgmma_tflop_per_s: Option<f64>,
    /// Of products of 8-bit integers, on CPUs with AVX-512 VNNI, AMX or NEON's dotprod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8_tflop_per_s: Option<f64>,
    /// Microseconds of a launch in a graph that has nothing to do.
    pub launch_us: f64,
    /// The multiprocessors' clock in MHz right behind the products, as nvidia-smi says.
    pub clock_mhz: Option<f64>,
    /// Whether the machine is a CPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cpu: bool,
}

impl Rates {
    /// Measures a GPU's, the `ordinal`-th.
    ///
    /// # Errors
    /// What the device says.
    fn measure(device: &Device, clock: &Clock, ordinal: usize) -> Result<Self> {
        let ceiling = Ceiling::new(device)?;
        let (stream, mut flops, mut of_wgmma, mut of_int8) = (clock.stream(), 0, None, None);
        let (rounds, warm_up) = if device.is_cpu() { (CPU_ROUNDS, 1) } else { (MMA_ROUNDS, WARM_UP) };
        let mut out = device.allocate(ceiling.mma_elements())?;
        for _ in 0..warm_up {
            ceiling.mma(stream, rounds, &mut out.view_mut())?;
        }
        let mma = clock.time(1, |stream, _| {
            flops = ceiling.mma(stream, rounds, &mut out.view_mut())?;
            Ok(())
        })?;
        // Before the first that counts: what they return says whether there are any.
        let wgmma = match ceiling.wgmma(stream, WGMMA_ROUNDS, &mut out.view_mut())? {
            Some(_) => Some(clock.time(1, |stream, _| {
                of_wgmma = ceiling.wgmma(stream, WGMMA_ROUNDS, &mut out.view_mut())?;
                Ok(())
            })?),
            None => None,
        };
        let int8 = match ceiling.int8(stream, CPU_INT8_ROUNDS, &mut out.view_mut())? {
            Some(_) => Some(clock.time(1, |stream, _| {
                of_int8 = ceiling.int8(stream, CPU_INT8_ROUNDS, &mut out.view_mut())?;
                Ok(())
            })?),
            None => None,
        };
        let gpu = Some(ordinal).filter(|_| !device.is_cpu());
        let clock_mhz = gpu.and_then(|ordinal| nvidia_smi(ordinal, "clocks.sm")?.split(' ').next()?.parse().ok());
        let bytes = if device.is_cpu() { CPU_COPY_BYTES } else { COPY_BYTES };
        let words = bytes / 8;
        // Random bits are what caches hold.
        let numbers: Vec<u64> = (0..1 << 16).map(|i: u64| (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let from = device.upload(&super::memory::repeated(&numbers, words))?;
        let mut to = device.allocate::<u64>(words)?;
        let copy = clock.time(1, |stream, _| ceiling.copy(stream, &from.view(), &mut to.view_mut()))?;
        let mut seen = device.allocate::<u64>(ceiling.read_elements())?;
        let read = clock.time(1, |stream, _| ceiling.read(stream, &from.view(), &mut seen.view_mut()))?;
        let nothing = from.view().slice(..0)?;
        let launch = clock.time(1, |stream, _| ceiling.read(stream, &nothing, &mut seen.view_mut()))?;
        Ok(Self {
            copy_tb_per_s: 2.0 * bytes as f64 / copy.median_us / 1e6,
            read_tb_per_s: bytes as f64 / read.median_us / 1e6,
            mma_tflop_per_s: flops as f64 / mma.median_us / 1e6,
            wgmma_tflop_per_s: wgmma.zip(of_wgmma).map(|(time, flops)| flops as f64 / time.median_us / 1e6),
            int8_tflop_per_s: int8.zip(of_int8).map(|(time, flops)| flops as f64 / time.median_us / 1e6),
            launch_us: launch.median_us,
            clock_mhz,
            is_cpu: device.is_cpu(),
        })
    }
}

impl Ceilings {
    /// Measures a GPU's, the `ordinal`-th.
    ///
    /// # Errors
    /// What the device says.
    pub fn measure(device: &Device, clock: &Clock, ordinal: usize, name: &str) -> Result<Self> {
        Ok(Self::of(Rates::measure(device, clock, ordinal)?, name))
    }

    /// The largest of the rates.
    pub fn of(rates: Rates, name: &str) -> Self {
        Self {
            name: name.into(),
            tb_per_s: rates.read_tb_per_s.max(rates.copy_tb_per_s),
            tflop_per_s: [rates.wgmma_tflop_per_s, rates.int8_tflop_per_s]
                .into_iter()
                .flatten()
                .fold(rates.mma_tflop_per_s, f64::max),
            rates: Some(rates),
        }
    }

    /// What was reached at any time: the larger rates of both.
    pub fn highest(&self, other: &Self) -> Self {
        Self {
            tb_per_s: self.tb_per_s.max(other.tb_per_s),
            tflop_per_s: self.tflop_per_s.max(other.tflop_per_s),
            ..self.clone()
        }
    }

    /// Rates to estimate with where none can be measured: those in the project's design for an H200, and the peaks in
    /// NVIDIA's data sheets of the H100 SXM and of the A100 80GB SXM, which no program reaches.
    pub fn assumed() -> Vec<Self> {
        let machine =
            |name: &str, tb_per_s, tflop_per_s| Self { name: name.into(), tb_per_s, tflop_per_s, rates: None };
        vec![machine("H200", 4.3, 790.0), machine("H100", 3.35, 989.0), machine("A100", 2.04, 312.0)]
    }

    /// Whether reads alone are the faster way to move bytes.
    pub fn is_by_reads(&self) -> bool {
        self.rates.as_ref().is_some_and(|rates| rates.read_tb_per_s >= rates.copy_tb_per_s)
    }

    /// Whether they were measured on a CPU.
    pub fn is_cpu(&self) -> bool {
        self.rates.as_ref().is_some_and(|rates| rates.is_cpu)
    }

    /// What the fastest products are of, and by.
    pub fn products(&self) -> &'static str {
        match &self.rates {
            Some(rates) if rates.int8_tflop_per_s.is_some_and(|rate| rate >= rates.mma_tflop_per_s) => "int8 products",
            Some(rates) if rates.is_cpu => "f32 products",
            Some(rates) if rates.wgmma_tflop_per_s.is_some_and(|rate| rate >= rates.mma_tflop_per_s) => {
                "bf16 products by wgmma"
            }
            _ => "bf16 products by mma.sync",
        }
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

impl std::fmt::Display for Ceilings {
    /// All that was measured, in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(rates) = &self.rates else {
            return write!(f, "{}: {:.3} TB/s, {:.1} TFLOP/s", self.name, self.tb_per_s, self.tflop_per_s);
        };
        let Rates { copy_tb_per_s, read_tb_per_s, mma_tflop_per_s, .. } = rates;
        if rates.is_cpu {
            let (name, launch_us) = (&self.name, rates.launch_us);
            write!(
                f,
                "{name}: reads {read_tb_per_s:.4} TB/s, copy {copy_tb_per_s:.4}; products {mma_tflop_per_s:.3} TFLOP/s of f32"
            )?;
            if let Some(tflop_per_s) = rates.int8_tflop_per_s {
                write!(f, ", {tflop_per_s:.3} of 8-bit integers")?;
            }
            return write!(f, "; an operation that has nothing to do {launch_us:.2} us");
        }
        write!(f, "{}: reads {read_tb_per_s:.3} TB/s, copy {copy_tb_per_s:.3}; bf16 products", self.name)?;
        if let Some(tflop_per_s) = rates.wgmma_tflop_per_s {
            write!(f, " {tflop_per_s:.1} TFLOP/s by wgmma,")?;
        }
        write!(f, " {mma_tflop_per_s:.1} by mma.sync; a launch in a graph {:.2} us", rates.launch_us)?;
        rates.clock_mhz.map_or(Ok(()), |mhz| write!(f, "; clock {mhz:.0} MHz"))
    }
}
