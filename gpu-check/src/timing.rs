//! First times of each operation, beside what the machine can do at most.

use anyhow::Result;
use latent_attention::device::{Buffer, Ceiling, Device, Event, Graph, Stream};
use serde::Serialize;

use crate::operations;

/// Repetitions of a measurement; the median counts.
const REPETITIONS: usize = 15;

/// Bytes that are overwritten between repetitions: more than any L2 cache holds.
const FLUSH_BYTES: usize = 256 << 20;

/// The models of the table in the design's section on decoding.
const SHAPES: [&str; 5] = ["llama2-7b-d64", "llama2-7b-d16", "llama3-8b-d64", "deepseek-v2-lite", "deepseek-v3"];

/// Everything that was timed.
#[derive(Serialize)]
pub struct Timing {
    /// Terabytes per second of a copy, read and written bytes counted.
    pub copy_tb_per_s: f64,
    /// TFLOP/s of bf16 `mma.sync`.
    pub mma_tflop_per_s: f64,
    /// The operations.
    pub rows: Vec<Row>,
}

/// One operation on one shape.
#[derive(Serialize)]
pub struct Row {
    /// The operation.
    pub operation: &'static str,
    /// Model, format and batch.
    pub shape: String,
    /// Median of the repetitions, in microseconds.
    pub median_us: f64,
    /// Fastest and slowest.
    pub range_us: [f64; 2],
    /// Bytes that it has to read and write.
    pub bytes: u64,
    /// Floating-point operations that it has to do.
    pub flops: u64,
}

/// A clock for launches on one device.
pub struct Clock {
    stream: Stream,
    ceiling: Ceiling,
    flush: [Buffer<u64>; 2],
}

impl Clock {
    fn new(device: &Device) -> Result<Self> {
        let flush = || device.zeros(FLUSH_BYTES / 8);
        Ok(Self { stream: device.stream()?, ceiling: Ceiling::new(device)?, flush: [flush()?, flush()?] })
    }

    /// Microseconds of the launches that `work` makes, captured in a graph and replayed with a cold L2 cache; sorted.
    pub fn time(&mut self, mut work: impl FnMut(&Stream) -> latent_attention::Result<()>) -> Result<Vec<f64>> {
        let graph: Graph = self.stream.capture(|| work(&self.stream))?;
        let mut times = Vec::new();
        // The first one warms up.
        for repetition in 0..=REPETITIONS {
            let [from, to] = &mut self.flush;
            self.ceiling.copy(&self.stream, &from.view(), &mut to.view_mut())?;
            let (start, end) = (Event::new(self.stream.device())?, Event::new(self.stream.device())?);
            start.record(&self.stream)?;
            // SAFETY: `work` borrows all that its launches use, and is still alive.
            unsafe { graph.launch(&self.stream) }?;
            end.record(&self.stream)?;
            let microseconds = 1000.0 * f64::from(end.milliseconds_since(&start)?);
            if repetition > 0 {
                times.push(microseconds);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// Measures the ceilings, then the operations.
pub fn run(device: &Device) -> Result<Timing> {
    let mut clock = Clock::new(device)?;
    let mut timing = Timing { copy_tb_per_s: 0.0, mma_tflop_per_s: 0.0, rows: Vec::new() };
    let ceiling = clock.ceiling.clone();
    let elements = FLUSH_BYTES / 2; // Four times as many bytes as are flushed.
    let (from, mut to) = (device.zeros::<u64>(elements)?, device.zeros::<u64>(elements)?);
    let times = clock.time(|stream| ceiling.copy(stream, &from.view(), &mut to.view_mut()))?;
    timing.copy_tb_per_s = (2 * 8 * elements) as f64 / median(&times) / 1e6;
    let mut out = device.zeros(ceiling.mma_elements())?;
    let mut flops = 0;
    let times = clock.time(|stream| {
        flops = ceiling.mma(stream, 20_000, &mut out.view_mut())?;
        Ok(())
    })?;
    timing.mma_tflop_per_s = flops as f64 / median(&times) / 1e6;
    println!("ceilings: copy {:.2} TB/s, bf16 mma.sync {:.0} TFLOP/s", timing.copy_tb_per_s, timing.mma_tflop_per_s);
    for name in SHAPES {
        for row in operations::rows(device, &mut clock, name)? {
            row.print(&timing);
            timing.rows.push(row);
        }
    }
    Ok(timing)
}

impl Row {
    /// A row of times.
    pub fn new(operation: &'static str, shape: String, sorted: &[f64], bytes: u64, flops: u64) -> Self {
        let range_us = [sorted[0], sorted[sorted.len() - 1]];
        Self { operation, shape, median_us: median(sorted), range_us, bytes, flops }
    }

    /// One line: times, rates, and the larger of their shares in what the machine can do.
    fn print(&self, ceilings: &Timing) {
        let (tb, tflop) = (self.bytes as f64 / self.median_us / 1e6, self.flops as f64 / self.median_us / 1e6);
        let share = (tb / ceilings.copy_tb_per_s).max(tflop / ceilings.mma_tflop_per_s);
        println!(
            "{:14} {:44} {:9.1} us  {tb:6.2} TB/s  {tflop:7.1} TFLOP/s  {:5.1} % of its ceiling",
            self.operation,
            self.shape,
            self.median_us,
            100.0 * share
        );
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
