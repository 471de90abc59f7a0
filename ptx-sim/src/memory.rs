//! Global memory: a set of allocations that blocks on all cores share.
//!
//! Bytes live in atomic words with relaxed ordering, because blocks run at the same time and a kernel may race.
//! Allocations lie at least 64 KiB apart, so that running off one of them is always noticed.
//!
//! Memory is lazy: this computer provides a page of an allocation, and of what the checker knows of it, when the page
//! is first written. So a simulated device may have more memory than the computer, and its size is a limit of its own. One
//! allocation is refused if the operating system refuses the process as much address space, as Linux by default does for
//! about what the computer has.

mod guards;
mod traffic;

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use guards::{Guards, pieces};
use traffic::{Presence, Traffic};

use crate::ast::Space;
use crate::fault::{Fault, SpaceName};
use crate::limits::Limits;

pub(crate) use guards::WHOLE;

/// Address of the first allocation.
const FIRST: u64 = 0x7000_0000_0000;

/// Least distance between allocations, in bytes.
const GAP: u64 = 1 << 16;

/// Alignment of allocations, as `cudaMalloc`'s.
const ALIGNMENT: u64 = 256;

/// Why there is not enough memory within the limits.
const COMPUTER: &str = "more than this computer has";

/// Global memory of a [`Machine`](crate::Machine).
#[derive(Debug)]
pub struct Memory {
    /// Tells this memory from others.
    number: u64,
    /// In ascending order of address.
    allocations: Vec<Allocation>,
    next: u64,
    /// Most bytes of all allocations together.
    limit: u64,
    /// Make strong accesses wider than a word whole.
    guards: Guards,
    /// Who changes it, and who waits for that.
    traffic: Traffic,
}

#[derive(Debug)]
struct Allocation {
    base: u64,
    len: usize,
    words: Box<[AtomicU32]>,
    /// Whether a byte counts as written as long as its bit in `changed` is 0.
    written: bool,
    /// One bit per byte: whether it is no longer as `written` says.
    changed: Box<[AtomicU32]>,
}

/// A place found in memory: an allocation and a byte offset in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    allocation: &'a Allocation,
    offset: usize,
}

/// An allocation as words of 4 bytes, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    allocation: &'a Allocation,
}

/// Room for so many bits or bytes, `per_word` of which share a word: zeros, or `None` if this computer has not enough
/// memory.
fn words(len: usize, per_word: usize) -> Option<Box<[AtomicU32]>> {
    // Pages that the operating system promises to be zero cost nothing until they are written.
    bytemuck::try_zeroed_slice_box(len.div_ceil(per_word)).ok()
}

/// Makes a vector of this computer's memory longer, if it is shorter than `len`.
///
/// # Errors
/// [`Fault::OutOfMemory`], where growing the vector itself would end the process.
pub(crate) fn grow<T: Clone>(vector: &mut Vec<T>, len: usize, value: T) -> Result<(), Fault> {
    let more = len.saturating_sub(vector.len());
    vector
        .try_reserve_exact(more)
        .map_err(|_| Fault::OutOfMemory { bytes: more.saturating_mul(size_of::<T>()), why: COMPUTER.into() })?;
    vector.resize(vector.len() + more, value);
    Ok(())
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Limits::default().memory_bytes)
    }
}

impl Memory {
    /// Memory of so many bytes.
    pub(crate) fn new(limit: u64) -> Self {
        static MEMORIES: AtomicU64 = AtomicU64::new(0);
        let number = MEMORIES.fetch_add(1, Relaxed);
        Self {
            number,
            allocations: Vec::new(),
            next: FIRST,
            limit,
            guards: Guards::default(),
            traffic: Traffic::default(),
        }
    }

    /// Tells this memory from others of the process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reserves `len` bytes, unwritten, and returns their address.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`] beyond [`Limits::memory_bytes`] or what this computer can reserve.
    pub fn allocate(&mut self, len: usize) -> Result<u64, Fault> {
        self.add(len, false)
    }

    /// Reserves `len` bytes that are zero and count as written, and returns their address. It costs no more time or
    /// memory than [`Memory::allocate`].
    ///
    /// # Errors
    /// As [`Memory::allocate`].
    pub fn allocate_zeros(&mut self, len: usize) -> Result<u64, Fault> {
        self.add(len, true)
    }

