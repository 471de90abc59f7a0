//! `wgmma`: products of matrices by four warps together, asynchronously (PTX ISA section 9.7.15).
//!
//! Each warp computes its 16 of the 64 rows of D when it issues, and keeps them to itself until it has waited:
//! `exec/products.rs`. What the four warps have in common is in `exec/warpgroup.rs`. What is defined and what is
//! chosen here:
//! - Arithmetic is that of `mma`, see `wgmma_multiply`: the ISA leaves order, rounding and subnormals open.
//! - Shared memory is read when a product is issued: of A by descriptor each warp reads its own rows, of B all. Nobody
//!   may write there before a `wgmma.wait_group` says that the product is complete.
//! - Of integers there is N up to 256: the ISA's syntax ends at 224, its list of shapes and ptxas have 240 and 256, too.
//!   `.satfinite` may stand in front of the types or behind them, as ptxas has it.
//! - `scale-d` has to be the same in all lanes of a warp: hardware takes it from a uniform predicate.
//! - What the ISA calls undefined is a fault where it leaves nothing to compute with (a malformed descriptor, warps that
//!   do not execute the same), and otherwise what the checker finds.

use std::sync::Arc;

use super::wgmma_descriptor::{Descriptor, Major, UNIT, UNITS, pieces};
use super::wgmma_multiply::{Accumulator, ROWS, multiply};
use super::wgmma_type::Product;
use crate::ast::{Operand, Type};
use crate::clocks::{Access, Clocks};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Run, Shape, Source, WARPS, Warpgroup};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::isa::sync::converge::{synchronise, whole_warp};
use crate::meter::{Class, Path};
use crate::shared::SharedMemory;

/// Registers of A.
const A_REGISTERS: usize = 4;

/// Cores along k of every operand: 32 bytes of it, or 16 elements of 16 bits.
const STEPS: usize = 2;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "wgmma" {
        return Ok(None);
    }
    let what = operands.instruction.name();
    let (class, run): (Class, Run) = match operands.parts()[..] {
        ["fence", "sync", "aligned"] => {
            operands.count(0, 0)?;
            let fence = |context: &mut Context, _| {
                context.warp.products.fence();
                Ok(Outcome::Next)
            };
            (Class::Barrier, Box::new(move |context| together(context, &what, [None; 2], fence)))
        }
        ["commit_group", "sync", "aligned"] => {
            operands.count(0, 0)?;
            (Class::Barrier, Box::new(move |context| together(context, &what, [None; 2], commit)))
        }
        ["wait_group", "sync", "aligned"] => {
            operands.count(1, 1)?;
            let pending = match *operands.operand(0)? {
                Operand::Integer(pending) if i32::try_from(pending).is_ok() => pending,
                _ => return operands.error("expected a number of groups"),
            };
            (Class::Barrier, Box::new(move |context| wait(context, &what, pending)))
        }
        ["mma_async", "sp", ..] => return operands.error("sparse products are not known"),
        ["mma_async", "sync", "aligned", ref rest @ ..] => {
            let form = Form::decode(operands, Product::decode(operands, rest)?)?;
            (Class::Mma, Box::new(move |context| form.issue(context)))
        }
        _ => return operands.error("expected `.fence`, `.mma_async`, `.commit_group` or `.wait_group`"),
    };
    Ok(Some((class, run)))
}

/// This warp's warpgroup and its number there.
fn warpgroup(context: &Context) -> (usize, usize) {
    (context.warp.index / WARPS, context.warp.index % WARPS)
}

/// The warpgroup, the block's shared memory and the clocks.
fn parts<'a>(context: &'a mut Context, index: usize) -> (&'a mut Warpgroup, &'a mut SharedMemory, &'a mut Clocks) {
    let (block, clocks) = context.cluster.block(context.rank);
    let group = block.warpgroups.entry(index).or_insert_with(|| Warpgroup::new(clocks));
    (group, &mut block.shared, clocks)
}

/// Whether the whole warp is there, and its warpgroup has four warps.
fn complete(context: &Context, what: &str) -> Result<bool, Fault> {
    let (group, _) = warpgroup(context);
    let warps = context.cluster.blocks[context.rank].live.len();
    if WARPS * (group + 1) > warps {
        return Err(Fault::Wgmma(format!(
            "warpgroup {group} of the block has {} warps, and not {WARPS}",
            warps - WARPS * group
        )));
    }
    whole_warp(context, what)
}

