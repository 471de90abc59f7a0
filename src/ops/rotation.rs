//! Cosines, sines and frequency indices in device memory.

use std::sync::Arc;

use super::check;
use crate::device::{Buffer, Device, View};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::{FrequencyIndex, RopeTables};

/// What rotates a layer's rope heads, in device memory.
#[derive(Clone, Debug)]
pub struct Rotation<'a> {
    cos: View<'a, f32>,
    sin: View<'a, f32>,
    frequencies: usize,
    index: View<'a, u32>,
}

/// A [`Rotation`] as kernels take it; zeros: no rotation.
#[derive(Default)]
pub(super) struct RotationParams {
    pub cos: u64,
    pub sin: u64,
    pub index: u64,
    pub positions: u32,
    pub frequencies: u32,
}

impl<'a> Rotation<'a> {
    /// Tables `[positions, frequencies]` and an index `[Gr, R/2]` into their columns that the host does not see, so
    /// that it cannot check it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tables differ in length or do not divide into rows, [`Error::OtherDevice`] if the views
    /// are on different devices.
    ///
    /// # Safety
    /// Whenever a kernel runs on them, every element of `index` must be less than `frequencies`.
    pub unsafe fn from_device(
        cos: View<'a, f32>,
        sin: View<'a, f32>,
        frequencies: usize,
        index: View<'a, u32>,
    ) -> Result<Self> {
        cos.device().check_same("sines", sin.device())?;
        cos.device().check_same("frequency index", index.device())?;
        if cos.len() != sin.len() || frequencies == 0 || !cos.len().is_multiple_of(frequencies) {
            return Err(Error::Shape {
                what: "rope tables",
                expected: format!("two tables of [positions, frequencies {frequencies}]"),
                got: format!("{} cosines and {} sines", cos.len(), sin.len()),
            });
        }
        Ok(Self { cos, sin, frequencies, index })
    }

    /// What kernels are told of it, if it is on the device and of the geometry's size.
    pub(super) fn params(&self, device: &Device, geometry: &Geometry) -> Result<RotationParams> {
        let dims = [("rope heads", geometry.rope_heads), ("pairs", geometry.rope_dim / 2)];
        check::view("frequency index", device, &self.index, &dims)?;
        Ok(RotationParams {
            cos: self.cos.address(),
            sin: self.sin.address(),
            index: self.index.address(),
            positions: check::count("positions of the rope tables", self.cos.len() / self.frequencies)?,
            frequencies: check::count("frequencies of the rope tables", self.frequencies)?,
        })
    }
}

/// Checked tables and a checked index in device memory of their own.
#[derive(Clone, Debug)]
pub struct RotationBuffers {
    tables: Arc<[Buffer<f32>; 2]>,
    frequencies: usize,
    index: Arc<Buffer<u32>>,
}

impl RotationBuffers {
    /// Copies tables and index to the device.
    ///
    /// # Errors
    /// [`Error::Index`] if the tables lack a frequency, [`Error::NotFinite`] if a number in them is not finite;
    /// [`Error::Driver`].
    pub fn upload(device: &Device, tables: &RopeTables, index: &FrequencyIndex) -> Result<Self> {
        tables.check_finite(0..tables.positions())?;
        let frequencies = tables.frequencies();
        let index = upload_index(device, frequencies, index)?;
        let tables = [device.upload(tables.cos())?, device.upload(tables.sin())?];
        Ok(Self { tables: Arc::new(tables), frequencies, index: Arc::new(index) })
    }

    /// These tables with another layer's index.
    ///
    /// # Errors
    /// As [`RotationBuffers::upload`].
    pub fn with_index(&self, index: &FrequencyIndex) -> Result<Self> {
        let device = self.tables[0].view().device().clone();
        Ok(Self { index: Arc::new(upload_index(&device, self.frequencies, index)?), ..self.clone() })
    }

    /// The rotation.
    #[must_use]
    pub fn rotation(&self) -> Rotation<'_> {
        let [cos, sin] = &*self.tables;
        Rotation { cos: cos.view(), sin: sin.view(), frequencies: self.frequencies, index: self.index.view() }
    }
}

fn upload_index(device: &Device, frequencies: usize, index: &FrequencyIndex) -> Result<Buffer<u32>> {
    index.check_within(frequencies)?;
    device.upload(index.as_slice())
}
