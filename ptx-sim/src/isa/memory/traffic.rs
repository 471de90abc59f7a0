//! What an access of a warp costs, for the meter.

use crate::ast::Space;
use crate::exec::{Context, Kernel, LANES, Lanes, Vectors, named_rank, run_vectors};
use crate::meter::{Path, Traffic};

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;

/// Banks of shared memory, 4 bytes wide each.
const BANKS: usize = 32;

/// What lanes do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Atomic,
}

/// The path of an access; parameters are free, as they are constants to the hardware.
fn path(space: Space, kind: Kind) -> Option<Path> {
    Some(match (space, kind) {
        (Space::Global, Kind::Read) => Path::GlobalRead,
        (Space::Global, Kind::Write) => Path::GlobalWrite,
        (Space::Global, Kind::Atomic) => Path::GlobalAtomic,
        (Space::Shared, Kind::Read) => Path::SharedRead,
        (Space::Shared, Kind::Write) => Path::SharedWrite,
        (Space::Shared, Kind::Atomic) => Path::SharedAtomic,
        (Space::Local, Kind::Read) => Path::LocalRead,
        (Space::Local, _) => Path::LocalWrite,
        (Space::Const, _) => Path::ConstRead,
        (Space::Param | Space::Reg, _) => return None,
    })
}

/// The path of an access to the shared memory of other blocks.
fn remote_path(kind: Kind) -> Path {
    match kind {
        Kind::Read => Path::RemoteRead,
        Kind::Write => Path::RemoteWrite,
        Kind::Atomic => Path::RemoteAtomic,
    }
}

/// Counts an instruction whose active lanes access `size` bytes each. Lanes with generic addresses in several spaces
/// count as one access to each space. So do lanes that address other blocks' shared memory, all blocks together: that
/// memory is reached through a network, so their bytes are counted in sectors, as global memory's, and not in wavefronts.
pub(super) fn count(context: &mut Context, kind: Kind, targets: &[(Space, u64); LANES], size: usize) {
    let mut left = context.mask;
    while left != 0 {
        let (space, _) = targets[left.trailing_zeros() as usize];
        let mask = (0..LANES).filter(|&l| left >> l & 1 == 1 && targets[l].0 == space).fold(0, |m, l| m | 1 << l);
        left &= !mask;
        let Some(path) = path(space, kind) else { continue };
        let addresses = targets.map(|(_, address)| address);
        let mut mask = mask;
        if space == Space::Shared && context.cluster.blocks.len() > 1 {
            let away = |l: &usize| named_rank(addresses[*l]).is_some_and(|rank| rank != context.rank);
            let remote = (0..LANES).filter(|l| mask >> l & 1 == 1 && away(l)).fold(0, |m, l| m | 1 << l);
            if remote != 0 {
                count_sectors(context, remote_path(kind), &addresses, remote, size, 4);
                mask &= !remote;
            }
            if mask == 0 {
                continue;
            }
        }
        match space {
            Space::Shared => count_shared(context, path, &addresses, mask, size),
            // Word `w` of lane `l` lies beside word `w` of lane `l + 1`, so that equal addresses coalesce.
            Space::Local => {
                let physical =
                    std::array::from_fn(|lane| (addresses[lane] / 4).wrapping_mul(128).wrapping_add(4 * lane as u64));
                count_sectors(context, path, &physical, mask, size, 128);
            }
            Space::Global => count_sectors(context, path, &addresses, mask, size, 4),
            _ => {
                let traffic = context.ledger.meter.traffic(path);
                traffic.accesses += 1;
                traffic.bytes += u64::from(mask.count_ones()) * size as u64;
            }
        }
    }
}

/// Counts an access in sectors; a lane's words lie `stride` bytes apart.
pub(super) fn count_sectors(context: &mut Context, path: Path, addresses: &Lanes, mask: u32, size: usize, stride: u64) {
    let sectors = if stride == 4 && size <= SECTOR as usize && size.is_power_of_two() {
        run_vectors(Sectors { addresses, mask, size: size as u64 })
    } else {
        None
    };
    let sectors = sectors.unwrap_or_else(|| distinct_sectors(addresses, mask, size, stride));
    let traffic = context.ledger.meter.traffic(path);
    traffic.accesses += 1;
    traffic.bytes += u64::from(mask.count_ones()) * size as u64;
    traffic.sectors += sectors;
}

/// Distinct sectors of an access, whatever its addresses are.
fn distinct_sectors(addresses: &Lanes, mask: u32, size: usize, stride: u64) -> u64 {
    let words = size.div_ceil(4) as u64;
    let lanes = (0..LANES).filter(|lane| mask >> lane & 1 == 1);
    let sector = |lane: usize, word: u64| addresses[lane].wrapping_add(word * stride) / SECTOR;
    let mut all: Vec<u64> = lanes.flat_map(|lane| (0..words).map(move |word| sector(lane, word))).collect();
    all.sort_unstable();
    all.dedup();
    all.len() as u64
}