/// Executes `run` with the instruction's number, if the warp may go on as one of its warpgroup.
fn together(
    context: &mut Context,
    what: &str,
    descriptors: [Option<u64>; 2],
    run: impl Fn(&mut Context, u64) -> Result<Outcome, Fault>,
) -> Result<Outcome, Fault> {
    if !complete(context, what)? {
        return Ok(Outcome::Wait);
    }
    let ((index, warp), at, line) = (warpgroup(context), context.at, context.line);
    let Some(number) = parts(context, index).0.execute(warp, at, line, descriptors)? else {
        return Ok(Outcome::Wait);
    };
    synchronise(context);
    let outcome = run(context, number)?;
    parts(context, index).0.forget();
    Ok(outcome)
}

fn commit(context: &mut Context, _: u64) -> Result<Outcome, Fault> {
    let (index, warp) = warpgroup(context);
    parts(context, index).0.commit(warp);
    let before = context.warp.products.held_bytes();
    context.warp.products.commit();
    context.cluster.hold(before, context.warp.products.held_bytes())?;
    Ok(Outcome::Next)
}

fn wait(context: &mut Context, what: &str, pending: u64) -> Result<Outcome, Fault> {
    if !complete(context, what)? {
        return Ok(Outcome::Wait);
    }
    let ((index, warp), actor) = (warpgroup(context), context.actor());
    let live = &context.cluster.blocks[context.rank].live[WARPS * index..];
    let exited = std::array::from_fn(|other| live[other] == 0);
    let (group, shared, clocks) = parts(context, index);
    let before = group.held_bytes();
    if !group.wait(warp, pending, exited, shared, clocks, actor)? {
        return Ok(Outcome::Wait);
    }
    let after = group.held_bytes();
    context.cluster.hold(before, after)?;
    together(context, what, [None; 2], |context, _| {
        let (depth, before) = (context.depth, context.warp.products.held_bytes());
        let found = context.warp.products.wait(pending, depth, &mut context.warp.frames)?;
        context.cluster.hold(before, context.warp.products.held_bytes())?;
        if context.grid.checked
            && let Some(fault) = found
        {
            context.find(fault, context.lane);
        }
        Ok(Outcome::Next)
    })
}

/// Where A comes from.
enum Multiplicand {
    Registers([usize; A_REGISTERS]),
    Descriptor(Source, Major),
}

/// `wgmma.mma_async` with its operands.
struct Form {
    /// As the meter counts it, and as messages name it.
    name: String,
    what: String,
    product: Product,
    d: Arc<[usize]>,
    a: Multiplicand,
    b: (Source, Major),
    /// Whether the old accumulators are added.
    scale_d: Source,
    /// Whether the products are negated: the elements of one of A and B are, not of both.
    negated: bool,
}

impl Form {
    fn decode(operands: &Operands, product: Product) -> Result<Self, DecodeError> {
        let count = product.accumulator.registers(product.n);
        let d = registers(operands, 0, count)?;
        if let Some(twice) = (1..d.len()).find(|&index| d[..index].contains(&d[index])) {
            return operands.error(format!("register {twice} of D is there twice"));
        }
        let in_registers = matches!(operands.operand(1)?, Operand::Vector(_));
        // scale-d, and where there are any, two negations and the transpositions of what comes by descriptor.
        let transpositions = if !product.transposable {
            0
        } else if in_registers {
            1
        } else {
            2
        };
        let negations = if product.integer() { 0 } else { 2 };
        let all = 4 + negations + transpositions;
        operands.count(all, all)?;
        let choice = |index: usize, values: [u64; 2]| match *operands.operand(index)? {
            Operand::Integer(value) if values.contains(&value) => Ok(value == values[1]),
            _ => {
                let [first, second] = values.map(u64::cast_signed);
                operands.error(format!("operand {}: expected {first} or {second}", index + 1))
            }
        };
        let mut negated = false;
        for index in 4..4 + negations {
            negated ^= choice(index, [1, -1i64 as u64])?;
        }
        let major = |index: usize| Ok(if choice(index, [0, 1])? { Major::Mn } else { Major::K });
        let b_major = if transpositions == 0 { Major::K } else { major(all - 1)? };
        let a = if in_registers {
            let list = registers(operands, 1, A_REGISTERS)?;
            Multiplicand::Registers(std::array::from_fn(|index| list[index]))
        } else {
            let major = if transpositions == 0 { Major::K } else { major(all - 2)? };
            Multiplicand::Descriptor(descriptor(operands, 1)?, major)
        };
        let scale_d = match *operands.operand(3)? {
            Operand::Integer(value @ (0 | 1)) => Source::Immediate(value),
            ref operand => {
                let (index, negated) = operands.predicate(operand)?;
                Source::Predicate { index, negated }
            }
        };
        let source = if in_registers { "in registers" } else { "by descriptor" };
        Ok(Self {
            name: format!("wgmma.{} A {source}", product.name),
            what: operands.instruction.name(),
            d: d.into(),
            a,
            b: (descriptor(operands, 2)?, b_major),
            scale_d,
            negated,
            product,
        })
    }

