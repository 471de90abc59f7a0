//! Shared memory of a block, with the checker's knowledge of every byte.
//!
//! Order between warps is kept as vector clocks (one counter per warp; a barrier joins the clocks of the warps that
//! meet): an access races with an earlier one of another warp unless the earlier one's count is known to the later
//! warp. Between lanes of one warp, `bar.warp.sync` and the warp-wide `.sync` instructions order accesses.

use crate::ast::Space;
use crate::fault::{Fault, SpaceName};
use crate::memory::grow;

/// Who accesses, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Linear index of the thread in its block.
    pub thread: u32,
    /// PTX line.
    pub line: u32,
    /// Atomics, and `.volatile`, `.relaxed`, `.acquire`, `.release` accesses: they do not race with each other.
    pub strong: bool,
}

impl Access {
    fn warp(self) -> usize {
        self.thread as usize / 32
    }
}

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
}

/// What is known of a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    write: Mark,
    /// The last read; earlier reads of other warps since the last write are in `readers`.
    read: Mark,
    /// Index + 1 of a row of `SharedMemory::readers`.
    readers: u32,
    /// Line of an asynchronous copy in flight, 0 if none.
    copy_line: u32,
    written: bool,
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
    /// `clocks[w][v]`: what warp `w` knows of warp `v`.
    clocks: Vec<Vec<u32>>,
    epochs: Vec<u32>,
    /// Whether the checker is on.
    checked: bool,
}

