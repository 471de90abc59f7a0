//! What a device can do at most: the ceilings that kernels are held against.

use super::{Device, Kernel, LaunchConfig, Stream, View, ViewMut};
use crate::error::{Error, Result, check_len};
use crate::sys;

/// The two kernels that only move bytes and only multiply. Timed, they give the bandwidth and the arithmetic rate that
/// another kernel on the same device can reach at most.
#[derive(Clone, Debug)]
pub struct Ceiling {
    copy: Kernel,
    mma: Kernel,
}

impl Ceiling {
    /// Loads the kernels.
    ///
    /// # Errors
    /// As [`Device::kernel`].
    pub fn new(device: &Device) -> Result<Self> {
        let load = |name| device.kernel("ceiling", name, 0);
        Ok(Self { copy: load("ceiling_copy")?, mma: load("ceiling_mma")? })
    }

    /// Copies `from` to `to`: moves twice their bytes. A remainder of less than 16 bytes stays.
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ in length, [`Error::Alignment`] unless both begin on 16 bytes; as
    /// [`Kernel::launch`].
    pub fn copy(&self, stream: &Stream, from: &View<u64>, to: &mut ViewMut<u64>) -> Result<()> {
        check_len("copy", to.view().len(), &[("elements", from.len())])?;
        for (what, view) in [("from", from), ("to", &to.view())] {
            self.copy.device().check_same(what, view.device())?;
            if !view.address().is_multiple_of(16) {
                return Err(Error::Alignment { what, expected: "a multiple of 16 bytes".into(), got: view.address() });
            }
        }
        let units = from.len() as u64 / 2;
        let params = sys::CeilingCopyParams { from: from.address(), to: to.view().address(), units };
        // Enough blocks for every multiprocessor to be full.
        let blocks = (8 * self.copy.device().limits().multiprocessors) as u32;
        let config = LaunchConfig::new([blocks, 1, 1], [sys::CEILING_THREADS, 1, 1]);
        // SAFETY: both views have that many units, aligned to 16 bytes.
        unsafe { self.copy.launch(stream, &config, &params) }
    }

    /// Multiplies for `rounds` rounds on every multiprocessor and returns how many FLOPs that is. `out` holds
    /// [`Ceiling::mma_elements`] numbers, each of which becomes `512 * rounds`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another length; as [`Kernel::launch`].
    pub fn mma(&self, stream: &Stream, rounds: u32, out: &mut ViewMut<f32>) -> Result<u64> {
        check_len("out", out.view().len(), &[("elements", self.mma_elements())])?;
        self.mma.device().check_same("out", out.view().device())?;
        let params = sys::CeilingMmaParams { out: out.view().address(), rounds, reserved: 0 };
        let config = LaunchConfig::new([self.mma_blocks(), 1, 1], [sys::CEILING_THREADS, 1, 1]);
        // SAFETY: `out` has an element for every thread.
        unsafe { self.mma.launch(stream, &config, &params) }?;
        let warps = u64::from(self.mma_blocks() * sys::CEILING_THREADS / 32);
        Ok(warps * u64::from(rounds) * u64::from(sys::CEILING_MMA_FLOPS_PER_WARP))
    }

    /// How many numbers [`Ceiling::mma`] writes.
    #[must_use]
    pub fn mma_elements(&self) -> usize {
        (self.mma_blocks() * sys::CEILING_THREADS) as usize
    }

    /// Two blocks, 16 warps, for each multiprocessor.
    fn mma_blocks(&self) -> u32 {
        (2 * self.mma.device().limits().multiprocessors) as u32
    }
}
