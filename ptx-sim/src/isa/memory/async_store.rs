//! `st.async` and `red.async`: stores and reductions in the shared memory of a cluster that complete on an `mbarrier`
//! beside the data (PTX ISA 9.7.9.12 and 9.7.13.7).
//!
//! They are ordinary accesses as far as proxies go: the ISA lists neither among the operations of the asynchronous proxy
//! (9.7.9.25.2). What the thread has done before is not ordered by their completion, as with all asynchronous operations
//! that complete bytes (8.9.1.1): who waits for the bytes knows of these bytes alone.
//!
//! What the ISA leaves undefined is a fault: data and `mbarrier` in different blocks, a cluster of one block, and a
//! `red.async` on the thread's own block. The forms on global memory are of compute capability 10.0 and left out.

use super::access::Address;
use super::reduction::Operation;
use super::traffic::{Kind, count};
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Delivery, Flight, LANES, MBARRIER_BYTES, Outcome, Place, Signal, Source, Target};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

/// Most bytes that a lane stores.
const WIDEST: usize = 16;

/// What happens to the `mbarrier`, as messages name it.
const COMPLETION: &str = "completion";

const MECHANISM: &str = "mbarrier::complete_tx::bytes";

struct Form {
    name: String,
    ty: Type,
    /// `None` for a store.
    operation: Option<Operation>,
    address: Address,
    values: Vec<Source>,
    mbarrier: Address,
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let parts = operands.parts();
    let form = match (operands.root(), parts.as_slice()) {
        ("st", ["async", rest @ ..]) => Form::store(operands, rest)?,
        ("red", ["async", rest @ ..]) => Form::reduction(operands, rest)?,
        _ => return Ok(None),
    };
    let class = if form.operation.is_some() { Class::Atomic } else { Class::Memory };
    Ok(Some((class, Box::new(move |context| form.issue(context)))))
}

/// The parts that stand in any order, each at most once.
#[derive(Default)]
struct Parts<'a> {
    shared: bool,
    mechanism: bool,
    cluster: bool,
    order: Option<&'a str>,
    vector: Option<usize>,
    operation: Option<Operation>,
    ty: Option<Type>,
}

impl<'a> Parts<'a> {
    fn decode(operands: &Operands, parts: &[&'a str]) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for &part in parts {
            let fresh = match part {
                "shared::cluster" => !std::mem::replace(&mut found.shared, true),
                MECHANISM => !std::mem::replace(&mut found.mechanism, true),
                "cluster" => !std::mem::replace(&mut found.cluster, true),
                "weak" | "relaxed" => found.order.replace(part).is_none(),
                "v2" => found.vector.replace(2).is_none(),
                "v4" => found.vector.replace(4).is_none(),
                _ => match (Operation::from_name(part), Type::from_name(part)) {
                    (Some(operation), _) => found.operation.replace(operation).is_none(),
                    (None, Some(ty)) => found.ty.replace(ty).is_none(),
                    (None, None) => return operands.error(format!("unknown part `.{part}`")),
                },
            };
            if !fresh {
                return operands.error(format!("a second part of the kind of `.{part}`"));
            }
        }
        if !found.mechanism {
            return operands.error(format!("expected `.{MECHANISM}`"));
        }
        Ok(found)
    }
}

impl Form {
    fn store(operands: &Operands, parts: &[&str]) -> Result<Self, DecodeError> {
        let parts = Parts::decode(operands, parts)?;
        match parts.order {
            None => {}
            Some("weak") if !parts.cluster => {}
            Some(order) => return operands.error(format!("`.{order}` does not go with the other parts")),
        }
        let Some(ty) = parts.ty.filter(|ty| {
            use Type::{B32, B64, F32, F64, S32, S64, U32, U64};
            matches!(ty, B32 | B64 | U32 | U64 | S32 | S64 | F32 | F64)
        }) else {
            return operands.error("expected a type of 32 or 64 bits");
        };
        let vector = parts.vector.unwrap_or(1);
        if parts.operation.is_some() || vector * ty.size() > WIDEST {
            return operands.error("no such asynchronous store");
        }
        Self::decode(operands, ty, None, vector, parts.shared)
    }

