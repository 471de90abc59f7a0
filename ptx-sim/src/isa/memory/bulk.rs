//! Bulk copies, reductions and prefetches without tensor maps: `cp.async.bulk`, `cp.reduce.async.bulk` and
//! `cp.async.bulk.prefetch` (PTX ISA 9.7.9.25.4).
//!
//! Each lane that executes one issues an operation of its own; kernels let a single thread do it. The source is read
//! when it is issued. The bytes arrive when somebody waits for the `mbarrier` or the bulk group that they complete on.
//! Who has waited knows of these bytes, and not of what the issuing thread did before (PTX ISA section 8.9.1.1).
//!
//! Of the ISA's forms those with `.cp_mask`, which needs sm_100, and `.ignore_oob` are left out.

use super::access::Address;
use super::bulk_operand::{Completion, aligned, issuer, load, mask_operand, own_side, ranks, receives};
use super::bulk_operand::{shared_side, size, size_operand, take};
use super::policy::policy;
use super::reduction::Operation;
use super::traffic::{count_bulk, sectors};
use crate::ast::{Space, Type};
use crate::clocks::Access;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Delivery, Flight, Merge, Outcome, Place, Signal, Source};
use crate::fault::{Fault, SpaceName};
use crate::isa::Decoded;
use crate::meter::{Class, Path};

/// The completion mechanism of operations that write shared memory.
const MBARRIER: &str = "mbarrier::complete_tx::bytes";

/// Where a copy or reduction brings its bytes.
enum Target {
    /// Global memory; it completes in a bulk group.
    Global,
    /// Shared memory; it completes on an `mbarrier`.
    Shared { completion: Completion, reach: Reach },
}

/// Whose shared memory.
enum Reach {
    /// The block's own.
    Own,
    /// That of a block of the cluster.
    Any,
    /// That of another block.
    Other,
    /// That of all blocks of a mask.
    Several(Source),
}

/// A copy or a reduction.
struct Transfer {
    target: Target,
    to: Address,
    /// Global memory, or else the block's own shared memory.
    from_global: bool,
    from: Address,
    size: Source,
    merge: Option<Merge>,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let transfer = match (operands.root(), parts.as_slice()) {
        ("cp", ["async", "bulk", "commit_group" | "wait_group", ..]) => return Ok(None),
        ("cp", _) if operands.has("tensor") => return Ok(None),
        ("cp", ["async", "bulk", "prefetch", rest @ ..]) => return prefetch(operands, rest),
        ("cp", ["async", "bulk", target, source, completion, rest @ ..]) => {
            copy(operands, (*target, *source, *completion), rest)?
        }
        ("cp", ["reduce", "async", "bulk", target, source, completion, rest @ ..]) => {
            reduce(operands, (*target, *source, *completion), rest)?
        }
        ("cp", ["async", "bulk", ..] | ["reduce", "async", "bulk", ..]) => {
            return operands.error("expected destination, source and completion mechanism");
        }
        _ => return Ok(None),
    };
    Ok(Some((
        Class::Copy,
        Box::new(move |context| {
            context.lanes().try_for_each(|lane| transfer.issue(context, lane))?;
            Ok(Outcome::Next)
        }),
    )))
}

/// Returns an error if a part behind the completion mechanism is not one of `known`, or stands twice.
fn only(operands: &Operands, parts: &[&str], known: &[&str]) -> Result<(), DecodeError> {
    for (i, part) in parts.iter().enumerate() {
        match *part {
            part if parts[..i].contains(&part) => return operands.error(format!("`.{part}` stands twice")),
            part if known.contains(&part) => {}
            "cp_mask" => return operands.error("`.cp_mask` needs sm_100"),
            part => return operands.error(format!("`.{part}` is not known here")),
        }
    }
    Ok(())
}

