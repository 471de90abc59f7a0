//! One cache for all rows: filled once for each model and format, and used for every batch and context.

use anyhow::{Result, ensure};
use half::{bf16, f16};
use latent_attention::cache::CacheLayout;
use latent_attention::device::{Buffer, Ceiling, Device, Stream};
use latent_attention::ops::{CacheView, CacheViewMut};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::memory::random_numbers;

/// About as many bytes come from the host; the device repeats them.
const PATTERN_BYTES: usize = 4 << 20;

/// A row needs more memory than there may be: it is left out, and the others go on.
#[derive(Debug)]
pub struct DoesNotFit {
    needed: usize,
    limit: usize,
}

impl std::fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gb = |bytes: usize| bytes as f64 / 1e9;
        write!(f, "its cache takes {:.4} GB, of {:.4} GB (--memory)", gb(self.needed), gb(self.limit))
    }
}

impl std::error::Error for DoesNotFit {}

/// Pages of random tokens.
pub struct CacheMemory {
    device: Device,
    stream: Stream,
    limit: usize,
    bytes: Buffer<u8>,
    /// What the first bytes hold pages of.
    layout: Option<CacheLayout>,
    filled: usize,
    /// Bytes of one copy.
    stride: usize,
}

impl CacheMemory {
    /// An empty one that will take up to `limit` bytes.
    pub fn new(device: &Device, limit: usize) -> Result<Self> {
        let (device, stream, bytes) = (device.clone(), device.stream()?, device.allocate(0)?);
        Ok(Self { device, stream, limit, bytes, layout: None, filled: 0, stride: 0 })
    }

    /// Makes `copies` caches of `pages` pages.
    ///
    /// # Errors
    /// [`DoesNotFit`], or what the device says.
    pub fn arrange(&mut self, layout: &CacheLayout, pages: usize, copies: usize) -> Result<()> {
        self.stride = pages * layout.page_bytes();
        let needed = self.stride * copies;
        if needed > self.limit {
            return Err(DoesNotFit { needed, limit: self.limit }.into());
        }
        if needed > self.bytes.len() {
            // The old memory first. Twice as much, so that growing contexts do not each begin anew.
            let roomy = needed.max(2 * self.bytes.len()).min(self.limit);
            (self.bytes, self.layout, self.filled) = (self.device.allocate(0)?, None, 0);
            self.bytes = self.device.allocate(roomy)?;
        }
        if self.layout != Some(*layout) {
            (self.layout, self.filled) = (Some(*layout), 0);
        }
        self.fill(layout, needed)
    }

    /// Makes the first `needed` bytes pages of this layout.
    fn fill(&mut self, layout: &CacheLayout, needed: usize) -> Result<()> {
        if self.filled == 0 && needed > 0 {
            let pattern = pages(layout, (PATTERN_BYTES / layout.page_bytes()).max(1));
            self.filled = pattern.len().min(needed);
            self.bytes.view_mut().slice(..self.filled)?.write(&pattern[..self.filled])?;
        }
        if self.filled < needed {
            repeat(&self.stream, &mut self.bytes, self.filled, needed)?;
            self.filled = needed;
        }
        Ok(())
    }

    /// One of the copies, to read.
    pub fn view(&self, copy: usize) -> latent_attention::Result<CacheView<'_>> {
        CacheView::new(self.checked_layout()?, self.bytes.view().slice(self.range(copy))?)
    }

    /// One of the copies, to write.
    pub fn view_mut(&mut self, copy: usize) -> latent_attention::Result<CacheViewMut<'_>> {
        let (layout, range) = (self.checked_layout()?, self.range(copy));
        CacheViewMut::new(layout, self.bytes.view_mut().slice(range)?)
    }

    fn checked_layout(&self) -> latent_attention::Result<CacheLayout> {
        self.layout.ok_or_else(|| latent_attention::Error::Config {
            what: "cache".into(),
            why: "no pages were arranged".into(),
        })
    }

    fn range(&self, copy: usize) -> std::ops::Range<usize> {
        copy * self.stride..(copy + 1) * self.stride
    }
}

/// Repeats the first `filled` bytes on the device until there are `needed`: both multiples of 16, as pages are.
///
/// # Errors
/// What the device says, also of other numbers of bytes.
pub fn repeat(stream: &Stream, bytes: &mut Buffer<u8>, mut filled: usize, needed: usize) -> Result<()> {
    ensure!(filled > 0 && filled.is_multiple_of(16) && needed.is_multiple_of(16), "{filled} bytes to {needed}");
    ensure!(needed <= bytes.len(), "{needed} bytes of {}", bytes.len());
    let device = stream.device();
    let ceiling = Ceiling::new(device)?;
    while filled < needed {
        let len = filled.min(needed - filled);
        let (source, target) = bytes.view_mut().split_at(filled)?;
        let (from, mut to) = (source.slice(..len)?.cast()?, target.slice(..len)?.cast()?);
        ceiling.copy(stream, &from.view(), &mut to)?;
        filled += len;
    }
    Ok(stream.synchronize()?)
}

/// Random pages: codes of 4 bits with scales of 1/16 and minima of -1/2, or bf16 numbers in -1..1.
fn pages(layout: &CacheLayout, count: usize) -> Vec<u8> {
    let affine = layout.affine_tile();
    if affine.row_bytes == 0 {
        let numbers: Vec<u8> =
            random_numbers().into_iter().flat_map(|number| bf16::from_f32(number).to_le_bytes()).collect();
        return numbers.into_iter().cycle().take(count * layout.page_bytes()).collect();
    }
    let mut bytes = vec![0; count * layout.page_bytes()];
    ChaCha8Rng::seed_from_u64(1).fill(&mut bytes[..]);
    let [scale, min] = [1.0 / 16.0, -0.5].map(|number| f16::from_f32(number).to_le_bytes());
    for page in bytes.chunks_exact_mut(layout.page_bytes()) {
        for pair in page[affine.offset..].chunks_exact_mut(4) {
            pair[..2].copy_from_slice(&scale);
            pair[2..].copy_from_slice(&min);
        }
    }
    bytes
}
