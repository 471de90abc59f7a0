//! Tensor copies between global and shared memory in tile mode, reductions and prefetches: `cp.async.bulk.tensor`,
//! `cp.reduce.async.bulk.tensor` and `cp.async.bulk.prefetch.tensor` (PTX ISA 9.7.9.25.5).
//!
//! Each lane that executes one issues an operation of its own; kernels let a single thread do it. The source is read
//! when it is issued. The bytes of a load arrive when somebody waits for the `mbarrier` that it completes on, which is
//! told of all bytes of the box, those outside of the tensor included; those of a store when its bulk group is waited for.
//!
//! The tensor map comes from [`crate::tensor_map`], by its generic address in parameter, constant or global memory.
//! A map in global memory that a kernel writes needs `fence.proxy.tensormap`, which the checker does not ask for.

use super::access::Address;
use super::bulk_operand::{Completion, issuer, mask_operand, ranks, receives, shared_side, take};
use super::policy::policy;
use super::reduction::Operation;
use super::tensor_box::TensorBox;
use super::tensor_operand::{TensorOperand, aligned, length};
use super::traffic::{count_bulk, sectors};
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Delivery, Flight, Merge, Outcome, Place, Signal, Source};
use crate::fault::{Fault, SpaceName};
use crate::isa::Decoded;
use crate::meter::{Class, Path};
use crate::tensor_map::{DataType, Tiled};

/// Load modes and other parts that are known and left out.
const LEFT_OUT: [&str; 8] = [
    "tile::gather4",
    "tile::scatter4",
    "im2col",
    "im2col::w",
    "im2col::w::128",
    "im2col_no_offs",
    "cta_group::1",
    "cta_group::2",
];

/// What stands behind `tensor` in an opcode: the dimensions first, the rest in any order, as ptxas takes it and the ISA's
/// examples have it.
#[derive(Default)]
struct Parts<'a> {
    /// Dimensions of the tensor.
    rank: usize,
    /// Destination and source.
    spaces: Vec<&'a str>,
    completion: Option<&'a str>,
    reduction: Option<Operation>,
    multicast: bool,
}

impl<'a> Parts<'a> {
    fn decode(operands: &Operands, parts: &[&'a str]) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for (i, &part) in parts.iter().enumerate() {
            if parts[..i].contains(&part) {
                return operands.error(format!("`.{part}` stands twice"));
            }
            match part {
                "1d" | "2d" | "3d" | "4d" | "5d" if i == 0 => found.rank = usize::from(part.as_bytes()[0] - b'0'),
                "shared::cta" | "shared::cluster" | "global" | "L2" => found.spaces.push(part),
                "mbarrier::complete_tx::bytes" | "bulk_group" if found.completion.is_none() => {
                    found.completion = Some(part);
                }
                "add" | "min" | "max" | "inc" | "dec" | "and" | "or" | "xor" if found.reduction.is_none() => {
                    found.reduction = Operation::from_name(part);
                }
                "multicast::cluster" => found.multicast = true,
                "tile" | "L2::cache_hint" => {}
                _ if LEFT_OUT.contains(&part) => return operands.error(format!("`.{part}` is not supported")),
                _ => return operands.error(format!("unknown part `.{part}`")),
            }
        }
        if found.rank == 0 {
            return operands.error("expected `.1d` to `.5d` behind `.tensor`");
        }
        Ok(found)
    }

    /// Checks the number of operands, of which the cache policy is one more, and the last.
    fn count(operands: &Operands, count: usize) -> Result<(), DecodeError> {
        let hinted = usize::from(operands.has("L2::cache_hint"));
        operands.count(count + hinted, count + hinted)?;
        policy(operands, count)
    }
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let (parts, reduces, prefetches) = match (operands.root(), parts.as_slice()) {
        ("cp", ["async", "bulk", "tensor", rest @ ..]) => (rest, false, false),
        ("cp", ["reduce", "async", "bulk", "tensor", rest @ ..]) => (rest, true, false),
        ("cp", ["async", "bulk", "prefetch", "tensor", rest @ ..]) => (rest, false, true),
        _ => return Ok(None),
    };
    let parts = Parts::decode(operands, parts)?;
    if reduces != parts.reduction.is_some() {
        return operands.error(if reduces { "expected an operation" } else { "only reductions have an operation" });
    }
    match (parts.spaces.as_slice(), parts.completion) {
        (["L2", "global"], None) if prefetches && !parts.multicast => {
            Parts::count(operands, 1)?;
            let tensor = TensorOperand::decode(operands, 0, parts.rank)?;
            // A hint; there has to be a tensor map all the same.
            run(move |context, lane| tensor.read(context, lane).map(|_| ()))
        }
        _ if prefetches => operands.error("no such prefetch"),
        (["shared::cta" | "shared::cluster", "global"], Some("mbarrier::complete_tx::bytes")) if !reduces => {
            let load = Load::decode(operands, &parts)?;
            run(move |context, lane| load.issue(context, lane))
        }
        (["global", "shared::cta"], Some("bulk_group")) if !parts.multicast => {
            let store = Store::decode(operands, &parts)?;
            run(move |context, lane| store.issue(context, lane))
        }
        _ => operands.error("no such tensor copy"),
    }
}

