//! Shared memory of a block, with the checker's knowledge of every byte.
//!
//! An access races with an earlier one of another actor, one of them a write, unless the later actor [knows](Clocks) of
//! the earlier access. Between lanes of one warp, `bar.warp.sync` and the warp-wide `.sync` instructions order accesses.
//!
//! Accesses through the asynchronous proxy, of copies in flight and of `wgmma`, take time: [`SharedMemory::begin_copy`]
//! to [`SharedMemory::finish_copy`] for bytes that are being written, [`SharedMemory::begin_reading`] to
//! [`SharedMemory::finish_reading`] for bytes that are being read. Nobody may write either, nor read the first.

mod shadow;

use shadow::{Behind, Shadows, WORD};

use crate::ast::Space;
use crate::clocks::{Access, Clocks};
use crate::fault::{Fault, SpaceName};
use crate::memory::grow;

/// Bytes that share a count of reads in flight: the asynchronous proxy reads in units of at least so many.
const GRANULE: usize = 16;

/// Reads in flight of a granule.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    count: u32,
    /// Where the last of them was issued.
    line: u32,
}

/// Shared memory of one block.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory {
    bytes: Vec<u8>,
    shadows: Shadows,
    /// Reads in flight of each granule; empty before the first.
    reading: Vec<Reading>,
    /// Whether the checker is on.
    checked: bool,
}

impl SharedMemory {
    /// Becomes the memory of another block: `len` bytes that nothing has written. The room of the one before is used
    /// again.
    pub fn renew(&mut self, len: usize, checked: bool) -> Result<(), Fault> {
        self.bytes.clear();
        grow(&mut self.bytes, len, 0)?;
        self.shadows.renew(if checked { len } else { 0 })?;
        self.reading.clear();
        self.checked = checked;
        Ok(())
    }

    /// Bytes of this computer's memory by which the checker remembers reads of asynchronous operations: one for each
    /// `mbarrier` and byte, where a copy has read it that completes there.
    pub fn engine_bytes(&self) -> usize {
        self.shadows.engine_bytes()
    }

    /// Calls `note` with each engine that the checker remembers an access of, once or more.
    pub fn engines(&self, note: impl FnMut(usize)) {
        self.shadows.engines(note);
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reads. The second result is what the checker has to say.
    pub fn read(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        out: &mut [u8],
    ) -> Result<Option<Fault>, Fault> {
        let start = self.peek(address, out)?;
        if !self.checked {
            return Ok(None);
        }
        Ok(self.shadows.read(clocks, access, start, out.len()))
    }

    /// Writes. The result is what the checker has to say.
    pub fn write(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        bytes: &[u8],
    ) -> Result<Option<Fault>, Fault> {
        let start = self.poke("write", address, bytes)?;
        Ok(self.check_write(clocks, access, start, bytes.len(), Behind::Bytes))
    }

    /// Reads words into `out` from `start` on, where there are so many, aligned. The result is what the checker has to
    /// say.
    #[inline]
    pub fn read_words<'a>(
        &mut self,
        clocks: &Clocks,
        access: Access,
        start: usize,
        out: impl ExactSizeIterator<Item = &'a mut u32>,
    ) -> Option<Fault> {
        let len = WORD * out.len();
        let bytes = self.bytes[start..start + len].as_chunks().0;
        out.zip(bytes).for_each(|(out, bytes)| *out = u32::from_le_bytes(*bytes));
        if self.checked { self.shadows.read(clocks, access, start, len) } else { None }
    }

    /// Writes words from `start` on, where there is room for them, aligned. The result is what the checker has to say.
    #[inline]
    pub fn write_words(
        &mut self,
        clocks: &Clocks,
        access: Access,
        start: usize,
        words: impl ExactSizeIterator<Item = u32>,
    ) -> Option<Fault> {
        let len = WORD * words.len();
        let bytes = self.bytes[start..start + len].as_chunks_mut().0;
        bytes.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        self.check_write(clocks, access, start, len, Behind::Bytes)
    }

    /// Notes that an asynchronous copy will write `len` bytes: nobody may touch them before [`Self::finish_copy`].
    pub fn begin_copy(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        len: usize,
    ) -> Result<Option<Fault>, Fault> {
        let start = self.locate("asynchronous copy", address, len)?;
        Ok(self.check_write(clocks, access, start, len, Behind::Copy))
    }

    /// The bytes of an asynchronous copy arrive: from here on they count as written by `access`'s thread.
    pub fn finish_copy(&mut self, clocks: &Clocks, access: Access, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let start = self.poke("asynchronous copy", address, bytes)?;
        if self.checked {
            self.shadows.arrive(clocks, access, start, bytes.len());
        }
        Ok(())
    }