/// Distinct sectors of an access whose lanes touch one sector each, if the sectors lie near each other.
struct Sectors<'a> {
    addresses: &'a Lanes,
    mask: u32,
    /// A power of two up to a sector.
    size: u64,
}

impl Kernel for Sectors<'_> {
    type Output = Option<u64>;

    #[inline(always)]
    fn run<V: Vectors>(self) -> Option<u64> {
        let Self { addresses, mask, size } = self;
        // For idle lanes the first active one's address counts again.
        let first = addresses[mask.trailing_zeros() as usize % LANES];
        let addresses: Lanes = std::array::from_fn(|lane| if mask >> lane & 1 == 1 { addresses[lane] } else { first });
        let (mut least, mut most, mut bits) = (u64::MAX, 0, 0);
        for address in &addresses {
            (least, most, bits) = (least.min(address / SECTOR), most.max(address / SECTOR), bits | address);
        }
        // Unaligned lanes may touch two sectors each.
        if bits & (size - 1) != 0 || most - least >= 64 {
            return None;
        }
        let seen = addresses.iter().fold(0u64, |seen, address| seen | 1 << (address / SECTOR - least));
        Some(u64::from(seen.count_ones()))
    }
}

/// Counts an access of shared memory. Lanes with more than 4 bytes each take turns: 16 lanes with 8 bytes, 8 with 16.
/// In each turn the banks work side by side, and a bank that must deliver several words needs a wavefront for each;
/// several lanes may have the same word.
pub(super) fn count_shared(context: &mut Context, path: Path, addresses: &Lanes, mask: u32, size: usize) {
    let words = size.div_ceil(4);
    let lanes_per_turn = LANES / words.clamp(1, LANES);
    let mut sum = Traffic { accesses: 1, bytes: u64::from(mask.count_ones()) * size as u64, ..Traffic::default() };
    for first in (0..LANES).step_by(lanes_per_turn) {
        let lanes = (first..first + lanes_per_turn).filter(|lane| mask >> lane & 1 == 1);
        let (wavefronts, distinct) = wavefronts(addresses, lanes, words as u64);
        sum.wavefronts += wavefronts;
        sum.conflicts += wavefronts - u64::div_ceil(distinct, BANKS as u64);
    }
    let traffic = context.ledger.meter.traffic(path);
    traffic.accesses += sum.accesses;
    traffic.bytes += sum.bytes;
    traffic.wavefronts += sum.wavefronts;
    traffic.conflicts += sum.conflicts;
}

/// Wavefronts of one turn of `lanes`, each with so many words from its address on, and the number of distinct words.
#[inline(always)]
fn wavefronts(addresses: &Lanes, lanes: impl Iterator<Item = usize>, words: u64) -> (u64, u64) {
    let mut wanted = [0; LANES];
    let mut used = 0;
    // The word that each bank in use delivers, as long as no bank has several.
    let (mut delivered, mut in_use, mut several) = ([0; BANKS], 0u32, false);
    for lane in lanes {
        for word in 0..words {
            let word = addresses[lane] / 4 + word;
            let bank = word as usize % BANKS;
            several |= in_use >> bank & 1 == 1 && delivered[bank] != word;
            (delivered[bank], in_use) = (word, in_use | 1 << bank);
            wanted[used] = word;
            used += 1;
        }
    }
    if !several {
        return (u64::from(in_use != 0), in_use.count_ones().into());
    }
    let wanted = &mut wanted[..used];
    wanted.sort_unstable();
    let mut per_bank = [0u64; BANKS];
    let mut distinct = 0;
    for (i, word) in wanted.iter().enumerate() {
        if i == 0 || wanted[i - 1] != *word {
            per_bank[*word as usize % BANKS] += 1;
            distinct += 1;
        }
    }
    (per_bank.into_iter().max().unwrap_or(0), distinct)
}

/// Counts a bulk or tensor copy's side of `bytes`. The copy engine moves shared memory in rows of all banks, so there are no
/// conflicts.
pub(super) fn count_bulk(context: &mut Context, path: Path, bytes: u64, sectors: u64) {
    let shared = matches!(path, Path::BulkSharedRead | Path::BulkSharedWrite);
    let traffic = context.ledger.meter.traffic(path);
    traffic.accesses += 1;
    traffic.bytes += bytes;
    traffic.sectors += sectors;
    traffic.wavefronts += if shared { bytes.div_ceil(4 * BANKS as u64) } else { 0 };
}

/// Sectors that contiguous bytes of global memory touch; there is at least one byte.
pub(super) fn sectors(address: u64, len: usize) -> u64 {
    (address + len as u64 - 1) / SECTOR - address / SECTOR + 1
}