/// An instruction that each lane executes for itself.
fn run(issue: impl Fn(&mut Context, usize) -> Result<(), Fault> + Send + Sync + 'static) -> Decoded {
    let all = move |context: &mut Context| {
        for lane in context.lanes() {
            context.lane = lane;
            issue(context, lane)?;
        }
        Ok(Outcome::Next)
    };
    Ok(Some((Class::Copy, Box::new(all))))
}

/// From global to shared memory.
struct Load {
    target: Address,
    tensor: TensorOperand,
    completion: Completion,
    /// The blocks of the cluster that get the box; without it the block that the target lies in.
    blocks: Option<Source>,
    /// Whether the target has to be in the block's own memory.
    own: bool,
}

impl Load {
    fn decode(operands: &Operands, parts: &Parts) -> Result<Self, DecodeError> {
        let own = parts.spaces[0] == "shared::cta";
        if own && parts.multicast {
            return operands.error("`.multicast::cluster` is for `.shared::cluster`");
        }
        Parts::count(operands, 3 + usize::from(parts.multicast))?;
        Ok(Self {
            target: Address::decode(operands, 0, Some(Space::Shared))?,
            tensor: TensorOperand::decode(operands, 1, parts.rank)?,
            completion: Completion::decode(operands, 2)?,
            blocks: if parts.multicast { Some(mask_operand(operands, 3)?) } else { None },
            own,
        })
    }

    fn issue(&self, context: &mut Context, lane: usize) -> Result<(), Fault> {
        let (map, coordinates) = self.tensor.read(context, lane)?;
        let tensor_box = TensorBox::new(&map, &coordinates);
        let (address, size) = (self.target.lanes(context)[lane], length(tensor_box.bytes()));
        aligned(address, tensor_box.bytes())?;
        let (rank, offset) = shared_side(context, lane, address, size)?;
        if self.own && rank != context.rank {
            return Err(Fault::Trap(format!("`.shared::cta` address {address:#x} is of the cluster's block {rank}")));
        }
        let mbarrier = self.completion.offset(context, lane, rank)?;
        let targets = match self.blocks {
            Some(mask) => ranks(context, lane, mask)?,
            None => vec![rank],
        };
        let bytes = tensor_box.swizzle(offset, &load(context, lane, &tensor_box)?);
        let access = issuer(context, lane);
        for rank in targets {
            receives(context, rank, mbarrier)?;
            let (shared, clocks) = context.cluster.shared(rank);
            if let Some(fault) = shared.begin_copy(clocks, access, offset, size)? {
                context.find(fault, lane);
            }
            count_bulk(context, Path::BulkSharedWrite, size as u64, 0);
            if rank != context.rank {
                count_bulk(context, Path::RemoteWrite, size as u64, 0);
            }
            // A flight for each block: a box arrives where its own `mbarrier` is waited for, and not before.
            let signal = Some(Signal { rank, offset: mbarrier, bytes: size as u32 });
            let place = Place::Shared { rank, offset };
            let deliveries = vec![Delivery { place, bytes: bytes.clone(), merge: None }];
            context.cluster.depart(Flight { access, sources: Vec::new(), deliveries, signal })?;
        }
        Ok(())
    }
}

/// The elements of a box from global memory, in order, with the fill of those that lie outside of the tensor.
fn load(context: &mut Context, lane: usize, tensor_box: &TensorBox) -> Result<Vec<u8>, Fault> {
    let fill = tensor_box.fill();
    let mut bytes = fill.repeat(length(tensor_box.bytes()) / fill.len());
    let (mut read, mut touched) = (0, 0);
    for row in tensor_box.rows().filter(|row| row.inside > 0) {
        let inside = &mut bytes[row.start + row.before..][..row.inside];
        let place = context.grid.memory.find("tensor copy", row.address, row.inside)?;
        place.read(inside);
        if context.grid.checked && !place.is_written(row.inside) {
            let (space, address, size) = (SpaceName(Space::Global), row.address, row.inside);
            context.find(Fault::Uninitialised { space, address, size }, lane);
        }
        tensor_box.convert(inside);
        read += row.inside as u64;
        touched += sectors(row.address, row.inside);
    }
    count_bulk(context, Path::BulkGlobalRead, read, touched);
    Ok(bytes)
}

