//! The caller's memory, as views and tensors of the safe tier.

use half::bf16;

use latent_attention::device::{Device, Element, Shape, Tensor, TensorMut, View, ViewMut};
use latent_attention::error::Error;

use crate::data::*;
use crate::status::{Failure, Outcome};

/// What a `dtype` says, with the name that [`Element::NAME`] has for it.
const DTYPES: [(u32, &str); 7] = [
    (LA_DTYPE_U8, u8::NAME),
    (LA_DTYPE_I32, i32::NAME),
    (LA_DTYPE_U32, u32::NAME),
    (LA_DTYPE_I64, i64::NAME),
    (LA_DTYPE_U64, u64::NAME),
    (LA_DTYPE_F32, f32::NAME),
    (LA_DTYPE_BF16, bf16::NAME),
];

// Whoever calls from C owns the memory and promises to keep it. The empty slices below stand for that owner.
impl LaArray {
    /// # Safety
    /// The memory belongs to the device, and holds so many elements for as long as kernels that are told of it run.
    pub(crate) unsafe fn view<T: Element>(self, device: &Device, what: &'static str) -> Outcome<View<'static, T>> {
        self.check::<T>(what)?;
        // SAFETY: promised by the caller.
        Ok(unsafe { View::borrow(device, self.address, self.elements, &[(); 0]) })
    }

    /// # Safety
    /// As [`LaArray::view`]; moreover nothing else uses the memory meanwhile.
    pub(crate) unsafe fn view_mut<T: Element>(
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
    pub(crate) unsafe fn optional<T: Element>(
        self,
        device: &Device,
        what: &'static str,
    ) -> Outcome<Option<View<'static, T>>> {
        // SAFETY: promised by the caller.
        self.is_given().then(|| unsafe { self.view(device, what) }).transpose()
    }

    /// Whether an optional array is not left out. Of no tokens, an array may have neither address nor elements, but it
    /// still has a type.
    pub(crate) fn is_given(self) -> bool {
        self.address != 0 || self.elements != 0 || self.dtype != 0
    }

    fn check<T: Element>(self, what: &'static str) -> Outcome<()> {
        if self.address == 0 && self.elements > 0 {
            return Err(Failure::Null(what));
        }
        let given = DTYPES.iter().find(|(dtype, _)| *dtype == self.dtype).map(|(_, name)| *name);
        if given != Some(T::NAME) {
            let got = match given {
                Some(name) => name.into(),
                None if !self.is_given() => "nothing".into(),
                None => format!("dtype {}, which is no LA_DTYPE", self.dtype),
            };
            return Err(Error::Shape { what, expected: format!("elements of {}", T::NAME), got }.into());
        }
        let size = size_of::<T>() as u64;
        if !self.address.is_multiple_of(size) {
            let expected = format!("a multiple of {size} bytes");
            return Err(Error::Alignment { what, expected, got: self.address }.into());
        }
        let end = (self.elements as u64).checked_mul(size).and_then(|bytes| self.address.checked_add(bytes));
        if end.is_none() {
            let expected = "memory that ends within 64 bits of address".into();
            let got = format!("{} elements of {} at {:#x}", self.elements, T::NAME, self.address);
            return Err(Error::Shape { what, expected, got }.into());
        }
        Ok(())
    }
}

impl LaTensor {
    /// # Safety
    /// As [`LaArray::view`].
    pub(crate) unsafe fn read(&self, device: &Device, what: &'static str) -> Outcome<Tensor<'static, bf16>> {
        // SAFETY: promised by the caller.
        let memory = unsafe { self.memory.view(device, what) }?;
        Ok(Tensor::new(memory, self.shape())?)
    }

    /// # Safety
    /// As [`LaArray::view_mut`].
    pub(crate) unsafe fn write(&self, device: &Device, what: &'static str) -> Outcome<TensorMut<'static, bf16>> {
        // SAFETY: promised by the caller.
        let memory = unsafe { self.memory.view_mut(device, what) }?;
        Ok(TensorMut::new(memory, self.shape())?)
    }

    fn shape(&self) -> Shape {
        Shape { sizes: self.sizes, strides: self.strides }
    }
}
