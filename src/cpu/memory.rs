//! Numbers at addresses.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// `len` numbers at an address.
///
/// # Safety
/// They are there, and nothing writes them while the slice lives.
pub(super) unsafe fn numbers<'a, T: Copy>(address: u64, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address as usize), len) }
}

/// `len` numbers at an address, to write.
///
/// # Safety
/// They are there, and nothing else reads or writes them while the slice lives.
pub(super) unsafe fn numbers_mut<'a, T: Copy>(address: u64, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address as usize), len) }
}

/// `len` numbers at an address; none at 0.
///
/// # Safety
/// As [`numbers`].
pub(super) unsafe fn optional_numbers<'a, T: Copy>(address: u64, len: usize) -> Option<&'a [T]> {
    // SAFETY: promised by the caller.
    (address != 0).then(|| unsafe { numbers(address, len) })
}

/// Adds to the counters at an address, to which other tasks may add meanwhile; to none at 0.
///
/// # Safety
/// There are as many, and nothing else reads or writes them meanwhile.
pub(super) unsafe fn add_to_counters(address: u64, counts: &[u64]) {
    if address == 0 {
        return;
    }
    let counters = std::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    for (i, &count) in counts.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { AtomicU64::from_ptr(counters.add(i)) }.fetch_add(count, Ordering::Relaxed);
    }
}

/// A tensor `[outer, middle, width]`, whose innermost dimension is dense.
#[derive(Clone, Copy)]
pub(super) struct Rows<T> {
    address: u64,
    strides: [usize; 2],
    width: usize,
    element: PhantomData<T>,
}

impl<T: Copy> Rows<T> {
    /// Strides are in elements.
    pub fn new(address: u64, [outer, middle]: [u32; 2], width: u32) -> Self {
        Self { address, strides: [outer as usize, middle as usize], width: width as usize, element: PhantomData }
    }

    fn address_of(&self, outer: usize, middle: usize, first: usize) -> u64 {
        let elements = outer * self.strides[0] + middle * self.strides[1] + first;
        self.address + (elements * size_of::<T>()) as u64
    }

    /// One row.
    ///
    /// # Safety
    /// As [`numbers`].
    pub unsafe fn row<'a>(&self, outer: usize, middle: usize) -> &'a [T] {
        // SAFETY: promised by the caller.
        unsafe { numbers(self.address_of(outer, middle, 0), self.width) }
    }

    /// A part of a row, to write.
    ///
    /// # Safety
    /// As [`numbers_mut`].
    pub unsafe fn part_mut<'a>(&self, outer: usize, middle: usize, columns: Range<usize>) -> &'a mut [T] {
        debug_assert!(columns.end <= self.width);
        // SAFETY: promised by the caller.
        unsafe { numbers_mut(self.address_of(outer, middle, columns.start), columns.len()) }
    }

    /// One row, to write.
    ///
    /// # Safety
    /// As [`numbers_mut`].
    pub unsafe fn row_mut<'a>(&self, outer: usize, middle: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { self.part_mut(outer, middle, 0..self.width) }
    }
}