/// From the block's shared memory to global memory, or into what is there.
struct Store {
    tensor: TensorOperand,
    source: Address,
    reduction: Option<Operation>,
}

impl Store {
    fn decode(operands: &Operands, parts: &Parts) -> Result<Self, DecodeError> {
        Parts::count(operands, 2)?;
        Ok(Self {
            tensor: TensorOperand::decode(operands, 0, parts.rank)?,
            source: Address::decode(operands, 1, Some(Space::Shared))?,
            reduction: parts.reduction,
        })
    }

    fn issue(&self, context: &mut Context, lane: usize) -> Result<(), Fault> {
        let (map, coordinates) = self.tensor.read(context, lane)?;
        if coordinates.iter().any(|coordinate| *coordinate < 0) {
            let why = "which the ISA does not define (PTX ISA 9.7.9.25.5.1)";
            return Err(Fault::Trap(format!("a tensor store at coordinates {coordinates:?}, {why}")));
        }
        let merge = self.reduction.map(|operation| merge(operation, &map)).transpose()?;
        let tensor_box = TensorBox::new(&map, &coordinates);
        if tensor_box.converts() {
            let name = map.data_type.name();
            return Err(Fault::Trap(format!("a tensor store of {name}, whose conversion the ISA does not describe")));
        }
        let (address, size) = (self.source.lanes(context)[lane], length(tensor_box.bytes()));
        aligned(address, tensor_box.bytes())?;
        let (offset, bytes) = take(context, lane, address, size)?;
        let bytes = tensor_box.swizzle(offset, &bytes);
        let deliveries = store(context, lane, &tensor_box, &bytes, merge.as_ref())?;
        let (access, sources) = (issuer(context, lane), vec![(context.rank, offset, size)]);
        let flight = context.cluster.depart(Flight { access, sources, deliveries, signal: None })?;
        context.warp.bulk.issue(lane, flight);
        Ok(())
    }
}

/// What goes to global memory: of each row of the box the part inside of the tensor, whose place is looked at now.
fn store(
    context: &mut Context,
    lane: usize,
    tensor_box: &TensorBox,
    bytes: &[u8],
    merge: Option<&Merge>,
) -> Result<Vec<Delivery>, Fault> {
    let (mut deliveries, mut written, mut touched) = (Vec::new(), 0, 0);
    for row in tensor_box.rows().filter(|row| row.inside > 0) {
        let (address, size) = (row.address, row.inside);
        let place = context.grid.memory.find("tensor copy", address, size)?;
        if merge.is_some() && context.grid.checked && !place.is_written(size) {
            context.find(Fault::Uninitialised { space: SpaceName(Space::Global), address, size }, lane);
        }
        written += size as u64;
        touched += sectors(address, size);
        let bytes = bytes[row.start + row.before..][..size].to_vec();
        deliveries.push(Delivery { place: Place::Global { address }, bytes, merge: merge.cloned() });
    }
    count_bulk(context, Path::BulkGlobalWrite, written, touched);
    Ok(deliveries)
}

/// A reduction of a tensor's elements (the table of section 9.7.9.25.5.3). Sums of f32 flush subnormals, as those of
/// `cp.reduce.async.bulk` do (9.7.9.25.4.2), for which the ISA has no word here.
fn merge(operation: Operation, map: &Tiled) -> Result<Merge, Fault> {
    use DataType::{Bf16, F16, F32, S32, S64, U32, U64};
    let ty = match (operation, map.data_type) {
        (Operation::Add | Operation::Min | Operation::Max, U32) | (Operation::Inc | Operation::Dec, U32) => Type::U32,
        (Operation::Add | Operation::Min | Operation::Max, S32) => Type::S32,
        (Operation::Add | Operation::Min | Operation::Max, U64) => Type::U64,
        (Operation::Min | Operation::Max, S64) => Type::S64,
        (Operation::Add | Operation::Min | Operation::Max, F16) => Type::F16,
        (Operation::Add | Operation::Min | Operation::Max, Bf16) => Type::Bf16,
        (Operation::Add, F32) => Type::F32,
        (Operation::And | Operation::Or | Operation::Xor, U32 | S32) => Type::B32,
        (Operation::And | Operation::Or | Operation::Xor, U64 | S64) => Type::B64,
        (_, ty) => return Err(Fault::Trap(format!("there is no such reduction of a tensor of {}", ty.name()))),
    };
    Ok(operation.merge(ty, ty == Type::F32))
}
