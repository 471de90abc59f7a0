//! Reads and writes of all lanes at once.
//!
//! Where all active lanes access global memory in one allocation, or their own block's shared memory, as they nearly
//! always do, they are served together. Everything else goes lane by lane, and finds what is wrong there.

use crate::ast::Space;
use crate::exec::{Context, LANES, Target};
use crate::fault::Fault;
use crate::memory::{Memory, Words};

/// Most bytes that a lane moves at once: `.v8.b32`.
pub(crate) const WIDEST: usize = 32;

/// What lanes read or write: word by word of all lanes. What is less than a word lies in the lowest bytes.
pub(crate) type Data = [[u32; LANES]; WIDEST / 4];

/// Every lane's space and address in it.
type Places = [(Space, u64); LANES];

/// `size` bytes at byte `at` of a lane's data.
#[inline(always)]
pub(super) fn piece(data: &Data, lane: usize, at: usize, size: usize) -> u64 {
    let word = u64::from(data[at / 4][lane]);
    match size {
        8 => word | u64::from(data[at / 4 + 1][lane]) << 32,
        4 => word,
        _ => word >> (8 * (at % 4)) & ((1 << (8 * size)) - 1),
    }
}

/// Where the lanes of `mask`, which access `size` bytes each, find them, if all of them do in the same space and aligned.
/// `offset` says it of an address, if it is of the memory in question.
#[inline(always)]
fn together(
    places: &Places,
    mask: u32,
    size: usize,
    wanted: Space,
    offset: impl Fn(u64) -> Option<usize>,
) -> Option<[usize; LANES]> {
    if !size.is_power_of_two() {
        return None;
    }
    let mut offsets = [0; LANES];
    for (lane, found) in offsets.iter_mut().enumerate() {
        let (space, address) = places[lane];
        if mask >> lane & 1 == 1 {
            if space != wanted || address & (size as u64 - 1) != 0 {
                return None;
            }
            *found = offset(address)?;
        }
    }
    Some(offsets)
}

/// The allocation of global memory that all lanes access, and where in it. Strong accesses of more than a word are not
/// for all lanes at once: each holds the guard of its place.
#[inline]
fn in_allocation<'a>(
    memory: &'a Memory,
    places: &Places,
    mask: u32,
    strong: bool,
    size: usize,
) -> Option<(Words<'a>, [usize; LANES])> {
    let (space, first) = *places.get(mask.trailing_zeros() as usize)?;
    if space != Space::Global || strong && size > 4 {
        return None;
    }
    let words = memory.around(first)?;
    Some((words, together(places, mask, size, Space::Global, |address| words.offset(address, size))?))
}

/// Where all lanes access whole words of the `len` bytes of their own block's shared memory.
#[inline]
fn in_own_shared(places: &Places, mask: u32, size: usize, len: usize) -> Option<[usize; LANES]> {
    if size < 4 {
        return None;
    }
    // Addresses that name another block lie beyond all of the memory.
    let within = |address: u64| address.checked_add(size as u64).is_some_and(|end| end <= len as u64);
    together(places, mask, size, Space::Shared, |address| within(address).then_some(address as usize))
}

/// The lanes of a mask.
fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

/// Reads `size` bytes of every active lane.
pub(crate) fn read(
    context: &mut Context,
    places: &Places,
    strong: bool,
    size: usize,
    data: &mut Data,
) -> Result<(), Fault> {
    let (mask, checked) = (context.mask, context.grid.checked);
    if context.cluster.is_watched() {
        let first = places[context.lane];
        context.warp.note_look(context.at, mask, first);
    }
    if let Some((words, offsets)) = in_allocation(context.grid.memory, places, mask, strong, size)
        && (!checked || lanes(mask).all(|lane| words.is_written(offsets[lane], size)))
    {
        for (word, column) in data.iter_mut().enumerate().take(size.div_ceil(4)) {
            for lane in lanes(mask) {
                column[lane] = words.load(offsets[lane] + 4 * word);
            }
        }
        if size < 4 {
            for lane in lanes(mask) {
                data[0][lane] = data[0][lane] >> (8 * (offsets[lane] % 4)) & ((1 << (8 * size)) - 1);
            }
        }
        return Ok(());
    }
    let (shared, _) = context.cluster.shared(context.rank);
    if let Some(offsets) = in_own_shared(places, mask, size, shared.len()) {
        for lane in lanes(mask) {
            let access = context.access(lane, strong);
            let (shared, clocks) = context.cluster.shared(context.rank);
            let columns = data[..size / 4].iter_mut().map(|column| &mut column[lane]);
            if let Some(fault) = shared.read_words(clocks, access, offsets[lane], columns) {
                context.find(fault, lane);
            }
        }
        return Ok(());
    }
    let mut bytes = [0; WIDEST];
    for lane in lanes(mask) {
        let (space, address) = places[lane];
        let bytes = &mut bytes[..size];
        Target { lane, space, address, strong }.read(context, bytes)?;
        for (chunk, column) in bytes.chunks(4).zip(data.iter_mut()) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            column[lane] = u32::from_le_bytes(word);
        }
    }
    Ok(())
}

/// Writes `size` bytes of every active lane.
pub(crate) fn write(
    context: &mut Context,
    places: &Places,
    strong: bool,
    size: usize,
    data: &Data,
) -> Result<(), Fault> {
    let mask = context.mask;
    // While they are watched, what a lane changes is noted lane by lane.
    let watched = context.cluster.is_watched();
    // Less than a word is written beside bytes that may be another block's: that is left to the lanes.
    if !watched
        && size >= 4
        && let Some((words, offsets)) = in_allocation(context.grid.memory, places, mask, strong, size)
    {
        // Of lanes that write to one place the last one's value stays.
        for lane in lanes(mask) {
            for (word, column) in data.iter().enumerate().take(size / 4) {
                words.store(offsets[lane] + 4 * word, column[lane]);
            }
            words.mark_written(offsets[lane], size);
        }
        return Ok(());
    }
    let (shared, _) = context.cluster.shared(context.rank);
    if !watched && let Some(offsets) = in_own_shared(places, mask, size, shared.len()) {
        for lane in lanes(mask) {
            let access = context.access(lane, strong);
            let (shared, clocks) = context.cluster.shared(context.rank);
            let words = data[..size / 4].iter().map(|column| column[lane]);
            if let Some(fault) = shared.write_words(clocks, access, offsets[lane], words) {
                context.find(fault, lane);
            }
        }
        return Ok(());
    }
    for lane in lanes(mask) {
        let (space, address) = places[lane];
        let mut bytes = [0; WIDEST];
        for (chunk, column) in bytes.chunks_exact_mut(4).zip(data) {
            chunk.copy_from_slice(&column[lane].to_le_bytes());
        }
        Target { lane, space, address, strong }.write(context, &bytes[..size])?;
    }
    Ok(())
}
