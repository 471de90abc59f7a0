//! What bulk copies, reductions and prefetches have in common: who issues them, how much they move, where it lies, and
//! the `mbarrier` that is told (PTX ISA 9.7.9.25.4).

use super::access::Address;
use super::traffic::{count_bulk, sectors};
use crate::ast::{Space, Type};
use crate::clocks::Access;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, GREATEST_COUNT, Source, Target};
use crate::fault::{Fault, SpaceName};
use crate::meter::Path;

/// Sizes and addresses are multiples of this many bytes.
pub(super) const UNIT: u64 = 16;

/// Most bytes that ptxas takes as a constant: what an `mbarrier` can count, in whole units.
const MOST: u64 = GREATEST_COUNT as u64 / UNIT * UNIT;

/// Who issues an operation of the asynchronous proxy.
pub(super) fn issuer(context: &Context, lane: usize) -> Access {
    let target = Target { lane, space: Space::Shared, address: 0, strong: false };
    Access { asynchronous: true, ..target.access(context) }
}

/// The number of bytes that a lane names. The ISA defines nothing for numbers that are not multiples of 16, and says of
/// 0 neither that it moves nothing nor what completes then.
pub(super) fn size(context: &Context, lane: usize, size: Source) -> Result<usize, Fault> {
    match context.read(size)[lane] & u64::from(u32::MAX) {
        0 => Err(Fault::Trap("a bulk operation on 0 bytes, which the ISA does not define".into())),
        bytes if bytes % UNIT != 0 => {
            Err(Fault::Trap(format!("a bulk operation on {bytes} bytes, which are no multiple of {UNIT}")))
        }
        bytes => Ok(bytes as usize),
    }
}

/// Returns an error unless the address is a multiple of 16.
pub(super) fn aligned(space: Space, address: u64, size: usize) -> Result<(), Fault> {
    match address % UNIT {
        0 => Ok(()),
        _ => {
            let (action, space) = ("bulk operation", SpaceName(space));
            Err(Fault::Misaligned { action, space, address, size, alignment: UNIT as usize })
        }
    }
}

/// The block and the offset of a lane's shared address, where the block has `size` bytes.
pub(super) fn shared_side(context: &Context, lane: usize, address: u64, size: usize) -> Result<(usize, u64), Fault> {
    aligned(Space::Shared, address, size)?;
    let target = Target { lane, space: Space::Shared, address, strong: false };
    let (rank, offset) = target.block(context, "bulk operation", size)?;
    let len = context.cluster.blocks[rank].shared.len();
    if offset as usize + size > len {
        let (action, space) = ("bulk operation", SpaceName(Space::Shared));
        let why = format!("the block has {len} bytes of shared memory");
        return Err(Fault::OutOfBounds { action, space, address: offset, size, why });
    }
    Ok((rank, offset))
}

/// The same, of an address that `.shared::cta` says is in the block's own memory.
pub(super) fn own_side(context: &Context, lane: usize, address: u64, size: usize) -> Result<u64, Fault> {
    match shared_side(context, lane, address, size)? {
        (rank, offset) if rank == context.rank => Ok(offset),
        (rank, _) => Err(Fault::Trap(format!("`.shared::cta` address {address:#x} is of the cluster's block {rank}"))),
    }
}

/// Bytes of global memory, read when the operation is issued.
pub(super) fn load(context: &mut Context, lane: usize, address: u64, size: usize) -> Result<Vec<u8>, Fault> {
    aligned(Space::Global, address, size)?;
    let place = context.grid.memory.find("bulk read", address, size)?;
    let mut bytes = vec![0; size];
    place.read(&mut bytes);
    if context.grid.checked && !place.is_written(size) {
        context.find(Fault::Uninitialised { space: SpaceName(Space::Global), address, size }, lane);
    }
    count_bulk(context, Path::BulkGlobalRead, size as u64, sectors(address, size));
    Ok(bytes)
}

/// Bytes of the block's own shared memory and their offset, read when the operation is issued: they are a source that
/// nobody may change until the operation has read it.
pub(super) fn take(context: &mut Context, lane: usize, address: u64, size: usize) -> Result<(u64, Vec<u8>), Fault> {
    let (rank, offset, access) = (context.rank, own_side(context, lane, address, size)?, issuer(context, lane));
    let mut bytes = vec![0; size];
    let (shared, clocks) = context.cluster.shared(rank);
    if let Some(fault) = shared.begin_reading(clocks, access, offset, &mut bytes)? {
        context.find(fault, lane);
    }
    count_bulk(context, Path::BulkSharedRead, size as u64, 0);
    Ok((offset, bytes))
}

/// The operand `[mbar]` of operations that complete on an `mbarrier`.
pub(super) struct Completion(Address);

impl Completion {
    /// Operand `index`.
    pub fn decode(operands: &Operands, index: usize) -> Result<Self, DecodeError> {
        Ok(Self(Address::decode(operands, index, Some(Space::Shared))?))
    }

    /// The offset of the `mbarrier`, which lies in the block that the bytes go to.
    pub fn offset(&self, context: &Context, lane: usize, rank: usize) -> Result<u64, Fault> {
        let address = self.0.lanes(context)[lane];
        let target = Target { lane, space: Space::Shared, address, strong: false };
        target.aligned("mbarrier", 8)?;
        match target.block(context, "mbarrier", 8)? {
            (of, offset) if of == rank => Ok(offset),
            (of, _) => {
                Err(Fault::Mbarrier(format!("a copy into the cluster's block {rank} completes on one of block {of}")))
            }
        }
    }
}

/// Returns an error unless a block has an `mbarrier` there and has not exited. That the initialisation comes before is
/// for the checker to see.
pub(super) fn receives(context: &mut Context, rank: usize, mbarrier: u64) -> Result<(), Fault> {
    context.cluster.only_open(rank, "bulk operation")?;
    if !context.cluster.blocks[rank].mbarriers.contains_key(&mbarrier) {
        let why = format!("a copy completes on shared address {mbarrier:#x} of block {rank}, where there is none");
        return Err(Fault::Mbarrier(why));
    }
    let unordered = context.cluster.unordered_use(context.actor(), rank, mbarrier);
    if let Some(fault) = unordered.filter(|_| context.grid.checked) {
        context.find(fault, context.lane);
    }
    Ok(())
}

/// The operand `ctaMask`, a bit for each block of the cluster.
pub(super) fn ranks(context: &Context, lane: usize, mask: Source) -> Result<Vec<usize>, Fault> {
    let (mask, blocks) = (context.read(mask)[lane] & 0xFFFF, context.cluster.blocks.len());
    if mask == 0 || mask >> blocks != 0 {
        return Err(Fault::Trap(format!("a multicast to the blocks {mask:#b} of a cluster of {blocks}")));
    }
    Ok((0..blocks).filter(|rank| mask >> rank & 1 == 1).collect())
}

/// The operand that says how many bytes: 32 bits wide. A constant has to be a multiple of
/// 16, and no more than ptxas takes.
pub(super) fn size_operand(operands: &Operands, index: usize) -> Result<Source, DecodeError> {
    match operands.constant(index) {
        Some(bytes) if bytes % UNIT != 0 || bytes > MOST => {
            operands.error(format!("{} bytes, which are no multiple of {UNIT} up to {MOST}", bytes as i64))
        }
        _ => operands.agreeing(index, Type::U32),
    }
}

/// The operand that has a bit for each block of the cluster: 16 bits wide.
pub(super) fn mask_operand(operands: &Operands, index: usize) -> Result<Source, DecodeError> {
    operands.agreeing(index, Type::U16)
}
