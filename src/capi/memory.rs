//! The caller's memory, as views and tensors of the safe tier.

use half::bf16;

use super::data::{LaArray, LaTensor};
use super::status::{Failure, Outcome};
use crate::device::{Device, Element, Shape, Tensor, TensorMut, View, ViewMut};
use crate::error::Error;

// Whoever calls from C owns the memory and promises to keep it. The empty slices below stand for that owner.
impl LaArray {
    /// # Safety
    /// The memory belongs to the device, and holds so many elements for as long as kernels that are told of it run.
    pub(super) unsafe fn view<T: Element>(self, device: &Device, what: &'static str) -> Outcome<View<'static, T>> {
        self.check::<T>(what)?;
        // SAFETY: promised by the caller.
        Ok(unsafe { View::borrow(device, self.address, self.elements, &[(); 0]) })
    }

    /// # Safety
    /// As [`LaArray::view`]; moreover nothing else uses the memory meanwhile.
    pub(super) unsafe fn view_mut<T: Element>(
        self,
        device: &Device,
        what: &'static str,
    ) -> Outcome<ViewMut<'static, T>> {
        self.check::<T>(what)?;
        // SAFETY: promised by the caller.
        Ok(unsafe { ViewMut::borrow::<[(); 0]>(device, self.address, self.elements, &mut []) })
    }

    /// [`LaArray::view`] of an array that may be left out.
    ///
    /// # Safety
    /// As [`LaArray::view`].
    pub(super) unsafe fn optional<T: Element>(
        self,
        device: &Device,
        what: &'static str,
    ) -> Outcome<Option<View<'static, T>>> {
        // SAFETY: promised by the caller.
        self.is_given().then(|| unsafe { self.view(device, what) }).transpose()
    }

    /// Whether an optional array is not left out.
    pub(super) fn is_given(self) -> bool {
        self.address != 0 || self.elements != 0
    }

    fn check<T: Element>(self, what: &'static str) -> Outcome<()> {
        if self.address == 0 && self.elements > 0 {
            return Err(Failure::Null(what));
        }
        let size = size_of::<T>() as u64;
        if self.address.is_multiple_of(size) {
            return Ok(());
        }
        Err(Error::Alignment { what, expected: format!("a multiple of {size} bytes"), got: self.address }.into())
    }
}

impl LaTensor {
    /// # Safety
    /// As [`LaArray::view`].
    pub(super) unsafe fn read(&self, device: &Device, what: &'static str) -> Outcome<Tensor<'static, bf16>> {
        // SAFETY: promised by the caller.
        let memory = unsafe { self.memory.view(device, what) }?;
        Ok(Tensor::new(memory, self.shape())?)
    }

    /// # Safety
    /// As [`LaArray::view_mut`].
    pub(super) unsafe fn write(&self, device: &Device, what: &'static str) -> Outcome<TensorMut<'static, bf16>> {
        // SAFETY: promised by the caller.
        let memory = unsafe { self.memory.view_mut(device, what) }?;
        Ok(TensorMut::new(memory, self.shape())?)
    }

    fn shape(&self) -> Shape {
        Shape { sizes: self.sizes, strides: self.strides }
    }
}