    fn add(&mut self, len: usize, written: bool) -> Result<u64, Fault> {
        let refuse = |why: String| Fault::OutOfMemory { bytes: len, why };
        let used: u64 = self.allocations.iter().map(|a| a.len as u64).sum();
        if len as u64 > self.limit.saturating_sub(used) {
            return Err(refuse(format!("{used} of {} bytes are in use", self.limit)));
        }
        let base = self.next;
        let end = base.checked_add(len as u64).and_then(|end| end.checked_add(GAP));
        let next = end.and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
        let next = next.ok_or_else(|| refuse("all addresses are used up".into()))?;
        let (Some(words), Some(changed)) = (words(len, 4), words(len, 32)) else {
            return Err(refuse(COMPUTER.into()));
        };
        self.next = next;
        self.allocations.push(Allocation { base, len, words, written, changed });
        Ok(base)
    }

    /// Gives an allocation back. Returns whether `address` was the beginning of one.
    pub fn free(&mut self, address: u64) -> bool {
        let found = self.allocations.binary_search_by_key(&address, |a| a.base);
        found.map(|index| self.allocations.remove(index)).is_ok()
    }

    /// Copies `bytes` to `address`.
    ///
    /// # Errors
    /// [`Fault::OutOfBounds`].
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.find("write", address, bytes.len())?.write(bytes);
        self.change();
        Ok(())
    }

    /// Fills `bytes` from `address`, whether written before or not.
    ///
    /// # Errors
    /// [`Fault::OutOfBounds`].
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.find("read", address, bytes.len())?.read(bytes);
        Ok(())
    }

    /// Marks an allocation's bytes as never written, as fresh memory is.
    ///
    /// # Errors
    /// [`Fault::OutOfBounds`].
    pub fn forget(&self, address: u64, len: usize) -> Result<(), Fault> {
        self.find("write", address, len)?.mark(len, false);
        Ok(())
    }

    /// Notes that somebody has changed it. Returns whether somebody waits for that.
    pub(crate) fn change(&self) -> bool {
        self.traffic.change()
    }

    /// How often it was changed. Whatever a launch has written counts at the end of a round of its warps at the latest.
    pub(crate) fn changes(&self) -> u64 {
        self.traffic.changes()
    }

    /// Somebody waits for a change until the result is dropped.
    pub(crate) fn sleeper(&self) -> Presence<'_> {
        self.traffic.sleeper()
    }

    /// A launch runs on this memory until the result is dropped.
    pub(crate) fn launch(&self) -> Presence<'_> {
        self.traffic.launch()
    }

    /// Launches that run on this memory.
    pub(crate) fn launches(&self) -> u64 {
        self.traffic.launches()
    }

    /// Keeps strong accesses and atomics of more than a word to the 16 bytes around `address` apart from each other,
    /// those of all blocks. Nobody may hold two of these guards at a time.
    pub(crate) fn hold(&self, address: u64) -> MutexGuard<'_, ()> {
        self.guards.hold(address)
    }

    /// Changes the elements at `address`, of `element` bytes each, by those of `bytes`; every element atomically.
    ///
    /// # Errors
    /// [`Fault::OutOfBounds`].
    pub(crate) fn merge(
        &self,
        address: u64,
        bytes: &[u8],
        element: usize,
        apply: &dyn Fn(&mut [u8], &[u8]),
    ) -> Result<(), Fault> {
        let place = self.find("asynchronous reduction", address, bytes.len())?;
        if element > size_of::<AtomicU32>() {
            for piece in pieces(address, bytes.len()) {
                let _guard = self.hold(address + piece.start as u64);
                let place = Place { offset: place.offset + piece.start, ..place };
                let mut old = [0; WHOLE];
                let old = &mut old[..piece.len()];
                place.read(old);
                apply(old, &bytes[piece]);
                place.write(old);
            }
        } else {
            place.merge_words(bytes, apply);
        }
        Ok(())
    }

    /// Number of allocations.
    pub(crate) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Gives back all allocations but the `count` oldest ones.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.allocations.truncate(count);
    }

    /// The allocation that `address` lies in, for many accesses to it.
    pub(crate) fn around(&self, address: u64) -> Option<Words<'_>> {
        let index = self.allocations.partition_point(|a| a.base <= address).checked_sub(1)?;
        Some(Words { allocation: &self.allocations[index] })
    }

    pub(crate) fn find(&self, action: &'static str, address: u64, size: usize) -> Result<Place<'_>, Fault> {
        let index = self.allocations.partition_point(|a| a.base <= address);
        let before = index.checked_sub(1).map(|i| &self.allocations[i]);
        if let Some(allocation) = before {
            let offset = (address - allocation.base) as usize;
            if offset.checked_add(size).is_some_and(|end| end <= allocation.len) {
                return Ok(Place { allocation, offset });
            }
        }
        let why = match before {
            Some(a) => {
                let Allocation { base, len, .. } = a;
                match (address - base).checked_sub(*len as u64) {
                    None => format!("runs over the end of the allocation of {len} bytes at {base:#x}"),
                    Some(past) => format!("{past} bytes past the end of the allocation of {len} bytes at {base:#x}"),
                }
            }
            None => "not in any allocation".into(),
        };
        Err(Fault::OutOfBounds { action, space: SpaceName(Space::Global), address, size, why })
    }
}