    fn reduction(operands: &Operands, parts: &[&str]) -> Result<Self, DecodeError> {
        let parts = Parts::decode(operands, parts)?;
        if parts.order != Some("relaxed") || !parts.cluster {
            return operands.error("expected `.relaxed.cluster`");
        }
        let (Some(operation), Some(ty)) = (parts.operation, parts.ty) else {
            return operands.error("expected an operation and a type");
        };
        let known = match operation {
            Operation::Inc | Operation::Dec => ty == Type::U32,
            Operation::Min | Operation::Max => matches!(ty, Type::U32 | Type::S32),
            Operation::And | Operation::Or | Operation::Xor => ty == Type::B32,
            // ptxas takes `.s64` too, which the ISA's table does not have; the sum is the same.
            Operation::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64),
            Operation::Exch | Operation::Cas => false,
        };
        if !known || parts.vector.is_some() {
            return operands.error("no such asynchronous reduction");
        }
        Self::decode(operands, ty, Some(operation), 1, parts.shared)
    }

    fn decode(
        operands: &Operands,
        ty: Type,
        operation: Option<Operation>,
        vector: usize,
        shared: bool,
    ) -> Result<Self, DecodeError> {
        operands.count(3, 3)?;
        let space = shared.then_some(Space::Shared);
        let elements = operands.elements(1)?;
        if elements.len() != vector {
            return operands.error(format!("expected {vector} values, found {}", elements.len()));
        }
        Ok(Self {
            name: operands.instruction.name(),
            ty,
            operation,
            address: Address::decode(operands, 0, space)?,
            values: elements.iter().map(|value| operands.agreeing_value(value, ty)).collect::<Result<_, _>>()?,
            mbarrier: Address::decode(operands, 2, space)?,
        })
    }

    fn size(&self) -> usize {
        self.ty.size() * self.values.len()
    }

    fn issue(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let (places, mbarriers) = (self.address.resolve(context)?, self.mbarrier.resolve(context)?);
        let kind = if self.operation.is_some() { Kind::Atomic } else { Kind::Write };
        count(context, kind, &places, self.size());
        let mut bytes = vec![Vec::new(); LANES];
        for source in &self.values {
            let values = context.read(*source);
            let element = |value: u64| value.to_le_bytes().into_iter().take(self.ty.size());
            bytes.iter_mut().zip(values).for_each(|(bytes, value)| bytes.extend(element(value)));
        }
        for lane in context.lanes() {
            context.lane = lane;
            self.depart(context, lane, [places[lane], mbarriers[lane]], std::mem::take(&mut bytes[lane]))?;
        }
        Ok(Outcome::Next)
    }

    /// Puts the bytes of a lane on their way to the first of the places; they complete on the second.
    fn depart(
        &self,
        context: &mut Context,
        lane: usize,
        places: [(Space, u64); 2],
        bytes: Vec<u8>,
    ) -> Result<(), Fault> {
        let undefined = |why: String| Err(Fault::Trap(format!("`{}`: {why}", self.name)));
        if context.cluster.blocks.len() == 1 {
            return undefined("a cluster of one block".into());
        }
        if let Some((_, address)) = places.iter().find(|(space, _)| *space != Space::Shared) {
            return undefined(format!("{address:#x} is no address of shared memory"));
        }
        let strong = self.operation.is_some();
        let [target, mbarrier] = places.map(|(space, address)| Target { lane, space, address, strong });
        target.aligned(self.action(), self.size())?;
        mbarrier.aligned(COMPLETION, MBARRIER_BYTES)?;
        let (rank, offset) = target.block(context, self.action(), self.size())?;
        let (of, at) = mbarrier.block(context, COMPLETION, MBARRIER_BYTES)?;
        if of != rank {
            return undefined(format!("data of the cluster's block {rank} complete on an mbarrier of block {of}"));
        }
        if strong && rank == context.rank {
            return undefined("a reduction in the thread's own block".into());
        }
        if !context.cluster.blocks[rank].mbarriers.contains_key(&at) {
            let why = format!("the operation completes on {at:#x} of the cluster's block {rank}, where there is none");
            return Err(Fault::Mbarrier(why));
        }
        let access = target.access(context);
        let unordered = context.cluster.unordered_use(access.actor(), rank, at);
        mbarrier.find(context, unordered.filter(|_| context.grid.checked));
        let (shared, clocks) = context.cluster.shared(rank);
        let found = match self.operation {
            None => shared.begin_copy(clocks, access, offset, bytes.len())?,
            Some(_) => shared.begin_reduction(clocks, access, offset, bytes.len())?,
        };
        target.find(context, found);
        let signal = Signal { rank, offset: at, bytes: bytes.len() as u32 };
        let place = Place::Shared { rank, offset };
        let merge = self.operation.map(|operation| operation.merge(self.ty, false));
        let deliveries = vec![Delivery { place, bytes, merge }];
        context.cluster.depart(Flight { access, sources: Vec::new(), deliveries, signal: Some(signal) })?;
        Ok(())
    }

    fn action(&self) -> &'static str {
        if self.operation.is_some() { "asynchronous reduction" } else { "asynchronous store" }
    }
}