    /// Notes that an asynchronous reduction will change `len` bytes: nobody may touch them before
    /// [`Self::finish_reduction`] but other reductions and atomics.
    pub fn begin_reduction(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        len: usize,
    ) -> Result<Option<Fault>, Fault> {
        let start = self.locate("asynchronous reduction", address, len)?;
        if !self.checked {
            return Ok(None);
        }
        let read = self.shadows.check_read(clocks, access, start, len);
        let written = self.check_write(clocks, access, start, len, Behind::Reduction);
        Ok(read.or(written))
    }

    /// An asynchronous reduction has been performed: the bytes that it makes count as written by `access`'s thread.
    pub fn finish_reduction(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let start = self.poke("asynchronous reduction", address, bytes)?;
        if self.checked {
            self.shadows.reduce(clocks, access, start, bytes.len());
        }
        Ok(())
    }

    /// An `mbarrier` object lies in these bytes from here on, until [`Self::end_object`]: nobody else may touch them.
    pub fn begin_object(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        len: usize,
    ) -> Result<Option<Fault>, Fault> {
        let start = self.locate("mbarrier", address, len)?;
        Ok(self.check_write(clocks, access, start, len, Behind::Object))
    }

    /// The object is gone, and nothing is known of what it leaves in its bytes.
    pub fn end_object(&mut self, clocks: &Clocks, access: Access, address: u64, len: usize) -> Result<(), Fault> {
        let start = self.locate("mbarrier", address, len)?;
        if self.checked {
            self.shadows.forget(clocks, access, start, len);
        }
        Ok(())
    }

    /// Bytes that something asynchronous reads: nobody may write them before [`Self::finish_reading`]. The first
    /// result is what they are now, the second what the checker has to say.
    pub fn begin_reading(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        out: &mut [u8],
    ) -> Result<Option<Fault>, Fault> {
        let start = self.peek(address, out)?;
        if !self.checked {
            return Ok(None);
        }
        if self.reading.is_empty() {
            grow(&mut self.reading, self.bytes.len().div_ceil(GRANULE), Reading::default())?;
        }
        for reading in &mut self.reading[start / GRANULE..(start + out.len()).div_ceil(GRANULE)] {
            reading.count += 1;
            reading.line = access.line;
        }
        Ok(self.shadows.check_read(clocks, access, start, out.len()))
    }

    /// The bytes have been read: from here on they count as read by `access`'s thread.
    pub fn finish_reading(&mut self, clocks: &Clocks, access: Access, address: u64, len: usize) -> Result<(), Fault> {
        let start = self.locate("read", address, len)?;
        if self.checked && !self.reading.is_empty() {
            for reading in &mut self.reading[start / GRANULE..(start + len).div_ceil(GRANULE)] {
                reading.count = reading.count.saturating_sub(1);
            }
            self.shadows.remember_read(clocks, access, start, len);
        }
        Ok(())
    }

    /// Fills `out` without asking the checker, and returns where that was.
    pub fn peek(&self, address: u64, out: &mut [u8]) -> Result<usize, Fault> {
        let start = self.locate("read", address, out.len())?;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        Ok(start)
    }

    /// Puts bytes in their place without telling the checker, and returns where that was.
    fn poke(&mut self, action: &'static str, address: u64, bytes: &[u8]) -> Result<usize, Fault> {
        let start = self.locate(action, address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(start)
    }

    fn locate(&self, action: &'static str, address: u64, size: usize) -> Result<usize, Fault> {
        let start = usize::try_from(address).unwrap_or(usize::MAX);
        match start.checked_add(size) {
            Some(end) if end <= self.bytes.len() => Ok(start),
            _ => Err(Fault::OutOfBounds {
                action,
                space: SpaceName(Space::Shared),
                address,
                size,
                why: format!("the block has {} bytes of shared memory", self.bytes.len()),
            }),
        }
    }

    fn check_write(
        &mut self,
        clocks: &Clocks,
        access: Access,
        start: usize,
        len: usize,
        behind: Behind,
    ) -> Option<Fault> {
        if !self.checked {
            return None;
        }
        // The line of the asynchronous read in flight of a byte.
        let reading = &self.reading;
        let being_read = |at: usize| reading.get(at / GRANULE).filter(|read| read.count > 0).map(|read| read.line);
        self.shadows.write(clocks, access, start, len, behind, being_read)
    }
}