fn copy(operands: &Operands, sides: (&str, &str, &str), rest: &[&str]) -> Result<Transfer, DecodeError> {
    let multicast = rest.contains(&"multicast::cluster");
    let known: &[&str] = match sides {
        ("shared::cluster", "global", MBARRIER) => &["multicast::cluster", "L2::cache_hint"],
        ("shared::cta", "global", MBARRIER) | ("global", "shared::cta", "bulk_group") => &["L2::cache_hint"],
        ("shared::cluster", "shared::cta", MBARRIER) => &[],
        _ => return operands.error("no such bulk copy"),
    };
    only(operands, rest, known)?;
    let (to_global, from_global) = (sides.0 == "global", sides.1 == "global");
    let count = 3 + usize::from(!to_global) + usize::from(multicast);
    let hinted = usize::from(operands.has("L2::cache_hint"));
    operands.count(count + hinted, count + hinted)?;
    policy(operands, count)?;
    let reach = match sides {
        _ if multicast => Reach::Several(mask_operand(operands, 4)?),
        ("shared::cta", ..) => Reach::Own,
        (_, "global", _) => Reach::Any,
        // "The destination has to be in the shared memory of a different CTA within the cluster" (9.7.9.25.4.1).
        _ => Reach::Other,
    };
    Transfer::decode(operands, (!to_global).then_some(reach), from_global, None)
}

fn reduce(operands: &Operands, sides: (&str, &str, &str), rest: &[&str]) -> Result<Transfer, DecodeError> {
    let to_global = match sides {
        ("global", "shared::cta", "bulk_group") => true,
        ("shared::cluster", "shared::cta", MBARRIER) => false,
        _ => return operands.error("no such bulk reduction"),
    };
    let (hints, name, rounding, ty) = match rest {
        [hints @ .., name, "noftz", ty] => (hints, *name, true, *ty),
        [hints @ .., name, ty] => (hints, *name, false, *ty),
        _ => return operands.error("expected an operation and a type"),
    };
    only(operands, hints, if to_global { &["L2::cache_hint"] } else { &[] })?;
    let (Some(operation), Some(ty)) = (Operation::from_name(name), Type::from_name(ty)) else {
        return operands.error("expected an operation and a type");
    };
    if !exists(operation, ty, to_global) {
        return operands.error("no such bulk reduction");
    }
    let small = operation == Operation::Add && matches!(ty, Type::F16 | Type::Bf16);
    if rounding != small {
        return operands.error("`.noftz` is for sums of `.f16` and `.bf16`, and needed there");
    }
    let count = if to_global { 3 } else { 4 };
    let hinted = usize::from(!hints.is_empty());
    operands.count(count + hinted, count + hinted)?;
    policy(operands, count)?;
    // Sums of f32 flush subnormal operands and results (9.7.9.25.4.2).
    let merge = operation.merge(ty, ty == Type::F32);
    Transfer::decode(operands, (!to_global).then_some(Reach::Any), false, Some(merge))
}

/// The table of operations and types in section 9.7.9.25.4.2.
fn exists(operation: Operation, ty: Type, to_global: bool) -> bool {
    match operation {
        Operation::Add if matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64) => to_global,
        Operation::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64),
        Operation::Min | Operation::Max if matches!(ty, Type::U64 | Type::S64 | Type::F16 | Type::Bf16) => to_global,
        Operation::Min | Operation::Max => matches!(ty, Type::U32 | Type::S32),
        Operation::Inc | Operation::Dec => ty == Type::U32,
        Operation::And | Operation::Or | Operation::Xor => ty == Type::B32 || ty == Type::B64 && to_global,
        Operation::Exch | Operation::Cas => false,
    }
}

impl Transfer {
    /// The operands; `reach` is `None` for global memory.
    fn decode(
        operands: &Operands,
        reach: Option<Reach>,
        from_global: bool,
        merge: Option<Merge>,
    ) -> Result<Self, DecodeError> {
        let space = |global: bool| Some(if global { Space::Global } else { Space::Shared });
        Ok(Self {
            to: Address::decode(operands, 0, space(reach.is_none()))?,
            target: match reach {
                None => Target::Global,
                Some(reach) => Target::Shared { completion: Completion::decode(operands, 3)?, reach },
            },
            from_global,
            from: Address::decode(operands, 1, space(from_global))?,
            size: size_operand(operands, 2)?,
            merge,
        })
    }