    fn issue(&self, context: &mut Context) -> Result<Outcome, Fault> {
        if !complete(context, &self.what)? {
            return Ok(Outcome::Wait);
        }
        let a = match &self.a {
            Multiplicand::Registers(_) => None,
            Multiplicand::Descriptor(source, _) => Some(uniform(context, *source, "descriptor of A")?),
        };
        let b = uniform(context, self.b.0, "descriptor of B")?;
        let scale_d = uniform(context, self.scale_d, "scale-d")? != 0;
        together(context, &self.what, [a, Some(b)], |context, number| {
            self.multiply(context, number, a, b, scale_d)?;
            Ok(Outcome::Next)
        })
    }

    fn multiply(&self, context: &mut Context, number: u64, a: Option<u64>, b: u64, scale_d: bool) -> Result<(), Fault> {
        let Product { n, k, accumulator, .. } = self.product;
        let (depth, line) = (context.depth, context.line);
        let shape = Shape { columns: n, packed: accumulator == Accumulator::F16 };
        let in_registers: &[usize] = match &self.a {
            Multiplicand::Registers(list) => list,
            Multiplicand::Descriptor(..) => &[],
        };
        context.warp.products.enter(depth)?;
        if context.grid.checked
            && let Some(fault) = context.warp.products.check(&self.d, in_registers, shape)
        {
            context.find(fault, context.lane);
        }
        let mut reads = Reads::default();
        let mut a = match (&self.a, a) {
            (Multiplicand::Descriptor(_, major), Some(bits)) => {
                self.a_by_descriptor(context, bits, *major, &mut reads)?
            }
            _ => {
                let lanes: Vec<_> = in_registers.iter().map(|&index| context.read(Source::Register(index))).collect();
                self.product.a.rows_of(&lanes, k)
            }
        };
        if self.negated {
            a.iter_mut().for_each(|element| *element = -*element);
        }
        let b = self.b_by_descriptor(context, number, b, &mut reads)?;
        let mut d: Vec<_> = if !scale_d {
            vec![[0; LANES]; self.d.len()]
        } else if let Some(d) = context.warp.products.accumulators(&self.d) {
            d.to_vec()
        } else {
            self.d.iter().map(|&index| context.read(Source::Register(index))).collect()
        };
        accumulator.add(&mut d, &multiply(&a, &b, k, n), n);
        context.warp.products.issue(&self.d, in_registers, shape, d, line);
        context.ledger.meter.mma(&self.name);
        if context.grid.checked {
            let (index, warp) = warpgroup(context);
            let (group, ..) = parts(context, index);
            let before = group.held_bytes();
            group.read(warp, &pieces(reads.units), line);
            let after = group.held_bytes();
            context.cluster.hold(before, after)?;
        }
        Ok(())
    }

    /// The 16 rows of this warp.
    fn a_by_descriptor(
        &self,
        context: &mut Context,
        bits: u64,
        major: Major,
        reads: &mut Reads,
    ) -> Result<Vec<f64>, Fault> {
        let descriptor = Descriptor::new(bits).map_err(|why| Fault::Wgmma(format!("A: {why}")))?;
        let (k, first) = (self.product.k, ROWS / UNITS * warpgroup(context).1);
        let mut a = vec![0.0; ROWS * k];
        for row in 0..ROWS / UNITS {
            for step in 0..STEPS {
                let core = descriptor.core(major, first + row, step);
                let bytes = reads.core(context, &core)?;
                self.product.a.core(&bytes, major, (row, step), |m, l, element| a[m * k + l] = element);
                count(context);
            }
        }
        // Hardware reads A once for the four warps.
        if first == 0 {
            context.ledger.meter.traffic(Path::DescriptorRead).accesses += 1;
        }
        Ok(a)
    }