impl SharedMemory {
    pub fn new(len: usize, warps: usize, checked: bool) -> Result<Self, Fault> {
        let (mut bytes, mut shadow) = (Vec::new(), Vec::new());
        grow(&mut bytes, len, 0)?;
        grow(&mut shadow, if checked { len } else { 0 }, Shadow::default())?;
        Ok(Self {
            bytes,
            shadow,
            readers: Vec::new(),
            spare_readers: Vec::new(),
            clocks: (0..warps).map(|w| (0..warps).map(|v| u32::from(v == w)).collect()).collect(),
            epochs: vec![1; warps],
            checked,
        })
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// `warp` arrives at a barrier: what it has done so far, and what it knows of others, becomes part of `clock`.
    pub fn release(&mut self, warp: usize, clock: &mut Vec<u32>) {
        clock.resize(self.clocks.len(), 0);
        clock.iter_mut().zip(&self.clocks[warp]).for_each(|(joint, own)| *joint = (*joint).max(*own));
        self.clocks[warp][warp] += 1;
    }

    /// `warp` passes a barrier: what is part of `clock` happened before what it does from here on.
    pub fn acquire(&mut self, warp: usize, clock: &[u32]) {
        self.clocks[warp].iter_mut().zip(clock).for_each(|(own, joint)| *own = (*own).max(*joint));
    }

    /// A synchronisation of the lanes of one warp.
    pub fn synchronise_lanes(&mut self, warp: usize) {
        self.epochs[warp] += 1;
    }

    /// Reads. The second result is what the checker has to say.
    pub fn read(&mut self, access: Access, address: u64, out: &mut [u8]) -> Result<Option<Fault>, Fault> {
        let start = self.locate("read", address, out.len())?;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        if !self.checked {
            return Ok(None);
        }
        let mut found = None;
        let mark = self.mark(access);
        for at in start..start + out.len() {
            let shadow = &self.shadow[at];
            if shadow.copy_line != 0 {
                found = found.or(Some(self.in_flight("read", at)));
            } else if !shadow.written {
                found =
                    found.or(Some(Fault::Uninitialised { space: SpaceName(Space::Shared), address, size: out.len() }));
            } else if self.races(access, &shadow.write) {
                found = found.or(Some(Self::race(access, "read", at, "write", shadow.write)));
            }
            self.remember_read(mark, at);
        }
        Ok(found)
    }

    /// Writes. The result is what the checker has to say.
    pub fn write(&mut self, access: Access, address: u64, bytes: &[u8]) -> Result<Option<Fault>, Fault> {
        let start = self.locate("write", address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(self.check_write(access, start, bytes.len()))
    }

    /// Notes that an asynchronous copy will write `len` bytes: nobody may touch them before [`Self::finish_copy`].
    pub fn begin_copy(&mut self, access: Access, address: u64, len: usize) -> Result<Option<Fault>, Fault> {
        let start = self.locate("asynchronous copy", address, len)?;
        let found = self.check_write(access, start, len);
        if self.checked {
            self.shadow[start..start + len].iter_mut().for_each(|shadow| shadow.copy_line = access.line);
        }
        Ok(found)
    }

    /// The bytes of an asynchronous copy arrive: from here on they count as written by `access`'s thread.
    pub fn finish_copy(&mut self, access: Access, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let start = self.locate("asynchronous copy", address, bytes.len())?;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        if self.checked {
            let mark = self.mark(access);
            for at in start..start + bytes.len() {
                self.forget_readers(at);
                self.shadow[at] = Shadow { write: mark, written: true, ..Shadow::default() };
            }
        }
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

    fn check_write(&mut self, access: Access, start: usize, len: usize) -> Option<Fault> {
        if !self.checked {
            return None;
        }
        let mut found = None;
        let mark = self.mark(access);
        for at in start..start + len {
            let shadow = &self.shadow[at];
            if shadow.copy_line != 0 {
                found = found.or(Some(self.in_flight("write", at)));
            } else if self.races(access, &shadow.write) {
                found = found.or(Some(Self::race(access, "write", at, "write", shadow.write)));
            } else if let Some(reader) = self.racing_reader(access, shadow) {
                found = found.or(Some(Self::race(access, "write", at, "read", reader)));
            }
            self.forget_readers(at);
            self.shadow[at] = Shadow { write: mark, written: true, ..Shadow::default() };
        }
        found
    }

    fn racing_reader(&self, access: Access, shadow: &Shadow) -> Option<Mark> {
        let several = shadow.readers.checked_sub(1).map(|row| self.readers[row as usize].as_slice());
        let mut readers = several.unwrap_or_default().iter().chain([&shadow.read]);
        readers.find(|reader| self.races(access, reader)).copied()
    }

    fn remember_read(&mut self, mut mark: Mark, at: usize) {
        let last = self.shadow[at].read;
        if last.clock != 0 && last.thread / 32 == mark.thread / 32 && last.epoch == mark.epoch {
            mark.other = if last.thread == mark.thread { last.other } else { last.thread + 1 };
        }
        let other_warp = last.clock != 0 && last.thread / 32 != mark.thread / 32;
        if other_warp && self.shadow[at].readers == 0 {
            self.shadow[at].readers = self.spare_readers.pop().unwrap_or_else(|| {
                self.readers.push(Vec::new());
                self.readers.len() as u32
            });
            let row = &mut self.readers[self.shadow[at].readers as usize - 1];
            row.clear();
            row.resize(self.clocks.len(), Mark::default());
        }
        if let Some(row) = self.shadow[at].readers.checked_sub(1) {
            let row = &mut self.readers[row as usize];
            row[last.thread as usize / 32] = last;
            row[mark.thread as usize / 32] = mark;
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

    fn mark(&self, access: Access) -> Mark {
        let warp = access.warp();
        Mark {
            clock: self.clocks[warp][warp],
            epoch: self.epochs[warp],
            thread: access.thread,
            other: 0,
            line: access.line,
            strong: access.strong,
        }
    }

    /// Whether `access` may happen at the same time as the remembered one.
    #[inline]
    fn races(&self, access: Access, earlier: &Mark) -> bool {
        let own = earlier.thread == access.thread && earlier.other == 0;
        if earlier.clock == 0 || own || earlier.strong && access.strong {
            return false;
        }
        let (warp, other) = (access.warp(), earlier.thread as usize / 32);
        if warp == other {
            // The lanes of one instruction act together: stores of several lanes to one place are the kernel's wish.
            earlier.epoch == self.epochs[warp] && earlier.line != access.line
        } else {
            earlier.clock > self.clocks[warp][other]
        }
    }

    fn race(access: Access, action: &'static str, at: usize, other_action: &'static str, earlier: Mark) -> Fault {
        let other = if earlier.thread == access.thread { earlier.other - 1 } else { earlier.thread };
        Fault::Race { action, address: at as u64, other, other_action, other_line: earlier.line }
    }

    fn in_flight(&self, action: &'static str, at: usize) -> Fault {
        let copy_line = self.shadow[at].copy_line;
        Fault::CopyInFlight { action, space: SpaceName(Space::Shared), address: at as u64, copy_line }
    }
}
