//! CUDA graphs and events: replaying a captured step, and timing it.

use super::{Device, Stream, cuda};
use crate::error::{Error, Result};

/// Captured launches that can be run again at the cost of one call.
///
/// It holds addresses, not borrows: what its kernels read and write must outlive it, hence [`Graph::launch`] is unsafe.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    raw: cuda::RawGraph,
}

impl Graph {
    pub(super) fn capture(stream: &Stream, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let cuda = cuda_of(stream.device(), "graph capture")?;
        let raw = cuda.capture(stream.raw(), work)?;
        Ok(Self { device: stream.device().clone(), raw })
    }

    /// Runs it on a stream.
    ///
    /// # Errors
    /// [`Error::Driver`]; [`Error::OtherDevice`] for a stream of another device.
    ///
    /// # Safety
    /// All memory that the captured launches used must still be there and belong to no one else meanwhile.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<()> {
        self.device.check_same("stream", stream.device())?;
        cuda_of(&self.device, "graph")?.launch_graph(self.raw, stream.raw())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(cuda) = self.device.backend().cuda() {
            cuda.destroy_graph(self.raw);
        }
    }
}

/// A moment on a stream, for timing.
#[derive(Debug)]
pub struct Event {
    device: Device,
    raw: cuda::RawEvent,
}

impl Event {
    /// An event that was not recorded yet.
    ///
    /// # Errors
    /// [`Error::Driver`]; [`Error::Unsupported`] on the simulator, where time means nothing, and on the CPU, which is done
    /// when a launch returns.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { device: device.clone(), raw: cuda_of(device, "timing")?.new_event()? })
    }

    /// Marks the moment at which everything given to the stream so far is done.
    ///
    /// # Errors
    /// [`Error::Driver`]; [`Error::OtherDevice`] for a stream of another device.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.device.check_same("stream", stream.device())?;
        cuda_of(&self.device, "timing")?.record(self.raw, stream.raw())
    }

    /// Waits for this event and returns the milliseconds since `earlier`.
    ///
    /// # Errors
    /// [`Error::Driver`], also if either was not recorded.
    pub fn milliseconds_since(&self, earlier: &Self) -> Result<f32> {
        self.device.check_same("event", &earlier.device)?;
        cuda_of(&self.device, "timing")?.elapsed(earlier.raw, self.raw)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some(cuda) = self.device.backend().cuda() {
            cuda.destroy_event(self.raw);
        }
    }
}

fn cuda_of<'a>(device: &'a Device, what: &str) -> Result<&'a cuda::Cuda> {
    let none = || Error::Unsupported { what: what.into(), why: "needs a GPU".into() };
    device.backend().cuda().ok_or_else(none)
}
