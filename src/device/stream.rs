//! Queues of work.

use super::{Device, Graph, cuda};
use crate::error::Result;

/// A queue of work: what is launched on a stream runs in order. CPU and simulator run everything at once, in order too.
#[derive(Debug)]
pub struct Stream {
    device: Device,
    raw: cuda::RawStream,
    is_ours: bool,
}

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Self> {
        let (raw, is_ours) = match device.backend().cuda() {
            Some(cuda) => (cuda.new_stream()?, true),
            None => (cuda::RawStream::null(), false),
        };
        Ok(Self { device: device.clone(), raw, is_ours })
    }

    /// A stream of another library: `raw` is its `CUstream`, 0 the driver's default stream. It stays theirs.
    ///
    /// # Safety
    /// It must be a stream of the device's context and outlive this one.
    #[must_use]
    pub unsafe fn borrow(device: &Device, raw: usize) -> Self {
        Self { device: device.clone(), raw: cuda::RawStream::from_raw(raw), is_ours: false }
    }

    /// The device it belongs to.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver), which may be that of an earlier kernel.
    pub fn synchronize(&self) -> Result<()> {
        self.device.backend().cuda().map_or(Ok(()), |cuda| cuda.synchronize_stream(self.raw))
    }

    /// Records what `work` launches on this stream as a graph, instead of running it. Other threads' allocations and
    /// copies on the device wait until it is done: the driver would refuse them, and spoil the capture.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Driver`](crate::Error::Driver) if it did something that cannot be captured;
    /// [`Error::Unsupported`](crate::Error::Unsupported) on CPU and simulator, which have no graphs;
    /// [`Error::Config`](crate::Error::Config) inside of another capture.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        Graph::capture(self, work)
    }

    pub(super) fn raw(&self) -> cuda::RawStream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_ours
            && let Some(cuda) = self.device.backend().cuda()
        {
            cuda.destroy_stream(self.raw);
        }
    }
}
