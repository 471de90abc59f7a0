//! Bulk copies and prefetches without tensor maps: `cp.async.bulk` and `cp.async.bulk.prefetch` (PTX ISA 9.7.9.25.4).
//!
//! Each lane that executes one issues an operation of its own; kernels let a single thread do it. The source is read
//! when it is issued. The bytes arrive when somebody waits for the `mbarrier` or the bulk group that they complete on.
//!
//! Of the ISA's forms those with `.cp_mask`, which needs sm_100, and `.ignore_oob` are left out.

use super::access::Address;
use super::bulk_operand::{Completion, aligned, issuer, load, own_side, policy, ranks, receives};
use super::bulk_operand::{shared_side, size, size_operand, take};
use super::traffic::{count_bulk, sectors};
use crate::ast::{Space, Type};
use crate::clocks::{Access, Knowledge};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Delivery, Flight, Outcome, Place, Signal, Source};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::{Class, Path};

/// The completion mechanism of operations that write shared memory.
const MBARRIER: &str = "mbarrier::complete_tx::bytes";

/// Where a copy brings its bytes.
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

/// A copy.
struct Transfer {
    target: Target,
    to: Address,
    /// Global memory, or else the block's own shared memory.
    from_global: bool,
    from: Address,
    size: Source,
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
        ("cp", ["async", "bulk", ..]) => {
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
        _ if multicast => Reach::Several(operands.source(4, Type::U16)?),
        ("shared::cta", ..) => Reach::Own,
        (_, "global", _) => Reach::Any,
        // "The destination has to be in the shared memory of a different CTA within the cluster" (9.7.9.25.4.1).
        _ => Reach::Other,
    };
    Transfer::decode(operands, (!to_global).then_some(reach), from_global)
}

impl Transfer {
    /// The operands; `reach` is `None` for global memory.
    fn decode(operands: &Operands, reach: Option<Reach>, from_global: bool) -> Result<Self, DecodeError> {
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
                let delivery = Self::to_global(context, to, bytes)?;
                let issued = Knowledge::default();
                let flight = context.cluster.depart(Flight { access, issued, sources, deliveries: vec![delivery] });
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
        let mut issued = Knowledge::default();
        context.cluster.clocks.release(access.actor(), &mut issued);
        for rank in targets {
            receives(context, rank, signal)?;
            Self::announce(context, access, (rank, offset), size)?;
            // An operation of its own for each block: bytes arrive where their `mbarrier` is waited for, not before.
            let signal = Some(Signal { rank, offset: signal, bytes: size as u32 });
            let place = Place::Shared { rank, offset };
            let delivery = Delivery { place, bytes: bytes.clone(), merge: None, signal };
            let (issued, sources) = (issued.clone(), sources.clone());
            context.cluster.depart(Flight { access, issued, sources, deliveries: vec![delivery] });
        }
        Ok(())
    }

    /// Bytes for global memory, whose place is looked at now.
    fn to_global(context: &mut Context, address: u64, bytes: Vec<u8>) -> Result<Delivery, Fault> {
        let size = bytes.len();
        aligned(Space::Global, address, size)?;
        context.grid.memory.find("bulk write", address, size)?;
        count_bulk(context, Path::BulkGlobalWrite, size as u64, sectors(address, size));
        Ok(Delivery { place: Place::Global { address }, bytes, merge: None, signal: None })
    }

    /// Tells checker and meter that bytes are on their way to a block's shared memory.
    fn announce(context: &mut Context, access: Access, (rank, offset): (usize, u64), size: usize) -> Result<(), Fault> {
        let (shared, clocks) = context.cluster.shared(rank);
        if let Some(fault) = shared.begin_copy(clocks, access, offset, size)? {
            context.find(fault, context.lane);
        }
        count_bulk(context, Path::BulkSharedWrite, size as u64, 0);
        if rank != context.rank {
            count_bulk(context, Path::RemoteWrite, size as u64, 0);
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
