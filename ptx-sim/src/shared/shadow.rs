//! What the checker knows of every byte of a block's shared memory.
//!
//! Most accesses are to whole words of 4 bytes, and leave the same behind in each of their bytes. So there is one
//! [`Shadow`] for a word; a word of which only a part is accessed gets one for each byte, until it is written as a whole.

mod readers;

use crate::ast::Space;
use crate::clocks::{Access, Clocks, actor_of, is_engine};
use crate::fault::{Fault, SpaceName};
use crate::memory::grow;
use readers::Readers;

/// Bytes of a word.
pub(super) const WORD: usize = 4;

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
    #[inline]
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
        actor_of(self.thread)
    }
}

/// What `Shadow::copy_line` has besides the line if the bytes are those of an `mbarrier` object.
const OBJECT: u32 = 1 << 31;

/// What a write leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// The bytes.
    Bytes,
    /// A copy in flight.
    Copy,
    /// A reduction in flight, perhaps beside others.
    Reduction,
    /// An `mbarrier` object.
    Object,
}

/// What is known of a byte, or of every byte of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    write: Mark,
    /// The last read; earlier reads of other warps since the last write are in `readers`.
    read: Mark,
    /// Number of a row of [`Readers`], 0 if there is none.
    readers: u32,
    /// Line of an asynchronous copy in flight, or with [`OBJECT`] that of an object's initialisation; 0 if neither.
    copy_line: u32,
    /// Asynchronous reductions in flight: what is in flight is one of them, or else a copy.
    reductions: u32,
    written: bool,
    /// Number of the bytes' own shadows in [`Shadows::bytes`], 0 if they are all alike.
    apart: u32,
}

impl Shadow {
    /// Whether something asynchronous that is in flight forbids an access: reductions are atomic as strong accesses are.
    #[inline]
    fn in_flight(&self, access: Access) -> bool {
        self.copy_line != 0 && !(self.reductions > 0 && access.strong)
    }

    /// What is known of it once it has been written; reductions in flight stay there.
    #[inline]
    fn written(&self, write: Mark, behind: Behind) -> Self {
        let (reductions, copy_line) = (self.reductions, if self.reductions > 0 { self.copy_line } else { 0 });
        let (reductions, copy_line) = match behind {
            Behind::Bytes => (reductions, copy_line),
            Behind::Copy => (reductions, write.line),
            Behind::Reduction => (reductions + 1, write.line),
            Behind::Object => (reductions, write.line | OBJECT),
        };
        Self { write, written: true, copy_line, reductions, ..Self::default() }
    }
}

/// What the checker knows of a block's shared memory.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    words: Vec<Shadow>,
    /// Shadows of the bytes of words that are not all alike. They have numbers from 1 on.
    bytes: Vec<[Shadow; WORD]>,
    /// Numbers of those that no word uses.
    spare: Vec<u32>,
    readers: Readers,
}

/// The parts of words that `len` bytes from `start` on lie in: the word, and its first and last byte.
#[inline(always)]
fn parts(start: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = start + len;
    (start / WORD..end.div_ceil(WORD)).map(move |word| {
        let first = word * WORD;
        (word, start.max(first) - first, end.min(first + WORD) - first)
    })
}

impl Shadows {
    /// Knows nothing of `len` bytes that nothing has touched. What is there already is used again.
    pub fn renew(&mut self, len: usize) -> Result<(), Fault> {
        self.words.clear();
        grow(&mut self.words, len.div_ceil(WORD), Shadow::default())?;
        self.bytes.clear();
        self.spare.clear();
        self.readers.renew();
        Ok(())
    }

    /// Bytes of this computer's memory that reads in the names of engines take.
    pub fn engine_bytes(&self) -> usize {
        self.readers.held_bytes()
    }

    /// Calls `note` with each engine that an access is remembered of, once or more.
    pub fn engines(&self, mut note: impl FnMut(usize)) {
        let mut of_byte = |shadow: &Shadow| {
            let (_, engines) = self.readers.row(shadow.readers);
            let marks = engines.iter().chain([&shadow.write, &shadow.read]);
            marks.map(Mark::actor).filter(|actor| is_engine(*actor)).for_each(&mut note);
        };
        for shadow in &self.words {
            match shadow.apart {
                0 => of_byte(shadow),
                apart => self.bytes[apart as usize - 1].iter().for_each(&mut of_byte),
            }
        }
    }

