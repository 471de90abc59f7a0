//! `ldmatrix`, `stmatrix`, `movmatrix`: 8x8 matrices of 16-bit elements between shared memory and the registers of a
//! warp (PTX ISA 9.7.14.5.15 to 17).
//!
//! These instructions wait for all lanes, but nothing is said of the order of memory: a row that another lane of the
//! warp has stored needs a `bar.warp.sync` first, and the checker asks for it.

use super::fragments::matrix;
use crate::ast::{Operand, Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Run, Words};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::isa::memory::access::Address;
use crate::isa::memory::lanes::{Data, WIDEST, read, write};
use crate::isa::sync::converge::whole_warp;
use crate::meter::{Class, Path};

/// Bytes of a row.
const ROW: usize = 16;

/// An 8x8 matrix of 16-bit elements.
type Matrix = [[u8; ROW]; 8];

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let run = match operands.root() {
        "ldmatrix" => load(operands),
        "stmatrix" => store(operands),
        "movmatrix" => transpose(operands),
        _ => return Ok(None),
    };
    run.map(|run| Some((Class::Matrix, run)))
}

/// What `ldmatrix` and `stmatrix` have in common.
struct Form {
    what: String,
    /// Number of matrices.
    count: usize,
    transposed: bool,
    /// Lane `8 * i + j` has the address of row `j` of matrix `i`.
    address: Address,
}

impl Form {
    fn new(operands: &Operands, address: usize) -> Result<Self, DecodeError> {
        operands.count(2, 2)?;
        let list =
            operands.parts_with(&["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"]);
        let ["sync", "aligned", "m8n8", count, ref rest @ .., "b16"] = list[..] else {
            return operands.error("expected `.sync.aligned.m8n8.num{.trans}{.shared}.b16`");
        };
        let count = match count {
            "x1" => 1,
            "x2" => 2,
            "x4" => 4,
            _ => return operands.error(format!("expected `.x1`, `.x2` or `.x4`, found `.{count}`")),
        };
        let (transposed, space) = match *rest {
            ["trans", ref space @ ..] => (true, space),
            ref space => (false, space),
        };
        let space = match *space {
            [] => None,
            ["shared" | "shared::cta"] => Some(Space::Shared),
            _ => return operands.error("expected `{.trans}{.shared{::cta}}` in front of `.b16`"),
        };
        let address = Address::decode(operands, address, space)?;
        Ok(Self { what: operands.instruction.name(), count, transposed, address })
    }

    fn registers<'a>(&self, operands: &'a Operands, index: usize) -> Result<&'a [Operand], DecodeError> {
        match operands.elements(index)? {
            elements if elements.len() == self.count => Ok(elements),
            elements => operands.error(format!("expected {} registers, got {}", self.count, elements.len())),
        }
    }

    /// Lanes that have an address of a row.
    fn lanes(&self) -> u32 {
        u32::MAX >> (LANES - 8 * self.count)
    }

    /// Counts one access, and returns where the rows are: those of the first matrices count.
    fn rows(&self, context: &mut Context, path: Path) -> Result<[(Space, u64); LANES], Fault> {
        let all = std::mem::replace(&mut context.mask, self.lanes());
        let resolved = self.address.resolve(context);
        context.mask = all;
        let resolved = resolved?;
        let rows = &resolved[..8 * self.count];
        if let Some((_, address)) = rows.iter().find(|(space, _)| *space != Space::Shared) {
            return Err(Fault::Trap(format!("`{}`: {address:#x} is no address of shared memory", self.what)));
        }
        meter(context, path, rows);
        Ok(resolved)
    }
}

/// Counts one access. The hardware moves each matrix on its own: eight rows of four banks each, in one wavefront if
/// all 32 banks differ. Rows at the same place are read once.
fn meter(context: &mut Context, path: Path, rows: &[(Space, u64)]) {
    let mut wavefronts = 0;
    for rows in rows.chunks_exact(8) {
        let mut per_bank = [0; 8];
        for (index, row) in rows.iter().enumerate() {
            if !rows[..index].contains(row) {
                per_bank[row.1 as usize / ROW % 8] += 1;
            }
        }
        wavefronts += per_bank.into_iter().max().unwrap_or(0);
    }
    let matrices = rows.len() as u64 / 8;
    let traffic = context.ledger.meter.traffic(path);
    traffic.accesses += 1;
    traffic.bytes += 8 * ROW as u64 * matrices;
    traffic.wavefronts += wavefronts;
    traffic.conflicts += wavefronts - matrices;
}

