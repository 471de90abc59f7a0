//! The paged cache in device memory.

use super::check;
use crate::cache::{CacheLayout, PagedCache, RowFormat};
use crate::device::{Buffer, Device, View, ViewMut};
use crate::error::{Error, Result};
use crate::sys;

/// One layer's paged cache in device memory of its own. New pages are zero.
#[derive(Debug)]
pub struct DeviceCache {
    layout: CacheLayout,
    bytes: Buffer<u8>,
}

impl DeviceCache {
    /// A cache of `pages` pages. On the simulator they take memory where they are written.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, layout: CacheLayout, pages: usize) -> Result<Self> {
        Ok(Self { layout, bytes: device.zeros(pages.saturating_mul(layout.page_bytes()))? })
    }

    /// A copy of a cache in host memory.
    ///
    /// # Errors
    /// [`Error::Driver`] if there is not enough memory.
    pub fn upload(device: &Device, cache: &PagedCache) -> Result<Self> {
        Ok(Self { layout: *cache.layout(), bytes: device.upload(cache.bytes())? })
    }

    /// A copy in host memory, after all work given to the device before.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn download(&self) -> Result<PagedCache> {
        PagedCache::from_bytes(self.layout, self.bytes.to_vec()?)
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.bytes.len() / self.layout.page_bytes()
    }

    /// The cache, to read.
    #[must_use]
    pub fn view(&self) -> CacheView<'_> {
        CacheView { layout: self.layout, bytes: self.bytes.view() }
    }

    /// The cache, to write.
    #[must_use]
    pub fn view_mut(&mut self) -> CacheViewMut<'_> {
        CacheViewMut { layout: self.layout, bytes: self.bytes.view_mut() }
    }
}

/// A cache to read, in memory that may be another framework's.
#[derive(Clone, Debug)]
pub struct CacheView<'a> {
    layout: CacheLayout,
    bytes: View<'a, u8>,
}

impl<'a> CacheView<'a> {
    /// A cache over memory.
    ///
    /// # Errors
    /// [`Error::Shape`] unless it is a whole number of pages, [`Error::Alignment`] unless it begins on 16 bytes.
    pub fn new(layout: CacheLayout, bytes: View<'a, u8>) -> Result<Self> {
        check_pages(&layout, &bytes)?;
        Ok(Self { layout, bytes })
    }

    /// How the bytes lie.
    #[must_use]
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.bytes.len() / self.layout.page_bytes()
    }

    /// What kernels are told of it, if it has the expected layout and is on the device.
    pub(super) fn params(&self, device: &Device, layout: &CacheLayout) -> Result<sys::CacheParams> {
        params(device, layout, &self.layout, &self.bytes)
    }
}

/// A cache to write, in memory that may be another framework's.
#[derive(Debug)]
pub struct CacheViewMut<'a> {
    layout: CacheLayout,
    bytes: ViewMut<'a, u8>,
}

impl<'a> CacheViewMut<'a> {
    /// A cache over memory.
    ///
    /// # Errors
    /// As [`CacheView::new`].
    pub fn new(layout: CacheLayout, bytes: ViewMut<'a, u8>) -> Result<Self> {
        check_pages(&layout, &bytes.view())?;
        Ok(Self { layout, bytes })
    }

    /// This cache, to read.
    #[must_use]
    pub fn view(&self) -> CacheView<'_> {
        CacheView { layout: self.layout, bytes: self.bytes.view() }
    }

    /// This cache, for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> CacheViewMut<'_> {
        CacheViewMut { layout: self.layout, bytes: self.bytes.reborrow() }
    }
}

fn check_pages(layout: &CacheLayout, bytes: &View<u8>) -> Result<()> {
    layout.check_bytes(bytes.len())?;
    check::alignment("cache", bytes, 16)
}

fn params(device: &Device, expected: &CacheLayout, layout: &CacheLayout, bytes: &View<u8>) -> Result<sys::CacheParams> {
    device.check_same("cache", bytes.device())?;
    if expected != layout {
        return Err(Error::Config {
            what: "cache".into(),
            why: format!("the operation was made for {expected:?}, not for {layout:?}"),
        });
    }
    let kind = |row| match row {
        RowFormat::Bf16 => (sys::ROW_BF16, 0),
        RowFormat::Affine { bits: 4, group } => (sys::ROW_INT4, group),
        RowFormat::Affine { group, .. } => (sys::ROW_INT8, group),
    };
    let ((latent_kind, latent_group), (rope_kind, rope_group)) = (kind(layout.latent_row()), kind(layout.rope_row()));
    let count = |n| check::count("cache", n);
    Ok(sys::CacheParams {
        pages: bytes.address(),
        page_bytes: layout.page_bytes() as u64,
        page_count: count(bytes.len() / layout.page_bytes())?,
        page_size: count(layout.page_size())?,
        latent_row_bytes: count(layout.latent_tile().row_bytes)?,
        rope_offset: count(layout.rope_tile().offset)?,
        rope_row_bytes: count(layout.rope_tile().row_bytes)?,
        affine_offset: count(layout.affine_tile().offset)?,
        affine_row_bytes: count(layout.affine_tile().row_bytes)?,
        latent_groups: count(layout.latent_groups())?,
        latent_kind,
        latent_group: count(latent_group)?,
        rope_kind,
        rope_group: count(rope_group)?,
        key_factors: count(layout.key_factors())?,
        reserved: 0,
    })
}

/// The sizes of a layer as kernels take them.
pub(super) fn geometry_params(geometry: &crate::Geometry) -> Result<sys::GeometryParams> {
    let count = |n| check::count("geometry", n);
    Ok(sys::GeometryParams {
        query_heads: count(geometry.query_heads)?,
        kv_heads: count(geometry.kv_heads)?,
        latent_rank: count(geometry.latent_rank)?,
        rope_heads: count(geometry.rope_heads)?,
        rope_dim: count(geometry.rope_dim)?,
        nope_dim: count(geometry.nope_dim)?,
        value_dim: count(geometry.value_dim)?,
        reserved: 0,
    })
}
