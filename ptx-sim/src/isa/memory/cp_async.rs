//! `cp.async`: asynchronous copies from global to shared memory, in groups (PTX ISA 9.7.9.25.3).
//!
//! A copy reads its source when it is issued and writes its destination when it is waited for, the latest time that
//! the ISA allows: a kernel that does not wait sees old bytes.

use super::access::Address;
use super::memory::is_hint;
use super::policy::policy;
use super::traffic::{count_sectors, count_shared};
use crate::ast::{Operand, Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Source, Target, Transfer, WIDEST_COPY};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::{Class, Path};

/// How much of the source is read; the rest of the destination becomes zero.
enum Extent {
    Whole,
    Bytes(Source),
    /// Nothing where the predicate holds.
    Unless {
        predicate: usize,
        negated: bool,
    },
}

struct Form {
    target: Address,
    source: Address,
    size: usize,
    extent: Extent,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts: Vec<&str> = operands.modifiers().collect();
    match (operands.root(), parts.as_slice()) {
        ("cp", ["async", "commit_group"]) => {
            operands.count(0, 0)?;
            Ok(Some((
                Class::Copy,
                Box::new(|context| {
                    commit(context);
                    Ok(Outcome::Next)
                }),
            )))
        }
        ("cp", ["async", "wait_group"]) => {
            operands.count(1, 1)?;
            let Operand::Integer(left) = *operands.operand(0)? else { return operands.error("expected a number") };
            Ok(Some((Class::Copy, Box::new(move |context| wait(context, left)))))
        }
        ("cp", ["async", "wait_all"]) => {
            operands.count(0, 0)?;
            Ok(Some((
                Class::Copy,
                Box::new(|context| {
                    commit(context);
                    wait(context, 0)
                }),
            )))
        }
        ("cp", ["async", "ca" | "cg", "shared" | "shared::cta", "global", hints @ ..]) => {
            if let Some(unknown) = hints.iter().find(|hint| !is_hint(hint)) {
                return operands.error(format!("unknown part `.{unknown}`"));
            }
            let form = Form::decode(operands)?;
            Ok(Some((Class::Copy, Box::new(move |context| form.issue(context)))))
        }
        _ => Ok(None),
    }
}

/// The operand that says how many bytes of the source are read, at most `size`.
fn source_size(operands: &Operands, size: u64) -> Result<Source, DecodeError> {
    match operands.constant(3) {
        Some(bytes) if bytes > size => operands.error(format!("{} bytes of a source of {size}", bytes as i64)),
        _ => operands.agreeing(3, Type::U32),
    }
}

/// Makes a group of what each lane has issued since the last one.
fn commit(context: &mut Context) {
    let actor = context.actor();
    context.lanes().for_each(|lane| context.cluster.commit_copies(actor, lane));
}

/// Waits until at most `left` of each lane's groups are in flight.
fn wait(context: &mut Context, left: u64) -> Result<Outcome, Fault> {
    let actor = context.actor();
    for lane in context.lanes() {
        context.cluster.wait_for_copies(actor, lane, left)?;
    }
    Ok(Outcome::Next)
}

impl Form {
    fn decode(operands: &Operands) -> Result<Self, DecodeError> {
        let hinted = usize::from(operands.has("L2::cache_hint"));
        let count = operands.count(3, 4 + hinted)?;
        let Operand::Integer(size) = *operands.operand(2)? else { return operands.error("expected a size") };
        match (size, operands.has("cg")) {
            (16, _) | (4 | 8, false) => {}
            _ => return operands.error(format!("cannot copy {size} bytes")),
        }
        policy(operands, count - 1)?;
        let extent = match count - hinted {
            3 => Extent::Whole,
            _ => match operands.predicate(operands.operand(3)?) {
                Ok((predicate, negated)) => Extent::Unless { predicate, negated },
                Err(_) => Extent::Bytes(source_size(operands, size)?),
            },
        };
        Ok(Self {
            target: Address::decode(operands, 0, Some(Space::Shared))?,
            source: Address::decode(operands, 1, Some(Space::Global))?,
            size: size as usize,
            extent,
        })
    }

    /// Bytes that each lane reads.
    fn read_sizes(&self, context: &Context) -> [usize; LANES] {
        match self.extent {
            Extent::Whole => [self.size; LANES],
            Extent::Bytes(source) => context.read(source).map(|bytes| bytes as u32 as usize),
            Extent::Unless { predicate, negated } => {
                let ignored = context.predicate(predicate, negated);
                std::array::from_fn(|lane| if ignored >> lane & 1 == 1 { 0 } else { self.size })
            }
        }
    }

    fn issue(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let sizes = self.read_sizes(context);
        let targets = self.target.resolve(context)?.map(|(_, address)| address);
        let sources = self.source.lanes(context);
        let (mask, size) = (context.mask, self.size);
        count_shared(context, Path::CopySharedWrite, &targets, mask, size);
        let reading = context.lanes().filter(|&lane| sizes[lane] > 0).fold(0, |mask, lane| mask | 1 << lane);
        if reading != 0 {
            count_sectors(context, Path::CopyGlobalRead, &sources, reading, size, 4);
            let unread: usize = context.lanes().filter(|&l| sizes[l] > 0).map(|l| size.saturating_sub(sizes[l])).sum();
            context.ledger.meter.traffic(Path::CopyGlobalRead).bytes -= unread as u64;
        }
        for lane in context.lanes() {
            context.lane = lane;
            if sizes[lane] > size {
                return Err(Fault::Trap(format!("cp.async of {size} bytes with a source of {}", sizes[lane])));
            }
            let mut bytes = [0; WIDEST_COPY];
            if sizes[lane] > 0 {
                let source = Target { lane, space: Space::Global, address: sources[lane], strong: false };
                source.aligned("asynchronous copy", size)?;
                let place = context.grid.memory.find("asynchronous copy", source.address, sizes[lane])?;
                place.read(&mut bytes[..sizes[lane]]);
                if context.grid.checked && !place.is_written(sizes[lane]) {
                    source.uninitialised(context, sizes[lane]);
                }
            }
            let target = Target { lane, space: Space::Shared, address: targets[lane], strong: false };
            target.aligned("asynchronous copy", size)?;
            let access = target.access(context);
            let (rank, offset) = target.block(context, "asynchronous copy", size)?;
            let (shared, clocks) = context.cluster.shared(rank);
            let found = shared.begin_copy(clocks, access, offset, size)?;
            target.find(context, found);
            let actor = context.actor();
            context.cluster.issue_copy(actor, lane, Transfer { access, rank, offset, bytes, size })?;
        }
        Ok(Outcome::Next)
    }
}
