//! `copy_pages`: whole pages of a cache copied to other pages of it.

use super::cache::CacheViewMut;
use super::check;
use crate::cache::CacheLayout;
use crate::device::{Device, Kernel, LaunchConfig, Stream, View, ViewMut};
use crate::error::{Error, Result};
use crate::sys;

/// What stays the same from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyPagesConfig {
    /// The layout of the layer's cache.
    pub layout: CacheLayout,
}

impl CopyPagesConfig {
    /// Pages of a cache of this layout.
    #[must_use]
    pub fn new(layout: CacheLayout) -> Self {
        Self { layout }
    }
}

/// Copies pages within a layer's cache, as [`reference::copy_pages`](crate::reference::copy_pages) says: what an engine
/// needs where two sequences share a page and one of them is about to append to it (copy on write, for beams and parallel
/// samples).
///
/// Memory-bound: each byte of a copied page is read once and written once.
#[derive(Clone, Debug)]
pub struct CopyPages {
    kernel: Kernel,
    config: CopyPagesConfig,
}

/// The arguments of [`CopyPages::run`]. N counts the copies.
#[derive(Debug)]
pub struct CopyPagesArgs<'a> {
    /// In and out: the cache.
    pub cache: CacheViewMut<'a>,
    /// `[N, 2]`: source and destination, page ids. No page may be the destination of two copies, or of one while it is
    /// another's source: its bytes would be those of either. A copy from or to a page that the cache does not have is
    /// refused: it is counted and writes nothing.
    pub copies: View<'a, i32>,
    /// In and out, `[1]`: adds the number of refused copies; `None`: no counting.
    pub counters: Option<ViewMut<'a, u64>>,
}

impl CopyPages {
    /// Loads the kernel.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for pages of more than a gibibyte; as [`Device::kernel`].
    pub fn new(device: &Device, config: CopyPagesConfig) -> Result<Self> {
        // What the y axis of a grid can hold.
        let most = 65535 * sys::COPY_PAGES_BYTES as usize;
        if config.layout.page_bytes() > most {
            return Err(Error::Unsupported {
                what: format!("copies of pages of {} bytes", config.layout.page_bytes()),
                why: format!("must be at most {most}"),
            });
        }
        Ok(Self { kernel: device.kernel("copy_pages", "copy_pages", 0)?, config })
    }

    /// What it was made for.
    #[must_use]
    pub fn config(&self) -> &CopyPagesConfig {
        &self.config
    }

    /// Copies the pages.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Alignment`], [`Error::OtherDevice`] or [`Error::Config`] names the argument that does
    /// not fit; as [`Kernel::launch`].
    pub fn run(&self, stream: &Stream, args: CopyPagesArgs) -> Result<()> {
        let device = self.kernel.device();
        let cache = args.cache.view().params(device, &self.config.layout)?;
        let copies = args.copies.len() / 2;
        check::view("copies", device, &args.copies, &[("copies", copies), ("source and destination", 2)])?;
        check::alignment("copies", &args.copies, 8)?;
        if let Some(counters) = &args.counters {
            check::view("counters", device, &counters.view(), &[("refused", 1)])?;
        }
        if i32::try_from(copies).is_err() {
            return Err(Error::Shape { what: "copies", expected: "less than 2^31".into(), got: copies.to_string() });
        }
        let params = sys::CopyPagesParams {
            cache,
            copies: args.copies.address(),
            counters: args.counters.as_ref().map_or(0, |counters| counters.view().address()),
            count: check::count("copies", copies)?,
            reserved: 0,
        };
        // SAFETY: the views are as large as the parameters say and on the kernel's device; it looks at every page id.
        unsafe { self.launch(stream, &params) }
    }

    /// Launches the kernel with this parameter block; without copies, nothing.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    ///
    /// # Safety
    /// Every address must point to device memory as `csrc/params.h` says.
    pub unsafe fn launch(&self, stream: &Stream, params: &sys::CopyPagesParams) -> Result<()> {
        let parts = params.cache.page_bytes.div_ceil(u64::from(sys::COPY_PAGES_BYTES));
        let parts = check::count("parts of a page", usize::try_from(parts).unwrap_or(usize::MAX))?;
        if params.count == 0 || parts == 0 {
            return Ok(());
        }
        let config = LaunchConfig::new([params.count, parts, 1], [sys::COPY_PAGES_THREADS, 1, 1]);
        // SAFETY: promised by the caller.
        unsafe { self.kernel.launch(stream, &config, params) }
    }
}