    /// What is to be said against a read.
    pub fn check_read(&self, clocks: &Clocks, access: Access, start: usize, len: usize) -> Option<Fault> {
        let check = |shadow: &Shadow, at: usize| check_read(clocks, access, shadow, at, start, len);
        parts(start, len).find_map(|(word, from, to)| {
            let shadow = &self.words[word];
            match shadow.apart {
                0 => check(shadow, word * WORD + from),
                apart => {
                    let bytes = &self.bytes[apart as usize - 1];
                    (from..to).find_map(|byte| check(&bytes[byte], word * WORD + byte))
                }
            }
        })
    }

    /// Remembers a read.
    pub fn remember_read(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) {
        let mark = Mark::new(clocks, access);
        for (word, from, to) in parts(start, len) {
            let whole = from == 0 && to == WORD;
            match self.apart(word, whole) {
                None => remember_read(&mut self.words[word], &mut self.readers, clocks, mark),
                Some(index) => self.bytes[index][from..to]
                    .iter_mut()
                    .for_each(|shadow| remember_read(shadow, &mut self.readers, clocks, mark)),
            }
        }
    }

    /// Both. The result is what is to be said against it.
    #[inline]
    pub fn read(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) -> Option<Fault> {
        if start.is_multiple_of(WORD) && len.is_multiple_of(WORD) {
            let mark = Mark::new(clocks, access);
            let (first, words) = (start / WORD, len / WORD);
            if self.words[first..first + words].iter().all(|shadow| shadow.apart == 0) {
                let mut found = None;
                for word in first..first + words {
                    let shadow = &mut self.words[word];
                    if found.is_none() {
                        found = check_read(clocks, access, shadow, word * WORD, start, len);
                    }
                    remember_read(shadow, &mut self.readers, clocks, mark);
                }
                return found;
            }
        }
        let found = self.check_read(clocks, access, start, len);
        self.remember_read(clocks, access, start, len);
        found
    }

    /// Remembers a write. The result is what is to be said against it; `being_read` knows where a byte is being read
    /// asynchronously.
    pub fn write(
        &mut self,
        clocks: &Clocks,
        access: Access,
        start: usize,
        len: usize,
        behind: Behind,
        being_read: impl Fn(usize) -> Option<u32>,
    ) -> Option<Fault> {
        let mark = Mark::new(clocks, access);
        let mut found = None;
        self.change(start, len, |shadow, readers, at| {
            if found.is_none() {
                found = check_write(clocks, access, shadow, readers, at, &being_read);
            }
            shadow.written(mark, behind)
        });
        found
    }

    /// The bytes of a copy have arrived: from here on they count as written by `access`'s thread.
    pub fn arrive(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) {
        let write = Mark::new(clocks, access);
        self.change(start, len, |_, _, _| Shadow { write, written: true, ..Shadow::default() });
    }

    /// A reduction in flight has been performed: from here on the bytes count as written by `access`'s thread.
    pub fn reduce(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) {
        let mark = Mark::new(clocks, access);
        self.change(start, len, |shadow, _, _| {
            let shadow = Shadow { reductions: shadow.reductions.saturating_sub(1), ..*shadow };
            shadow.written(mark, Behind::Bytes)
        });
    }

    /// An object is gone, and nothing is known of what it leaves in its bytes.
    pub fn forget(&mut self, clocks: &Clocks, access: Access, start: usize, len: usize) {
        let write = Mark::new(clocks, access);
        self.change(start, len, |_, _, _| Shadow { write, ..Shadow::default() });
    }

    /// Replaces the shadows of bytes, given with the byte's address or a word's first one.
    #[inline(always)]
    fn change(&mut self, start: usize, len: usize, mut new: impl FnMut(&Shadow, &Readers, usize) -> Shadow) {
        for (word, from, to) in parts(start, len) {
            let (whole, first) = (from == 0 && to == WORD, word * WORD);
            match self.apart(word, whole) {
                None => {
                    let shadow = &mut self.words[word];
                    let next = new(shadow, &self.readers, first);
                    self.readers.give_back(shadow.readers);
                    *shadow = next;
                }
                Some(index) => {
                    for byte in from..to {
                        let shadow = &mut self.bytes[index][byte];
                        let next = new(shadow, &self.readers, first + byte);
                        self.readers.give_back(shadow.readers);
                        *shadow = next;
                    }
                    let bytes = &self.bytes[index];
                    // Written as a whole its bytes are alike, unless different reductions are in flight.
                    let alike =
                        |byte: &Shadow| (byte.reductions, byte.copy_line) == (bytes[0].reductions, bytes[0].copy_line);
                    if whole && bytes.iter().all(alike) {
                        self.words[word] = bytes[0];
                        self.spare.push(index as u32 + 1);
                    }
                }
            }
        }
    }