    /// All of B, row after row of N elements. The first warp that comes unpacks it for all.
    fn b_by_descriptor(
        &self,
        context: &mut Context,
        number: u64,
        bits: u64,
        reads: &mut Reads,
    ) -> Result<Arc<[f64]>, Fault> {
        let descriptor = Descriptor::new(bits).map_err(|why| Fault::Wgmma(format!("B: {why}")))?;
        let Product { n, k, .. } = self.product;
        let (index, _) = warpgroup(context);
        let known = parts(context, index).0.elements(number);
        if known.is_some() && !context.grid.checked {
            return Ok(known.unwrap_or_default());
        }
        let mut b = vec![0.0; if known.is_some() { 0 } else { k * n }];
        for row in 0..n / UNITS {
            for step in 0..STEPS {
                let core = descriptor.core(self.b.1, row, step);
                // The checker asks for every warp: each has to know that the bytes are there.
                let bytes = reads.core(context, &core)?;
                if known.is_none() {
                    self.product
                        .b
                        .core(&bytes, self.b.1, (row, step), |column, l, element| b[l * n + column] = element);
                    count(context);
                }
            }
        }
        if let Some(known) = known {
            return Ok(known);
        }
        context.ledger.meter.traffic(Path::DescriptorRead).accesses += 1;
        let b: Arc<[f64]> = b.into();
        parts(context, index).0.keep(number, &b);
        Ok(b)
    }
}

/// The registers of a matrix, each of 32 bits.
fn registers(operands: &Operands, index: usize, count: usize) -> Result<Vec<usize>, DecodeError> {
    let elements = operands.elements(index)?;
    if elements.len() != count {
        let got = elements.len();
        return operands.error(format!("operand {}: expected {count} registers, got {got}", index + 1));
    }
    let register = |element: &Operand| match (operands.register(element)?, operands.register_type(element)) {
        (Some(register), Some(ty)) if ty.size() == 4 => Ok(register),
        _ => operands.error(format!("operand {}: expected registers of 32 bits", index + 1)),
    };
    elements.iter().map(register).collect()
}

/// A descriptor: a register of 64 bits, or a number.
fn descriptor(operands: &Operands, index: usize) -> Result<Source, DecodeError> {
    match operands.source(index, Type::B64)? {
        source @ (Source::Register(_) | Source::Immediate(_)) => {
            match operands.register_type(operands.operand(index)?) {
                Some(ty) if ty.size() != 8 => operands.error(format!("operand {}: expected 64 bits", index + 1)),
                _ => Ok(source),
            }
        }
        _ => operands.error(format!("operand {}: expected a descriptor", index + 1)),
    }
}

/// A value that all lanes have to agree on.
fn uniform(context: &Context, source: Source, what: &str) -> Result<u64, Fault> {
    let values = context.read(source);
    match values.iter().position(|value| *value != values[0]) {
        None => Ok(values[0]),
        Some(lane) => Err(Fault::Wgmma(format!(
            "lane {lane} has {:#x} as the {what}, and lane 0 {:#x}: it has to be the same in all lanes",
            values[lane], values[0]
        ))),
    }
}

/// What a product reads of shared memory.
#[derive(Default)]
struct Reads {
    units: Vec<u64>,
}

impl Reads {
    /// Reads a core through the asynchronous proxy.
    fn core(&mut self, context: &mut Context, core: &[u64; UNITS]) -> Result<[u8; UNIT * UNITS], Fault> {
        let mut bytes = [0; UNIT * UNITS];
        let thread = (context.actor() * LANES + context.lane) as u32;
        let access = Access { thread, line: context.line, strong: false, asynchronous: true };
        let mut first = None;
        for (unit, out) in core.iter().zip(bytes.chunks_exact_mut(UNIT)) {
            let (shared, clocks) = context.cluster.shared(context.rank);
            let found = shared.begin_reading(clocks, access, *unit, out)?;
            first = first.or(found);
        }
        if let Some(fault) = first {
            context.find(fault, context.lane);
        }
        if context.grid.checked {
            self.units.extend(core);
        }
        Ok(bytes)
    }
}

/// Counts the read of a core: its 128 bytes take one pass over the banks of shared memory, because every layout puts its
/// eight units of 16 bytes into different ones. That is the model of `ldmatrix`, whose matrices are such cores.
fn count(context: &mut Context) {
    let traffic = context.ledger.meter.traffic(Path::DescriptorRead);
    traffic.bytes += (UNIT * UNITS) as u64;
    traffic.wavefronts += 1;
}