    fn issue(&self, context: &mut Context, lane: usize) -> Result<(), Fault> {
        context.lane = lane;
        let size = size(context, lane, self.size)?;
        let (to, from) = (self.to.lanes(context)[lane], self.from.lanes(context)[lane]);
        let (sources, bytes) = if self.from_global {
            (Vec::new(), load(context, lane, from, size)?)
        } else {
            let (offset, bytes) = take(context, lane, from, size)?;
            (vec![(context.rank, offset, size)], bytes)
        };
        let access = issuer(context, lane);
        let (rank, offset, mbarrier) = match &self.target {
            Target::Global => {
                let deliveries = vec![self.to_global(context, lane, to, bytes)?];
                let flight = context.cluster.depart(Flight { access, sources, deliveries, signal: None })?;
                context.warp.bulk.issue(lane, flight);
                return Ok(());
            }
            Target::Shared { completion, reach: Reach::Own } => {
                (context.rank, own_side(context, lane, to, size)?, completion)
            }
            Target::Shared { completion, .. } => {
                let (rank, offset) = shared_side(context, lane, to, size)?;
                (rank, offset, completion)
            }
        };
        let signal = mbarrier.offset(context, lane, rank)?;
        let targets = match self.target {
            Target::Shared { reach: Reach::Several(mask), .. } => ranks(context, lane, mask)?,
            Target::Shared { reach: Reach::Other, .. } if rank == context.rank => {
                return Err(Fault::Trap("a bulk copy from shared memory to that of the same block".into()));
            }
            _ => vec![rank],
        };
        for rank in targets {
            receives(context, rank, signal)?;
            self.announce(context, access, (rank, offset), size)?;
            // An operation of its own for each block: bytes arrive where their `mbarrier` is waited for, not before.
            let signal = Some(Signal { rank, offset: signal, bytes: size as u32 });
            let place = Place::Shared { rank, offset };
            let deliveries = vec![Delivery { place, bytes: bytes.clone(), merge: self.merge.clone() }];
            context.cluster.depart(Flight { access, sources: sources.clone(), deliveries, signal })?;
        }
        Ok(())
    }

    /// Bytes for global memory, whose place is looked at now.
    fn to_global(&self, context: &mut Context, lane: usize, address: u64, bytes: Vec<u8>) -> Result<Delivery, Fault> {
        let size = bytes.len();
        aligned(Space::Global, address, size)?;
        let place = context.grid.memory.find("bulk write", address, size)?;
        if self.merge.is_some() && context.grid.checked && !place.is_written(size) {
            context.find(Fault::Uninitialised { space: SpaceName(Space::Global), address, size }, lane);
        }
        count_bulk(context, Path::BulkGlobalWrite, size as u64, sectors(address, size));
        Ok(Delivery { place: Place::Global { address }, bytes, merge: self.merge.clone() })
    }

    /// Tells checker and meter that bytes are on their way to a block's shared memory.
    fn announce(
        &self,
        context: &mut Context,
        access: Access,
        (rank, offset): (usize, u64),
        size: usize,
    ) -> Result<(), Fault> {
        let (shared, clocks) = context.cluster.shared(rank);
        let found = match self.merge {
            None => shared.begin_copy(clocks, access, offset, size)?,
            Some(_) => shared.begin_reduction(clocks, access, offset, size)?,
        };
        if let Some(fault) = found {
            context.find(fault, context.lane);
        }
        count_bulk(context, Path::BulkSharedWrite, size as u64, 0);
        if rank != context.rank {
            let path = if self.merge.is_some() { Path::RemoteAtomic } else { Path::RemoteWrite };
            count_bulk(context, path, size as u64, 0);
        }
        Ok(())
    }
}

/// Brings nothing but a hint: the operands have to be right, and an address out of bounds is no fault.
fn prefetch(operands: &Operands, parts: &[&str]) -> Decoded {
    let (["L2", "global"] | ["L2", "global", "L2::cache_hint"]) = parts else {
        return operands.error("no such prefetch");
    };
    let count = parts.len();
    operands.count(count, count)?;
    policy(operands, 2)?;
    let (address, bytes) = (Address::decode(operands, 0, Some(Space::Global))?, size_operand(operands, 1)?);
    Ok(Some((
        Class::Copy,
        Box::new(move |context| {
            for lane in context.lanes() {
                context.lane = lane;
                let size = size(context, lane, bytes)?;
                aligned(Space::Global, address.lanes(context)[lane], size)?;
            }
            Ok(Outcome::Next)
        }),
    )))
}
