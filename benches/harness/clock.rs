//! Times on a GPU, and on the CPU.

use std::time::Instant;

use anyhow::Result;
use latent_attention::device::{Device, Event, Graph, Stream};
use serde::{Deserialize, Serialize};

/// More than twice the largest L2 cache (126 MB): so many bytes are read between two uses of the same input.
const ROTATED_BYTES: u64 = 256 << 20;

/// Most copies of an operation's inputs, and most launches in a graph. What moves less than 256 KiB per launch thus
/// finds its inputs in the L2 cache; there they are in a model too, where another kernel has just written them.
const MOST_COPIES: usize = 1024;

/// Least duration of a graph, in microseconds: the pause before the next, of 1 to 2, is no part of what is measured,
/// and the host is done with starting the next before.
const GRAPH_US: f64 = 400.0;

/// Duration of a measurement, in microseconds, unless the least number of repetitions takes longer.
const MEASUREMENT_US: f64 = 30_000.0;

/// Fewest and most repetitions of a graph.
const REPETITIONS: (usize, usize) = (7, 25);

/// Duration of a measurement on the CPU, in microseconds, and fewest and most repetitions: other programs disturb it.
const CPU_MEASUREMENT_US: f64 = 300_000.0;
const CPU_REPETITIONS: (usize, usize) = (5, 100);

/// A clock for launches on one device.
pub struct Clock {
    stream: Stream,
}

/// Microseconds per launch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    pub median_us: f64,
    /// A tenth of the repetitions were faster.
    pub p10_us: f64,
    /// A tenth were slower.
    pub p90_us: f64,
    /// Repetitions of the graph.
    pub repetitions: usize,
    /// Launches in the graph.
    pub launches: usize,
    /// Copies of the inputs that these took in turn.
    pub copies: usize,
}

impl Clock {
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { stream: device.stream()? })
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// How many copies of its inputs a launch that moves so many bytes needs, so that it does not find them in the L2
    /// cache.
    pub fn copies(bytes: u64) -> usize {
        usize::try_from(ROTATED_BYTES.div_ceil(bytes.max(1))).unwrap_or(MOST_COPIES).clamp(1, MOST_COPIES)
    }

    /// Times what `launch` does with each of the `copies` copies of its inputs in turn.
    pub fn time(
        &self,
        copies: usize,
        mut launch: impl FnMut(&Stream, usize) -> latent_attention::Result<()>,
    ) -> Result<Times> {
        // Outside of a graph first, where an error is the launch's own.
        launch(&self.stream, 0)?;
        self.stream.synchronize()?;
        if self.stream.device().is_cpu() {
            return self.time_on_cpu(copies, launch);
        }
        let once = self.capture(copies, copies, &mut launch)?;
        // SAFETY: `launch` borrows all that its launches use, and is still alive.
        let pilot = unsafe { self.replay(&once, 3) }?.into_iter().fold(f64::INFINITY, f64::min).max(1.0);
        let rounds = ((GRAPH_US / pilot).ceil() as usize).clamp(1, (MOST_COPIES / copies).max(1));
        let launches = rounds * copies;
        let graph = if rounds > 1 { self.capture(launches, copies, &mut launch)? } else { once };
        let repetitions = ((MEASUREMENT_US / (pilot * rounds as f64)) as usize).clamp(REPETITIONS.0, REPETITIONS.1);
        // The first ones warm up: the graph's upload, and clocks that went down while the host prepared the inputs.
        let warm_up = repetitions.div_ceil(4);
        // SAFETY: as above.
        let times = unsafe { self.replay(&graph, warm_up + repetitions) }?.split_off(warm_up);
        Ok(Times::of(times.into_iter().map(|time| time / launches as f64).collect(), launches, copies))
    }

    /// Launches return when they are done.
    fn time_on_cpu(
        &self,
        copies: usize,
        mut launch: impl FnMut(&Stream, usize) -> latent_attention::Result<()>,
    ) -> Result<Times> {
        let mut times = Vec::new();
        let mut total = 0.0;
        while times.len() < CPU_REPETITIONS.0 || (total < CPU_MEASUREMENT_US && times.len() < CPU_REPETITIONS.1) {
            let start = Instant::now();
            launch(&self.stream, (times.len() + 1) % copies)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
            total += times[times.len() - 1];
        }
        Ok(Times::of(times, 1, copies))
    }

    fn capture(
        &self,
        launches: usize,
        copies: usize,
        launch: &mut impl FnMut(&Stream, usize) -> latent_attention::Result<()>,
    ) -> Result<Graph> {
        Ok(self.stream.capture(|| (0..launches).try_for_each(|i| launch(&self.stream, i % copies)))?)
    }

    /// Microseconds of each of `count` replays, given to the GPU at once so that it never waits for the host.
    ///
    /// # Safety
    /// As [`Graph::launch`].
    unsafe fn replay(&self, graph: &Graph, count: usize) -> Result<Vec<f64>> {
        let events = (0..=count).map(|_| Event::new(self.stream.device())).collect::<Result<Vec<_>, _>>()?;
        events[0].record(&self.stream)?;
        for event in &events[1..] {
            // SAFETY: promised by the caller.
            unsafe { graph.launch(&self.stream) }?;
            event.record(&self.stream)?;
        }
        self.stream.synchronize()?;
        let times = events.windows(2).map(|pair| Ok(1000.0 * f64::from(pair[1].milliseconds_since(&pair[0])?)));
        times.collect()
    }
}

impl Times {
    /// Of the microseconds per launch in each repetition, at least one.
    pub fn of(mut times: Vec<f64>, launches: usize, copies: usize) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[(share * (times.len() - 1) as f64).round() as usize];
        Self { median_us: at(0.5), p10_us: at(0.1), p90_us: at(0.9), repetitions: times.len(), launches, copies }
    }
}
