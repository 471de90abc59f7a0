//! What a device can do at most: the ceilings that kernels are held against.

use super::{Device, Kernel, LaunchConfig, Stream, View, ViewMut};
use crate::cpu::Level;
use crate::error::{Error, Result, check_len};
use crate::sys;

/// FLOPs of a warp in one round of `ceiling_wgmma`: 32 products of its quarter of m64n64k16.
const WGMMA_FLOPS_PER_WARP: u64 = 32 * sys::CEILING_MMA_FLOPS_PER_WARP as u64;

/// FLOPs of a warp in one round of `ceiling_int8`, as many as of `ceiling_wgmma`.
const INT8_FLOPS_PER_WARP: u64 = WGMMA_FLOPS_PER_WARP;

/// The kernels that only move bytes and only multiply. Timed, they give the bandwidth and the arithmetic rate that
/// another kernel on the same device can reach at most.
#[derive(Clone, Debug)]
pub struct Ceiling {
    copy: Kernel,
    read: Kernel,
    mma: Kernel,
    /// Of devices that have Hopper's products.
    wgmma: Option<Kernel>,
    /// Of CPUs that have products of 8-bit integers.
    int8: Option<Kernel>,
}

impl Ceiling {
    /// Loads the kernels.
    ///
    /// # Errors
    /// As [`Device::kernel`].
    pub fn new(device: &Device) -> Result<Self> {
        let load = |name| device.kernel("ceiling", name, 0);
        let wgmma = match device.kernel("ceiling_sm90", "ceiling_wgmma", 0) {
            Err(Error::NoKernelImage { .. }) => None,
            Err(Error::Unsupported { .. }) if device.is_cpu() => None,
            loaded => Some(loaded?),
        };
        let has_int8 = device.cpu_level().is_some_and(Level::has_int8);
        let int8 = has_int8.then(|| load("ceiling_int8")).transpose()?;
        Ok(Self { copy: load("ceiling_copy")?, read: load("ceiling_read")?, mma: load("ceiling_mma")?, wgmma, int8 })
    }

    /// Copies `from` to `to`: moves twice their bytes. A remainder of less than 16 bytes stays.
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ in length, [`Error::Alignment`] unless both begin on 16 bytes; as
    /// [`Kernel::launch`].
    pub fn copy(&self, stream: &Stream, from: &View<u64>, to: &mut ViewMut<u64>) -> Result<()> {
        check_len("copy", to.view().len(), &[("elements", from.len())])?;
        for (what, view) in [("from", from), ("to", &to.view())] {
            self.check_units(what, view)?;
        }
        let units = from.len() as u64 / 2;
        let params = sys::CeilingCopyParams { from: from.address(), to: to.view().address(), units };
        // SAFETY: both views have that many units, aligned to 16 bytes.
        unsafe { self.copy.launch(stream, &self.moving(), &params) }
    }

    /// Reads `from`, and writes [`Ceiling::read_elements`] numbers to `out`, whose exclusive or is that of all that was
    /// read. A remainder of less than 16 bytes is not read.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another length, [`Error::Alignment`] unless `from` begins on 16 bytes; as
    /// [`Kernel::launch`].
    pub fn read(&self, stream: &Stream, from: &View<u64>, out: &mut ViewMut<u64>) -> Result<()> {
        check_len("out", out.view().len(), &[("elements", self.read_elements())])?;
        self.check_units("from", from)?;
        self.read.device().check_same("out", out.view().device())?;
        let units = from.len() as u64 / 2;
        let params = sys::CeilingCopyParams { from: from.address(), to: out.view().address(), units };
        // SAFETY: `from` has that many units, aligned to 16 bytes, and `out` an element for every warp.
        unsafe { self.read.launch(stream, &self.moving(), &params) }
    }

    /// How many numbers [`Ceiling::read`] writes.
    #[must_use]
    pub fn read_elements(&self) -> usize {
        let LaunchConfig { grid, block, .. } = self.moving();
        (grid[0] * block[0] / 32) as usize
    }

    /// Enough blocks for every multiprocessor to be full.
    fn moving(&self) -> LaunchConfig {
        let blocks = (8 * self.copy.device().limits().multiprocessors) as u32;
        LaunchConfig::new([blocks, 1, 1], [sys::CEILING_THREADS, 1, 1])
    }

    fn check_units(&self, what: &'static str, view: &View<u64>) -> Result<()> {
        self.copy.device().check_same(what, view.device())?;
        if view.address().is_multiple_of(16) {
            return Ok(());
        }
        Err(Error::Alignment { what, expected: "a multiple of 16 bytes".into(), got: view.address() })
    }

    /// Multiplies for `rounds` rounds on every multiprocessor by `mma.sync`, on the CPU in f32, and returns how many FLOPs
    /// that is. `out` holds [`Ceiling::mma_elements`] numbers, each of which becomes `512 * rounds`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another length; as [`Kernel::launch`].
    pub fn mma(&self, stream: &Stream, rounds: u32, out: &mut ViewMut<f32>) -> Result<u64> {
        self.multiply(&self.mma, stream, rounds, out)?;
        Ok(self.warps() * u64::from(rounds) * u64::from(sys::CEILING_MMA_FLOPS_PER_WARP))
    }

    /// The same by Hopper's `wgmma`: each number becomes `16384 * rounds`. None, and nothing done, on devices without.
    ///
    /// # Errors
    /// As [`Ceiling::mma`].
    pub fn wgmma(&self, stream: &Stream, rounds: u32, out: &mut ViewMut<f32>) -> Result<Option<u64>> {
        let Some(kernel) = &self.wgmma else { return Ok(None) };
        self.multiply(kernel, stream, rounds, out)?;
        Ok(Some(self.warps() * u64::from(rounds) * WGMMA_FLOPS_PER_WARP))
    }

    /// The same of 8-bit integers, on CPUs whose [level](super::CpuLevel) has products of them: each number becomes
    /// `16384 * rounds`. None, and nothing done, on other devices.
    ///
    /// # Errors
    /// As [`Ceiling::mma`].
    pub fn int8(&self, stream: &Stream, rounds: u32, out: &mut ViewMut<f32>) -> Result<Option<u64>> {
        let Some(kernel) = &self.int8 else { return Ok(None) };
        self.multiply(kernel, stream, rounds, out)?;
        Ok(Some(self.warps() * u64::from(rounds) * INT8_FLOPS_PER_WARP))
    }

    fn multiply(&self, kernel: &Kernel, stream: &Stream, rounds: u32, out: &mut ViewMut<f32>) -> Result<()> {
        check_len("out", out.view().len(), &[("elements", self.mma_elements())])?;
        kernel.device().check_same("out", out.view().device())?;
        let params = sys::CeilingMmaParams { out: out.view().address(), rounds, reserved: 0 };
        let config = LaunchConfig::new([self.mma_blocks(), 1, 1], [sys::CEILING_THREADS, 1, 1]);
        // SAFETY: `out` has an element for every thread.
        unsafe { kernel.launch(stream, &config, &params) }
    }

    fn warps(&self) -> u64 {
        u64::from(self.mma_blocks() * sys::CEILING_THREADS / 32)
    }

    /// How many numbers [`Ceiling::mma`] and [`Ceiling::wgmma`] write.
    #[must_use]
    pub fn mma_elements(&self) -> usize {
        (self.mma_blocks() * sys::CEILING_THREADS) as usize
    }

    /// Two blocks, 16 warps, for each multiprocessor.
    fn mma_blocks(&self) -> u32 {
        (2 * self.mma.device().limits().multiprocessors) as u32
    }
}
