//! Shared memory of a block, with the checker's knowledge of every byte.
//!
//! An access races with an earlier one of another actor, one of them a write, unless the later actor [knows](Clocks) of
//! the earlier access. Between lanes of one warp, `bar.warp.sync` and the warp-wide `.sync` instructions order accesses.
//!
//! Accesses through the asynchronous proxy, of copies in flight and of `wgmma`, take time: [`SharedMemory::begin_copy`]
//! to [`SharedMemory::finish_copy`] for bytes that are being written, [`SharedMemory::begin_reading`] to
//! [`SharedMemory::finish_reading`] for bytes that are being read. Nobody may write either, nor read the first.

use crate::ast::Space;
use crate::clocks::{Access, Clocks};
use crate::fault::{Fault, SpaceName};
use crate::memory::grow;

/// One remembered access to a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// The warp's own clock, 0 if there was no access.
    clock: u32,
    /// The warp's count of warp-wide synchronisations.
    epoch: u32,
    thread: u32,
    /// Another lane of the warp that has read the byte since its last synchronisation, plus 1.
    other: u32,
    line: u32,
    strong: bool,
    asynchronous: bool,
}

impl Mark {
    fn new(clocks: &Clocks, access: Access) -> Self {
        Self {
            clock: clocks.now(access.actor()),
            epoch: clocks.epoch(access.actor()),
            thread: access.thread,
            other: 0,
            line: access.line,
            strong: access.strong,
            asynchronous: access.asynchronous,
        }
    }

    fn actor(&self) -> usize {
        self.thread as usize / 32
    }
}

/// What `Shadow::copy_line` has besides the line if the bytes are those of an `mbarrier` object.
const OBJECT: u32 = 1 << 31;

/// Bytes that share a count of reads in flight: the asynchronous proxy reads in units of at least so many.
const GRANULE: usize = 16;

/// Reads in flight of a granule.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    count: u32,
    /// Where the last of them was issued.
    line: u32,
}

/// What is known of a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    write: Mark,
    /// The last read; earlier reads of other warps since the last write are in `readers`.
    read: Mark,
    /// Index + 1 of a row of `SharedMemory::readers`.
    readers: u32,
    /// Line of an asynchronous copy in flight, or with [`OBJECT`] that of an object's initialisation; 0 if neither.
    copy_line: u32,
    /// Asynchronous reductions in flight: what is in flight is one of them, or else a copy.
    reductions: u32,
    written: bool,
}

impl Shadow {
    /// Whether something asynchronous that is in flight forbids an access: reductions are atomic as strong accesses are.
    fn in_flight(&self, access: Access) -> bool {
        self.copy_line != 0 && !(self.reductions > 0 && access.strong)
    }

    /// What is known of it once it has been written; reductions in flight stay there.
    fn written(&self, mark: Mark) -> Self {
        let (reductions, copy_line) = (self.reductions, if self.reductions > 0 { self.copy_line } else { 0 });
        Self { write: mark, written: true, copy_line, reductions, ..Self::default() }
    }
}

/// Shared memory of one block.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory {
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
    /// Reads of several warps of a byte: one mark per warp.
    readers: Vec<Vec<Mark>>,
    /// Rows of `readers`, plus 1, that no byte uses.
    spare_readers: Vec<u32>,
    /// Reads in flight of each granule; empty before the first.
    reading: Vec<Reading>,
    /// Whether the checker is on.
    checked: bool,
}

impl SharedMemory {
    pub fn new(len: usize, checked: bool) -> Result<Self, Fault> {
        let (mut bytes, mut shadow) = (Vec::new(), Vec::new());
        grow(&mut bytes, len, 0)?;
        grow(&mut shadow, if checked { len } else { 0 }, Shadow::default())?;
        Ok(Self { bytes, shadow, readers: Vec::new(), spare_readers: Vec::new(), reading: Vec::new(), checked })
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
        let start = self.locate("read", address, out.len())?;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        if !self.checked {
            return Ok(None);
        }
        let found = self.check_read(clocks, access, start, out.len());
        let mark = Mark::new(clocks, access);
        (start..start + out.len()).for_each(|at| self.remember_read(clocks, mark, at));
        Ok(found)
    }

