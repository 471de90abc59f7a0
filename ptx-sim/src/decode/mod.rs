//! From syntax to [`Program`]: gives every name its place and every instruction its closure.

mod function;
mod names;
mod operands;

use std::collections::HashMap;

pub(crate) use operands::Operands;

use crate::ast::{Initializer, Module, Space, Variable};
use crate::memory::Memory;
use crate::program::{Program, function_address};
use names::{Entity, Names};

/// Why a module cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct DecodeError {
    /// Line in the PTX.
    pub line: u32,
    /// What is wrong: the instruction and why it is refused.
    pub message: String,
}

impl DecodeError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// Decodes a module and places its global variables in memory.
pub(crate) fn decode(module: &Module, memory: &mut Memory) -> Result<Program, DecodeError> {
    let mut names = Names::default();
    let by_name: HashMap<String, usize> =
        module.functions.iter().enumerate().map(|(index, function)| (function.name.clone(), index)).collect();
    // A declaration and its definition are two entries of the module; the definition counts.
    let defined = module.functions.iter().enumerate().filter(|(_, function)| function.body.is_some());
    let by_name: HashMap<String, usize> =
        by_name.into_iter().chain(defined.map(|(index, function)| (function.name.clone(), index))).collect();
    for (name, &index) in &by_name {
        names.define(name, Entity::Function(index));
    }
    let mut constants = Vec::new();
    let mut shared = 0;
    for variable in &module.variables {
        let entity = match (variable.space, variable.count) {
            (Space::Global, Some(count)) => Entity::Memory(Space::Global, memory.allocate(size_of(variable, count))),
            (Space::Const, Some(count)) => Entity::Memory(Space::Const, place(&mut constants, variable, count) as u64),
            (Space::Shared, Some(count)) => {
                Entity::Memory(Space::Shared, advance(&mut shared, variable.align, size_of(variable, count)) as u64)
            }
            (Space::Shared, None) => Entity::DynamicShared { align: variable.align },
            _ => {
                let message = format!("cannot place variable `{}` in {:?} memory", variable.name, variable.space);
                return Err(DecodeError::new(variable.line, message));
            }
        };
        names.define(&variable.name, entity);
    }
    for variable in &module.variables {
        initialise(variable, &names, memory, &mut constants)?;
    }
    let mut functions = Vec::new();
    // Device functions' shared variables have one place in every kernel, so they are placed first.
    for pass_entry in [false, true] {
        for (index, function) in module.functions.iter().enumerate() {
            if function.entry == pass_entry {
                let mut code = function::decode(function, &names, shared)?;
                if !function.entry {
                    shared = code.shared_bytes;
                }
                code.name.clone_from(&function.name);
                functions.push((index, code));
            }
        }
    }
    functions.sort_by_key(|(index, _)| *index);
    let mut functions: Vec<_> = functions.into_iter().map(|(_, code)| code).collect();
    for code in functions.iter_mut().filter(|code| code.entry) {
        code.shared_bytes = code.shared_bytes.max(shared);
    }
    let files = module.files.iter().cloned().collect();
    Ok(Program { functions, by_name, files, constants })
}

fn size_of(variable: &Variable, count: usize) -> usize {
    variable.ty.size() * variable.vector * count
}

/// Rounds `end` up to `align`, adds `size`, and returns where the new piece begins.
fn advance(end: &mut usize, align: usize, size: usize) -> usize {
    let start = end.next_multiple_of(align.max(1));
    *end = start + size;
    start
}

fn place(bank: &mut Vec<u8>, variable: &Variable, count: usize) -> usize {
    let mut end = bank.len();
    let start = advance(&mut end, variable.align, size_of(variable, count));
    bank.resize(end, 0);
    start
}

/// Writes a variable's initial value. Module variables without one are zero (PTX ISA section 5.4.4).
fn initialise(variable: &Variable, names: &Names, memory: &Memory, constants: &mut [u8]) -> Result<(), DecodeError> {
    let Some(Entity::Memory(space, address)) = names.find(&variable.name) else { return Ok(()) };
    let mut bytes = vec![0; size_of(variable, variable.count.unwrap_or(0))];
    let size = variable.ty.size().max(1);
    for (initial, target) in variable.init.iter().zip(bytes.chunks_exact_mut(size)) {
        let bits = match initial {
            Initializer::Bits(bits) => *bits,
            Initializer::Address { name, offset, .. } => match names.find(name) {
                // Generic addresses of global memory are the addresses themselves.
                Some(Entity::Memory(_, base)) => base.wrapping_add_signed(*offset),
                Some(Entity::Function(index)) => function_address(index),
                _ => return Err(DecodeError::new(variable.line, format!("`{name}` has no address"))),
            },
        };
        target.copy_from_slice(&bits.to_le_bytes()[..size.min(8)]);
    }
    match space {
        Space::Global => memory.write(address, &bytes).map_err(|f| DecodeError::new(variable.line, f.to_string())),
        Space::Const => {
            constants[address as usize..address as usize + bytes.len()].copy_from_slice(&bytes);
            Ok(())
        }
        _ if variable.init.is_empty() => Ok(()),
        _ => Err(DecodeError::new(
            variable.line,
            format!("`{}`: only global and constant variables can be initialised", variable.name),
        )),
    }
}
