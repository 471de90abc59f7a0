//! Device memory: owned, and borrowed from whoever owns it.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use half::bf16;

use super::{Backend, Device};
use crate::error::{Error, Result, check_len};

mod sealed {
    pub trait Sealed: bytemuck::Pod {}
}

/// A type that device memory can hold: a number, every bit pattern of which is valid.
pub trait Element: Copy + Default + Send + Sync + 'static + sealed::Sealed {
    /// Its name in CUDA's terms, for messages.
    const NAME: &'static str;
}

macro_rules! element {
    ($($ty:ty, $name:literal;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const NAME: &'static str = $name;
        }
    )*};
}

element! { u8, "u8"; i32, "i32"; u32, "u32"; i64, "i64"; u64, "u64"; f32, "f32"; bf16, "bf16"; }

/// So many zeros in this computer's memory, which are there at no cost until they are written.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is not enough of it, where a vector of the standard library would end the process.
pub(super) fn host_zeros<T: Element>(len: usize) -> Result<Vec<T>> {
    bytemuck::try_zeroed_vec(len).map_err(|()| Error::OutOfMemory {
        what: elements::<T>(len),
        why: "more than this computer's memory holds".into(),
    })
}

fn elements<T: Element>(len: usize) -> String {
    format!("{len} elements of {}", T::NAME)
}

/// Device memory of its own, freed when dropped. It begins on a multiple of 256 bytes.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    device: Device,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn allocate(device: &Device, len: usize) -> Result<Self> {
        Self::from_backend(device, len, Backend::allocate)
    }

    pub(super) fn zeros(device: &Device, len: usize) -> Result<Self> {
        Self::from_backend(device, len, Backend::allocate_zeros)
    }

    fn from_backend(
        device: &Device,
        len: usize,
        allocate: impl FnOnce(&Backend, usize) -> Result<u64>,
    ) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| Error::OutOfMemory {
            what: elements::<T>(len),
            why: "more bytes than there are addresses".into(),
        })?;
        // Empty allocations are refused by drivers, and two buffers should not share an address.
        let address = allocate(device.backend(), bytes.max(1))?;
        Ok(Self { device: device.clone(), address, len, element: PhantomData })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole buffer, to read.
    #[must_use]
    pub fn view(&self) -> View<'_, T> {
        View { device: self.device.clone(), address: self.address, len: self.len, owner: PhantomData }
    }

    /// The whole buffer, to write.
    #[must_use]
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut(self.view())
    }

    /// Copies `values` to the device, after all work given to it before. Waits for the copy.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more or fewer values than elements; [`Error::Driver`].
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        check_len("buffer", values.len(), &[("elements", self.len)])?;
        self.device.backend().write(self.address, bytemuck::cast_slice(values))
    }

    /// Copies the elements to the host, after all work given to the device before. Waits for it.
    ///
    /// # Errors
    /// As [`View::to_vec`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.view().to_vec()
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.device.backend().free(self.address);
    }
}