    fn check_read(&self, clocks: &Clocks, access: Access, start: usize, len: usize) -> Option<Fault> {
        (start..start + len).find_map(|at| {
            let shadow = &self.shadow[at];
            if shadow.in_flight(access) {
                Some(self.in_flight("read", at))
            } else if !shadow.written {
                Some(Fault::Uninitialised { space: SpaceName(Space::Shared), address: start as u64, size: len })
            } else if races(clocks, access, &shadow.write) {
                Some(race(clocks, access, "read", at, "write", shadow.write))
            } else {
                unfenced(clocks, access, "read", at, &shadow.write)
            }
        })
    }

    /// Writes. The result is what the checker has to say.
    pub fn write(
        &mut self,
        clocks: &Clocks,
        access: Access,
        address: u64,
        bytes: &[u8],
    ) -> Result<Option<Fault>, Fault> {
        let start = self.locate("write", address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(self.check_write(clocks, access, start, bytes.len()))
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
        let found = self.check_write(clocks, access, start, len);
        if self.checked {
            self.shadow[start..start + len].iter_mut().for_each(|shadow| shadow.copy_line = access.line);
        }
        Ok(found)
    }

    /// The bytes of an asynchronous copy arrive: from here on they count as written by `access`'s thread.
    pub fn finish_copy(&mut self, clocks: &Clocks, access: Access, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let start = self.locate("asynchronous copy", address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        if self.checked {
            let mark = Mark::new(clocks, access);
            for at in start..start + bytes.len() {
                self.forget_readers(at);
                self.shadow[at] = Shadow { write: mark, written: true, ..Shadow::default() };
            }
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
        let read = self.check_read(clocks, access, start, len);
        let written = self.check_write(clocks, access, start, len);
        for shadow in &mut self.shadow[start..start + len] {
            shadow.reductions += 1;
            shadow.copy_line = access.line;
        }
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
        let start = self.locate("asynchronous reduction", address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        if self.checked {
            let mark = Mark::new(clocks, access);
            for at in start..start + bytes.len() {
                self.forget_readers(at);
                self.shadow[at].reductions = self.shadow[at].reductions.saturating_sub(1);
                self.shadow[at] = self.shadow[at].written(mark);
            }
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
        let found = self.check_write(clocks, access, start, len);
        if self.checked {
            self.shadow[start..start + len].iter_mut().for_each(|shadow| shadow.copy_line = access.line | OBJECT);
        }
        Ok(found)
    }

    /// The object is gone, and nothing is known of what it leaves in its bytes.
    pub fn end_object(&mut self, clocks: &Clocks, access: Access, address: u64, len: usize) -> Result<(), Fault> {
        let start = self.locate("mbarrier", address, len)?;
        if self.checked {
            let write = Mark::new(clocks, access);
            self.shadow[start..start + len].fill(Shadow { write, ..Shadow::default() });
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
        let start = self.locate("read", address, out.len())?;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
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
        Ok(self.check_read(clocks, access, start, out.len()))
    }

    /// The bytes have been read: from here on they count as read by `access`'s thread.
    pub fn finish_reading(&mut self, clocks: &Clocks, access: Access, address: u64, len: usize) -> Result<(), Fault> {
        let start = self.locate("read", address, len)?;
        if self.checked && !self.reading.is_empty() {
            for reading in &mut self.reading[start / GRANULE..(start + len).div_ceil(GRANULE)] {
                reading.count = reading.count.saturating_sub(1);
            }
            let mark = Mark::new(clocks, access);
            (start..start + len).for_each(|at| self.remember_read(clocks, mark, at));
        }
        Ok(())
    }

    /// Fills `out` without asking the checker.
    pub fn peek(&self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        let start = self.locate("read", address, out.len())?;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        Ok(())
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

    fn check_write(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) -> Option<Fault> {
        if !self.checked {
            return None;
        }
        let mut found = None;
        let mark = Mark::new(clocks, access);
        for at in start..start + len {
            let shadow = &self.shadow[at];
            if shadow.in_flight(access) {
                found = found.or(Some(self.in_flight("write", at)));
            } else if let Some(line) = self.being_read(at) {
                let (action, address) = ("write", at as u64);
                found = found.or(Some(Fault::ReadInFlight { action, address, line }));
            } else if races(clocks, access, &shadow.write) {
                found = found.or(Some(race(clocks, access, "write", at, "write", shadow.write)));
            } else if let Some(reader) = self.racing_reader(clocks, access, shadow) {
                found = found.or(Some(race(clocks, access, "write", at, "read", reader)));
            } else {
                found = found.or(unfenced(clocks, access, "write", at, &shadow.write));
            }
            self.forget_readers(at);
            self.shadow[at] = self.shadow[at].written(mark);
        }
        found
    }

    /// The line of the asynchronous read in flight of a byte.
    fn being_read(&self, at: usize) -> Option<u32> {
        self.reading.get(at / GRANULE).filter(|reading| reading.count > 0).map(|reading| reading.line)
    }

    fn racing_reader(&self, clocks: &Clocks, access: Access, shadow: &Shadow) -> Option<Mark> {
        let several = shadow.readers.checked_sub(1).map(|row| self.readers[row as usize].as_slice());
        let mut readers = several.unwrap_or_default().iter().chain([&shadow.read]);
        readers.find(|reader| races(clocks, access, reader)).copied()
    }

    fn remember_read(&mut self, clocks: &Clocks, mut mark: Mark, at: usize) {
        let last = self.shadow[at].read;
        if last.clock != 0 && last.actor() == mark.actor() && last.epoch == mark.epoch {
            mark.other = if last.thread == mark.thread { last.other } else { last.thread + 1 };
        }
        let other_warp = last.clock != 0 && last.actor() != mark.actor();
        if other_warp && self.shadow[at].readers == 0 {
            self.shadow[at].readers = self.spare_readers.pop().unwrap_or_else(|| {
                self.readers.push(Vec::new());
                self.readers.len() as u32
            });
            self.readers[self.shadow[at].readers as usize - 1].clear();
        }
        if let Some(row) = self.shadow[at].readers.checked_sub(1) {
            let row = &mut self.readers[row as usize];
            if row.len() <= last.actor().max(mark.actor()) {
                row.resize(clocks.actors(), Mark::default());
            }
            row[last.actor()] = last;
            row[mark.actor()] = mark;
        }
        self.shadow[at].read = mark;
    }

    /// Gives a byte's row of readers back, before a write makes them past.
    fn forget_readers(&mut self, at: usize) {
        match self.shadow[at].readers {
            0 => {}
            row => self.spare_readers.push(row),
        }
    }

    fn in_flight(&self, action: &'static str, at: usize) -> Fault {
        let copy_line = self.shadow[at].copy_line;
        if copy_line & OBJECT != 0 {
            let line = copy_line & !OBJECT;
            return Fault::Mbarrier(format!(
                "{action} of bytes of the object at {:#x}, initialised at PTX line {line}",
                at & !7
            ));
        }
        Fault::CopyInFlight { action, space: SpaceName(Space::Shared), address: at as u64, copy_line }
    }
}

/// Whether `access` may happen at the same time as the remembered one.
#[inline]
fn races(clocks: &Clocks, access: Access, earlier: &Mark) -> bool {
    let own = earlier.thread == access.thread && earlier.other == 0;
    if earlier.clock == 0 || own || earlier.strong && access.strong {
        return false;
    }
    if access.actor() == earlier.actor() {
        // The lanes of one instruction act together: stores of several lanes to one place are the kernel's wish.
        earlier.epoch == clocks.epoch(access.actor()) && earlier.line != access.line
    } else {
        !clocks.knows(access.actor(), earlier.actor(), earlier.clock)
    }
}

fn race(
    clocks: &Clocks,
    access: Access,
    action: &'static str,
    at: usize,
    other_action: &'static str,
    earlier: Mark,
) -> Fault {
    let other = if earlier.thread == access.thread { earlier.other - 1 } else { earlier.thread };
    let other = clocks.name(access.actor(), other);
    Fault::Race { action, address: at as u64, other, other_action, other_line: earlier.line }
}

/// What is wrong if `access` goes through the asynchronous proxy and an ordinary write before it has not passed a fence.
fn unfenced(clocks: &Clocks, access: Access, action: &'static str, at: usize, write: &Mark) -> Option<Fault> {
    let ordinary = write.clock != 0 && !write.asynchronous;
    if !access.asynchronous || !ordinary || clocks.passed_fence(access.thread, write.thread, write.clock) {
        return None;
    }
    let other = clocks.name(access.actor(), write.thread);
    Some(Fault::NoProxyFence { action, address: at as u64, other, other_line: write.line })
}