    /// Where the shadows of a word's bytes are, if they are not all alike or are not to be: the access is to a part.
    #[inline]
    fn apart(&mut self, word: usize, whole: bool) -> Option<usize> {
        if let Some(index) = self.words[word].apart.checked_sub(1) {
            return Some(index as usize);
        }
        if whole {
            return None;
        }
        let shadow = self.words[word];
        let mut bytes = [shadow; WORD];
        // Every byte has a row of its own.
        bytes[1..].iter_mut().for_each(|byte| byte.readers = self.readers.copy(shadow.readers));
        let apart = self.spare.pop().unwrap_or_else(|| {
            self.bytes.push(bytes);
            self.bytes.len() as u32
        });
        self.bytes[apart as usize - 1] = bytes;
        self.words[word] = Shadow { apart, ..Shadow::default() };
        Some(apart as usize - 1)
    }
}

/// What is to be said against a read of `len` bytes from `start` on, as far as it concerns a byte.
#[inline]
fn check_read(clocks: &Clocks, access: Access, shadow: &Shadow, at: usize, start: usize, len: usize) -> Option<Fault> {
    if shadow.in_flight(access) {
        Some(in_flight("read", at, shadow))
    } else if !shadow.written {
        Some(Fault::Uninitialised { space: SpaceName(Space::Shared), address: start as u64, size: len })
    } else if races(clocks, access, &shadow.write) {
        Some(race(clocks, access, "read", at, "write", shadow.write))
    } else {
        unfenced(clocks, access, "read", at, &shadow.write)
    }
}

/// What is to be said against a write to a byte.
#[inline]
fn check_write(
    clocks: &Clocks,
    access: Access,
    shadow: &Shadow,
    readers: &Readers,
    at: usize,
    being_read: &impl Fn(usize) -> Option<u32>,
) -> Option<Fault> {
    if shadow.in_flight(access) {
        Some(in_flight("write", at, shadow))
    } else if let Some(line) = being_read(at) {
        Some(Fault::ReadInFlight { action: "write", address: at as u64, line })
    } else if races(clocks, access, &shadow.write) {
        Some(race(clocks, access, "write", at, "write", shadow.write))
    } else if let Some(reader) = racing_reader(clocks, access, shadow, readers) {
        Some(race(clocks, access, "write", at, "read", reader))
    } else {
        unfenced(clocks, access, "write", at, &shadow.write)
    }
}

#[inline]
fn racing_reader(clocks: &Clocks, access: Access, shadow: &Shadow, readers: &Readers) -> Option<Mark> {
    // As nearly always.
    if shadow.readers == 0 {
        return Some(shadow.read).filter(|reader| races(clocks, access, reader));
    }
    let (warps, engines) = readers.row(shadow.readers);
    let mut readers = warps.iter().chain(engines).chain([&shadow.read]);
    readers.find(|reader| races(clocks, access, reader)).copied()
}

#[inline]
fn remember_read(shadow: &mut Shadow, readers: &mut Readers, clocks: &Clocks, mut mark: Mark) {
    let last = shadow.read;
    if last.clock != 0 && last.actor() == mark.actor() && last.epoch == mark.epoch {
        mark.other = if last.thread == mark.thread { last.other } else { last.thread + 1 };
    }
    let other_warp = last.clock != 0 && last.actor() != mark.actor();
    if other_warp && shadow.readers == 0 {
        shadow.readers = readers.take();
    }
    if shadow.readers != 0 {
        readers.set(shadow.readers, last, clocks.warps());
        readers.set(shadow.readers, mark, clocks.warps());
    }
    shadow.read = mark;
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
#[inline]
fn unfenced(clocks: &Clocks, access: Access, action: &'static str, at: usize, write: &Mark) -> Option<Fault> {
    if !access.asynchronous {
        return None;
    }
    let ordinary = write.clock != 0 && !write.asynchronous;
    if !ordinary || clocks.passed_fence(access.thread, write.thread, write.clock) {
        return None;
    }
    let other = clocks.name(access.actor(), write.thread);
    Some(Fault::NoProxyFence { action, address: at as u64, other, other_line: write.line })
}

fn in_flight(action: &'static str, at: usize, shadow: &Shadow) -> Fault {
    if shadow.copy_line & OBJECT != 0 {
        let line = shadow.copy_line & !OBJECT;
        let place = at & !7;
        return Fault::Mbarrier(format!(
            "{action} of bytes of the object at {place:#x}, initialised at PTX line {line}"
        ));
    }
    Fault::CopyInFlight { action, space: SpaceName(Space::Shared), address: at as u64, copy_line: shadow.copy_line }
}