/// Device memory to read, owned elsewhere.
#[derive(Clone, Debug)]
pub struct View<'a, T: Element> {
    device: Device,
    address: u64,
    len: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Element> View<'a, T> {
    /// Borrows `len` elements at `address` from `owner`, any value whose lifetime keeps the memory alive: another
    /// framework's tensor, or `&()` for memory that is never freed.
    ///
    /// # Safety
    /// The memory must belong to `device`, stay allocated while the view lives, and not be written by work that is not
    /// ordered behind the launches that read it.
    pub unsafe fn borrow<O: ?Sized>(device: &Device, address: u64, len: usize, owner: &'a O) -> Self {
        let _ = owner;
        Self { device: device.clone(), address, len, owner: PhantomData }
    }

    /// A slice of this computer's memory, in place.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] unless the device is the CPU.
    pub fn of_slice(device: &Device, slice: &'a [T]) -> Result<Self> {
        let address = slice.as_ptr().expose_provenance() as u64;
        Self { device: device.clone(), address, len: slice.len(), owner: PhantomData }.on_host()
    }

    fn on_host(self) -> Result<Self> {
        if self.device.is_cpu() {
            return Ok(self);
        }
        Err(Error::OtherDevice {
            what: "slice".into(),
            why: format!("is in the CPU's memory, not on {:?}", self.device),
        })
    }

    /// The device that the memory is on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where it begins, as the driver counts.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`Error::Index`] if the range ends behind the memory, or before it begins.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Self> {
        let (start, len) = bounds(range, self.len)?;
        Ok(Self { address: self.address + (start * size_of::<T>()) as u64, len, ..self.clone() })
    }

    /// The same bytes as elements of another type.
    ///
    /// # Errors
    /// [`Error::Alignment`] if they do not begin where such an element may; [`Error::Shape`] if they are no whole number
    /// of them.
    pub fn cast<U: Element>(self) -> Result<View<'a, U>> {
        let (bytes, size) = (self.len * size_of::<T>(), size_of::<U>());
        let expected = || format!("a multiple of {size} bytes, for elements of {}", U::NAME);
        if !self.address.is_multiple_of(size as u64) {
            return Err(Error::Alignment { what: "view", expected: expected(), got: self.address });
        }
        if !bytes.is_multiple_of(size) {
            return Err(Error::Shape { what: "view", expected: expected(), got: format!("{bytes} bytes") });
        }
        Ok(View { device: self.device, address: self.address, len: bytes / size, owner: PhantomData })
    }

    /// Copies the elements to the host, after all work given to the device before. Waits for it.
    ///
    /// # Errors
    /// [`Error::Driver`], which may be that of an earlier kernel; [`Error::OutOfMemory`] if the host has not enough.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut values = host_zeros(self.len)?;
        self.device.backend().read(self.address, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

/// Device memory to write, owned elsewhere. Nothing else may borrow it meanwhile.
#[derive(Debug)]
pub struct ViewMut<'a, T: Element>(View<'a, T>);

impl<'a, T: Element> ViewMut<'a, T> {
    /// As [`View::borrow`], to write.
    ///
    /// # Safety
    /// As [`View::borrow`]; moreover no other view of the memory may be used while this one lives.
    pub unsafe fn borrow<O: ?Sized>(device: &Device, address: u64, len: usize, owner: &'a mut O) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { View::borrow(device, address, len, owner) })
    }

    /// A slice of this computer's memory, in place.
    ///
    /// # Errors
    /// As [`View::of_slice`].
    pub fn of_slice(device: &Device, slice: &'a mut [T]) -> Result<Self> {
        let (address, len) = (slice.as_mut_ptr().expose_provenance() as u64, slice.len());
        View { device: device.clone(), address, len, owner: PhantomData }.on_host().map(Self)
    }

    /// The same memory, to read.
    #[must_use]
    pub fn view(&self) -> View<'_, T> {
        self.0.clone()
    }

    /// The same memory, for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut(self.0.clone())
    }

    /// A part of it.
    ///
    /// # Errors
    /// As [`View::slice`].
    pub fn slice(self, range: impl RangeBounds<usize>) -> Result<Self> {
        self.0.slice(range).map(Self)
    }

    /// The first `mid` elements and the others, which can be written at the same time.
    ///
    /// # Errors
    /// [`Error::Index`] if there are fewer.
    pub fn split_at(self, mid: usize) -> Result<(Self, Self)> {
        Ok((Self(self.0.slice(..mid)?), Self(self.0.slice(mid..)?)))
    }

    /// The same bytes as elements of another type.
    ///
    /// # Errors
    /// As [`View::cast`].
    pub fn cast<U: Element>(self) -> Result<ViewMut<'a, U>> {
        self.0.cast().map(ViewMut)
    }

    /// Copies `values` to the device, after all work given to it before. Waits for the copy.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more or fewer values than elements; [`Error::Driver`].
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        check_len("view", values.len(), &[("elements", self.0.len)])?;
        self.0.device.backend().write(self.0.address, bytemuck::cast_slice(values))
    }
}

/// Start and length of a range of `len` elements.
fn bounds(range: impl RangeBounds<usize>, len: usize) -> Result<(usize, usize)> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    if start <= end && end <= len {
        Ok((start, end - start))
    } else {
        Err(Error::Index {
            what: format!("range {start}..{end}: its end"),
            got: i64::try_from(end).unwrap_or(i64::MAX),
            bound: format!("{start}..={len} elements"),
        })
    }
}