impl Words<'_> {
    /// The offset of `size` bytes at an address, if they lie in the allocation.
    #[inline(always)]
    pub(crate) fn offset(self, address: u64, size: usize) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.allocation.base)?).ok()?;
        (offset.checked_add(size)? <= self.allocation.len).then_some(offset)
    }

    /// The word that holds the byte at an offset.
    #[inline(always)]
    pub(crate) fn load(self, offset: usize) -> u32 {
        self.allocation.words[offset / 4].load(Relaxed)
    }

    /// Writes the word at an offset.
    #[inline(always)]
    pub(crate) fn store(self, offset: usize, word: u32) {
        self.allocation.words[offset / 4].store(word, Relaxed);
    }

    /// Whether every one of `size` bytes at an offset was written at some time. The size is a power of two up to 32, and
    /// the offset a multiple of it.
    #[inline(always)]
    pub(crate) fn is_written(self, offset: usize, size: usize) -> bool {
        let Allocation { written, changed, .. } = self.allocation;
        let mask = Self::mask(offset, size);
        changed[offset / 32].load(Relaxed) & mask == if *written { 0 } else { mask }
    }

    /// Notes that such bytes are written.
    #[inline(always)]
    pub(crate) fn mark_written(self, offset: usize, size: usize) {
        let bits = &self.allocation.changed[offset / 32];
        let mask = Self::mask(offset, size);
        // Reading first, as `Place::mark` does.
        match bits.load(Relaxed) & mask {
            0 if self.allocation.written => {}
            known if known == mask && !self.allocation.written => {}
            _ if self.allocation.written => drop(bits.fetch_and(!mask, Relaxed)),
            _ => drop(bits.fetch_or(mask, Relaxed)),
        }
    }

    #[inline(always)]
    fn mask(offset: usize, size: usize) -> u32 {
        u32::MAX >> (32 - size) << (offset % 32)
    }
}

