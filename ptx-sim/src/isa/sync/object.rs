//! What instructions on `mbarrier`s have in common: their qualifiers, and the object that they name (PTX ISA sections
//! 9.7.13.15.1 and 9.7.13.15.8).

use crate::ast::Space;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Cluster, Context, LANES, MBARRIER_BYTES, Mbarrier, Target};
use crate::fault::{Fault, SpaceName};
use crate::isa::memory::access::Address;

/// What stands between an operation and its type: `{.sem.scope}` and `{.space}`, in either order.
pub(super) struct Qualifiers<'a> {
    pub space: Option<&'a str>,
    pub sem: Option<&'a str>,
    pub scope: Option<&'a str>,
}

impl<'a> Qualifiers<'a> {
    /// Reads them. Each must be one of those that the operation has.
    pub fn decode(
        operands: &Operands,
        parts: &[&'a str],
        spaces: &[&str],
        orders: &[&str],
    ) -> Result<Self, DecodeError> {
        let Some((&"b64", mut rest)) = parts.split_last() else { return operands.error("expected `.b64` at the end") };
        let (mut space, mut ordered) = (None, None);
        while let [first, behind @ ..] = rest {
            rest = behind;
            if spaces.contains(first) && space.is_none() {
                space = Some(*first);
                continue;
            }
            match behind {
                [scope @ ("cta" | "cluster"), behind @ ..] if orders.contains(first) && ordered.is_none() => {
                    (ordered, rest) = (Some((*first, *scope)), behind);
                }
                _ if orders.contains(first) && ordered.is_none() => {
                    return operands.error(format!("expected `.cta` or `.cluster` behind `.{first}`"));
                }
                _ => return operands.error(format!("unexpected part `.{first}`")),
            }
        }
        Ok(Self { space, sem: ordered.map(|(sem, _)| sem), scope: ordered.map(|(_, scope)| scope) })
    }

    /// Whether it orders nothing.
    pub fn relaxed(&self) -> bool {
        self.sem == Some("relaxed")
    }
}

/// The spaces of objects in the own block.
pub(super) const OWN: [&str; 2] = ["shared", "shared::cta"];
/// The spaces of objects anywhere in the cluster.
pub(super) const ANY: [&str; 3] = ["shared", "shared::cta", "shared::cluster"];

/// Where an object lies: the rank of its block in the cluster, and its offset in that block's shared memory.
pub(super) type Place = (usize, u64);

/// The address operand of an object.
pub(super) struct Object {
    address: Address,
    /// Whether it may lie in another block of the cluster.
    remote: bool,
}

impl Object {
    /// Operand `index`. Without a state space in the opcode it is a generic address.
    pub fn decode(operands: &Operands, index: usize, space: Option<&str>, remote: bool) -> Result<Self, DecodeError> {
        let address = Address::decode(operands, index, space.map(|_| Space::Shared))?;
        Ok(Self { address, remote })
    }

    /// Every active lane's place; of no meaning for the others.
    pub fn places(&self, context: &mut Context) -> Result<[Place; LANES], Fault> {
        let addresses = self.address.resolve(context)?;
        let mut places = [(0, 0); LANES];
        for lane in context.lanes() {
            context.lane = lane;
            let (space, address) = addresses[lane];
            if space != Space::Shared {
                let space = SpaceName(space);
                return Err(Fault::Mbarrier(format!("{space} address {address:#x}: objects lie in shared memory")));
            }
            let target = Target { lane, space, address, strong: true };
            target.aligned("mbarrier", MBARRIER_BYTES)?;
            let (rank, offset) = target.block(context, "mbarrier", MBARRIER_BYTES)?;
            if rank != context.rank && !self.remote {
                let why = "of objects in other blocks' memory only arrivals and counts of bytes are allowed";
                return Err(Fault::Mbarrier(format!("{offset:#x} of the cluster's block {rank}: {why}")));
            }
            // Bounds.
            context.cluster.blocks[rank].shared.peek(offset, &mut [0; MBARRIER_BYTES])?;
            places[lane] = (rank, offset);
        }
        Ok(places)
    }
}

/// The object at a place.
pub(super) fn object_at(cluster: &mut Cluster, (rank, offset): Place) -> Result<&mut Mbarrier, Fault> {
    let object = cluster.blocks[rank].mbarriers.get_mut(&offset);
    object.ok_or_else(|| {
        Fault::Mbarrier(format!("there is no object at shared address {offset:#x}: none was initialised"))
    })
}

/// Reports a use of an object that is not ordered behind its initialisation.
pub(super) fn check_order(context: &mut Context, place: Place, lane: usize) -> Result<(), Fault> {
    object_at(context.cluster, place)?;
    let (actor, (rank, offset)) = (context.actor(), place);
    if context.grid.checked
        && let Some(fault) = context.cluster.unordered_use(actor, rank, offset)
    {
        context.find(fault, lane);
    }
    Ok(())
}
