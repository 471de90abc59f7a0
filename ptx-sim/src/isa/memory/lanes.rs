//! Reads and writes of all lanes at once.
//!
//! Where all active lanes access global memory in one allocation, or their own block's shared memory, as they nearly
//! always do, they are served together. Everything else goes lane by lane, and finds what is wrong there. Strong accesses
//! of 8 and 16 bytes to global memory are whole: they hold the guards of memory that those of other blocks hold.

use crate::ast::Space;
use crate::exec::{Context, LANES, Target};
use crate::fault::Fault;
use crate::memory::{Memory, WHOLE, Words};

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

/// Lanes that access one allocation of global memory.
struct Together<'a> {
    words: Words<'a>,
    offsets: [usize; LANES],
}

impl<'a> Together<'a> {
    /// The offsets of the lanes of `mask`, which all access `size` bytes, if all of them are aligned and lie in one
    /// allocation.
    #[inline]
    fn find(memory: &'a Memory, places: &Places, mask: u32, size: usize) -> Option<Self> {
        let (space, first) = *places.get(mask.trailing_zeros() as usize)?;
        if space != Space::Global || !size.is_power_of_two() {
            return None;
        }
        let words = memory.around(first)?;
        let mut offsets = [0; LANES];
        for (lane, offset) in offsets.iter_mut().enumerate() {
            let (space, address) = places[lane];
            if mask >> lane & 1 == 1 {
                if space != Space::Global || address & (size as u64 - 1) != 0 {
                    return None;
                }
                *offset = words.offset(address, size)?;
            }
        }
        Some(Self { words, offsets })
    }
}

/// Where the lanes of `mask`, which access `size` bytes each, find them in the `len` bytes of their own block's shared
/// memory, if all of them do, in whole words and aligned.
#[inline]
fn in_own_shared(places: &Places, mask: u32, size: usize, len: usize) -> Option<[usize; LANES]> {
    if size < 4 || !size.is_power_of_two() {
        return None;
    }
    let mut offsets = [0; LANES];
    for lane in lanes(mask) {
        let (space, address) = places[lane];
        // Addresses that name another block lie beyond all of the memory.
        if space != Space::Shared || address & (size as u64 - 1) != 0 || address.checked_add(size as u64)? > len as u64
        {
            return None;
        }
        offsets[lane] = address as usize;
    }
    Some(offsets)
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
    if let Some(Together { words, offsets }) = Together::find(context.grid.memory, places, mask, size)
        && (!checked || lanes(mask).all(|lane| words.is_written(offsets[lane], size)))
    {
        if strong && size > 4 {
            for lane in lanes(mask) {
                for from in (0..size).step_by(WHOLE) {
                    let _guard = context.grid.memory.hold(places[lane].1 + from as u64);
                    for (word, column) in data.iter_mut().enumerate().take(size.min(from + WHOLE) / 4).skip(from / 4) {
                        column[lane] = words.load(offsets[lane] + 4 * word);
                    }
                }
            }
            return Ok(());
        }
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
        let first = Target { lane: 0, space: Space::Shared, address: 0, strong }.access(context);
        for lane in lanes(mask) {
            let access = first.of_lane(lane);
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
    // Less than a word is written beside bytes that may be another block's: that is left to the lanes.
    if size >= 4
        && let Some(Together { words, offsets }) = Together::find(context.grid.memory, places, mask, size)
    {
        if context.cluster.is_watched() {
            let same = |lane: usize| (0..size / 4).all(|word| words.load(offsets[lane] + 4 * word) == data[word][lane]);
            // Lanes may write different values to one place.
            let changes = lanes(mask).any(|lane| !same(lane));
            context.cluster.access(true, changes);
        }
        // Of lanes that write to one place the last one's value stays.
        if strong && size > 4 {
            for lane in lanes(mask) {
                for from in (0..size).step_by(WHOLE) {
                    let _guard = context.grid.memory.hold(places[lane].1 + from as u64);
                    for (word, column) in data.iter().enumerate().take(size.min(from + WHOLE) / 4).skip(from / 4) {
                        words.store(offsets[lane] + 4 * word, column[lane]);
                    }
                }
                words.mark_written(offsets[lane], size);
            }
            return Ok(());
        }
        for lane in lanes(mask) {
            for (word, column) in data.iter().enumerate().take(size / 4) {
                words.store(offsets[lane] + 4 * word, column[lane]);
            }
            words.mark_written(offsets[lane], size);
        }
        return Ok(());
    }
    let (shared, _) = context.cluster.shared(context.rank);
    let len = shared.len();
    // While they are watched, what a lane changes is noted lane by lane.
    if !context.cluster.is_watched()
        && let Some(offsets) = in_own_shared(places, mask, size, len)
    {
        let first = Target { lane: 0, space: Space::Shared, address: 0, strong }.access(context);
        for lane in lanes(mask) {
            let access = first.of_lane(lane);
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