impl Place<'_> {
    /// Fills `bytes` from here, so that those with a guard of `memory` together are of one time.
    pub(crate) fn read_whole(self, memory: &Memory, bytes: &mut [u8]) {
        let address = self.allocation.base + self.offset as u64;
        for piece in pieces(address, bytes.len()) {
            let _guard = memory.hold(address + piece.start as u64);
            Place { offset: self.offset + piece.start, ..self }.read(&mut bytes[piece]);
        }
    }

    /// Whether the bytes here are these.
    pub(crate) fn holds(self, bytes: &[u8]) -> bool {
        let words = &self.allocation.words;
        let byte = |at: usize| words[at / 4].load(Relaxed).to_le_bytes()[at % 4];
        bytes.iter().enumerate().all(|(i, known)| byte(self.offset + i) == *known)
    }

    /// Writes `bytes` here, so that nobody who holds a guard of `memory` sees a part of those that have it together.
    pub(crate) fn write_whole(self, memory: &Memory, bytes: &[u8]) {
        let address = self.allocation.base + self.offset as u64;
        for piece in pieces(address, bytes.len()) {
            let _guard = memory.hold(address + piece.start as u64);
            Place { offset: self.offset + piece.start, ..self }.write(&bytes[piece]);
        }
    }

    pub(crate) fn read(self, bytes: &mut [u8]) {
        let words = &self.allocation.words;
        if self.offset.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&words[self.offset / 4 + i].load(Relaxed).to_le_bytes());
            }
            return;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = self.offset + i;
            *byte = words[at / 4].load(Relaxed).to_le_bytes()[at % 4];
        }
    }

    pub(crate) fn write(self, bytes: &[u8]) {
        let words = &self.allocation.words;
        if self.offset.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
            for (i, chunk) in bytes.chunks_exact(4).enumerate() {
                let word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                words[self.offset / 4 + i].store(word, Relaxed);
            }
        } else {
            for (i, &byte) in bytes.iter().enumerate() {
                let (at, shift) = (self.offset + i, 8 * ((self.offset + i) % 4));
                // The word's other bytes may belong to other blocks, so they must not be written back stale.
                let _ = words[at / 4]
                    .fetch_update(Relaxed, Relaxed, |word| Some(word & !(0xFF << shift) | u32::from(byte) << shift));
            }
        }
        self.mark(bytes.len(), true);
    }

    /// Replaces the `size` bytes here, 1, 2 or 4 of them and aligned, by `f` of them, atomically; returns the old ones.
    pub(crate) fn update_word(self, size: usize, f: impl FnMut(u32) -> u32) -> u32 {
        let mut f = f;
        self.mark(size, true);
        let (shift, mask) = (8 * (self.offset % 4), u32::MAX >> (32 - 8 * size));
        let mut change = |word: u32| word & !(mask << shift) | (f(word >> shift & mask) & mask) << shift;
        let word = &self.allocation.words[self.offset / 4];
        word.fetch_update(Relaxed, Relaxed, |old| Some(change(old))).unwrap_or_else(|old| old) >> shift & mask
    }

    /// Changes bytes word by word, of which the first and the last may belong to others in part.
    fn merge_words(self, bytes: &[u8], apply: &dyn Fn(&mut [u8], &[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = self.offset + bytes.len() - rest.len();
            let (piece, behind) = rest.split_at(rest.len().min(4 - at % 4));
            rest = behind;
            let change = |word: u32| {
                let mut old = word.to_le_bytes();
                apply(&mut old[at % 4..][..piece.len()], piece);
                Some(u32::from_le_bytes(old))
            };
            // The closure always has a new value, so there is no error to look at.
            let _ = self.allocation.words[at / 4].fetch_update(Relaxed, Relaxed, change);
        }
        self.mark(bytes.len(), true);
    }

    /// Whether every one of `len` bytes was written at some time.
    pub(crate) fn is_written(self, len: usize) -> bool {
        let Allocation { written, changed, .. } = self.allocation;
        self.bit_words(len).all(|(word, mask)| changed[word].load(Relaxed) & mask == if *written { 0 } else { mask })
    }

    fn mark(self, len: usize, written: bool) {
        let change = written != self.allocation.written;
        for (word, mask) in self.bit_words(len) {
            let bits = &self.allocation.changed[word];
            let wanted = if change { mask } else { 0 };
            // Reading first keeps the cache line shared in the common case of a second write, and a page that says
            // nothing new unwritten.
            match bits.load(Relaxed) & mask {
                known if known == wanted => {}
                _ if change => drop(bits.fetch_or(mask, Relaxed)),
                _ => drop(bits.fetch_and(!mask, Relaxed)),
            }
        }
    }

    /// The words of the `changed` bits of `len` bytes, with a mask for each.
    fn bit_words(self, len: usize) -> impl Iterator<Item = (usize, u32)> {
        let (start, end) = (self.offset, self.offset + len);
        (start / 32..end.div_ceil(32)).map(move |word| {
            let from = start.max(word * 32) - word * 32;
            let to = end.min(word * 32 + 32) - word * 32;
            let ones = |n: usize| if n == 32 { u32::MAX } else { (1u32 << n) - 1 };
            (word, ones(to) & !ones(from))
        })
    }
}