/// The lanes' registers that hold a matrix, or its transpose.
fn spread(from: &Matrix, transposed: bool) -> Words {
    std::array::from_fn(|lane| {
        let element = |part| {
            let (row, column) = matrix(lane, part);
            let (row, column) = if transposed { (column, row) } else { (row, column) };
            u32::from(u16::from_le_bytes([from[row][2 * column], from[row][2 * column + 1]]))
        };
        element(0) | element(1) << 16
    })
}

/// The inverse of [`spread`].
fn gather(from: &Words, transposed: bool) -> Matrix {
    let mut out = Matrix::default();
    for (lane, value) in from.iter().enumerate() {
        for part in 0..2 {
            let (row, column) = matrix(lane, part);
            let (row, column) = if transposed { (column, row) } else { (row, column) };
            let bytes = ((value >> (16 * part)) as u16).to_le_bytes();
            out[row][2 * column..][..2].copy_from_slice(&bytes);
        }
    }
    out
}

/// `ldmatrix.sync.aligned.m8n8.num{.trans}{.ss}.b16 r, [p]`
fn load(operands: &Operands) -> Result<Run, DecodeError> {
    let form = Form::new(operands, 1)?;
    let targets = form.registers(operands, 0)?.iter().map(|target| operands.register(target));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |context| {
        if !whole_warp(context, &form.what)? {
            return Ok(Outcome::Wait);
        }
        let rows = form.rows(context, Path::SharedRead)?;
        // A target may be the address register, so everything is read before anything is written.
        let mut data: Data = [[0; LANES]; WIDEST / 4];
        let all = std::mem::replace(&mut context.mask, form.lanes());
        let done = read(context, &rows, false, ROW, &mut data);
        context.mask = all;
        done?;
        for (index, target) in targets.iter().enumerate() {
            if let Some(target) = target {
                let mut bytes = Matrix::default();
                for (row, bytes) in bytes.iter_mut().enumerate() {
                    for (word, bytes) in data.iter().zip(bytes.as_chunks_mut().0) {
                        *bytes = word[8 * index + row].to_le_bytes();
                    }
                }
                context.write_typed(*target, &spread(&bytes, form.transposed));
            }
        }
        Ok(Outcome::Next)
    }))
}

/// `stmatrix.sync.aligned.m8n8.num{.trans}{.ss}.b16 [p], r`
fn store(operands: &Operands) -> Result<Run, DecodeError> {
    let form = Form::new(operands, 0)?;
    let sources = form.registers(operands, 1)?.iter().map(|source| operands.value(source, Type::B32));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |context| {
        if !whole_warp(context, &form.what)? {
            return Ok(Outcome::Wait);
        }
        let rows = form.rows(context, Path::SharedWrite)?;
        let mut data: Data = [[0; LANES]; WIDEST / 4];
        for (index, source) in sources.iter().enumerate() {
            for (row, bytes) in gather(&context.words(*source), form.transposed).iter().enumerate() {
                for (word, bytes) in data.iter_mut().zip(bytes.as_chunks().0) {
                    word[8 * index + row] = u32::from_le_bytes(*bytes);
                }
            }
        }
        let all = std::mem::replace(&mut context.mask, form.lanes());
        let done = write(context, &rows, false, ROW, &data);
        context.mask = all;
        done.map(|()| Outcome::Next)
    }))
}

/// `movmatrix.sync.aligned.m8n8.trans.b16 d, a`
fn transpose(operands: &Operands) -> Result<Run, DecodeError> {
    operands.count(2, 2)?;
    if operands.parts() != ["sync", "aligned", "m8n8", "trans", "b16"] {
        return operands.error("expected `movmatrix.sync.aligned.m8n8.trans.b16`");
    }
    let (target, source) = (operands.destination(0)?, operands.source(1, Type::B32)?);
    let what = operands.instruction.name();
    Ok(Box::new(move |context| {
        if !whole_warp(context, &what)? {
            return Ok(Outcome::Wait);
        }
        if let Some(target) = target {
            let values = spread(&gather(&context.words(source), false), true);
            context.write_typed(target, &values);
        }
        Ok(Outcome::Next)
    }))
}
