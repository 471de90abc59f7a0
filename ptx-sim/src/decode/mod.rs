//! From syntax to [`Program`]: gives every name its place and every instruction its closure.

mod function;
mod names;
mod operands;

use std::collections::HashMap;

pub(crate) use operands::Operands;

use crate::ast::{Initializer, Module, Space, Variable};
use crate::exec::{FRAME_LOCAL, FRAME_PARAMS};
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

/// Most bytes of a module's variables in each space, so that a few bytes of PTX cannot ask for all of a computer's
/// memory. Shared and local memory are limited far above what a block or a thread can have: a launch says what fits.
const GLOBAL_BYTES: usize = 1 << 30;
const CONSTANT_BYTES: usize = 11 << 16;
const SHARED_BYTES: usize = 1 << 20;
const LOCAL_BYTES: usize = FRAME_LOCAL / 2;
const PARAM_BYTES: usize = FRAME_PARAMS / 2;

/// Most registers of a function.
const REGISTERS: usize = 1 << 16;

/// Decodes a module and places its global variables in memory. All instructions that cannot be decoded are reported,
/// in the order of lines.
pub(crate) fn decode(module: &Module, memory: &mut Memory) -> Result<Program, Vec<DecodeError>> {
    let mut errors = Vec::new();
    match decode_all(module, memory, &mut errors) {
        Ok(program) if errors.is_empty() => return Ok(program),
        Ok(_) => {}
        Err(error) => errors.push(error),
    }
    errors.sort_by_key(|error| error.line);
    Err(errors)
}

/// The program; it is complete only if there are no `errors` of instructions.
fn decode_all(module: &Module, memory: &mut Memory, errors: &mut Vec<DecodeError>) -> Result<Program, DecodeError> {
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
    let (mut global, mut constant, mut shared) = (0, 0, 0);
    // Of dynamic shared memory, which begins behind the static.
    let mut dynamic_align = 1;
    for variable in &module.variables {
        let entity = match (variable.space, variable.count) {
            (Space::Global, Some(count)) => {
                reserve(&mut global, variable, count, GLOBAL_BYTES)?;
                // Without an initial value they are zero (PTX ISA section 5.4.4).
                let address = memory.allocate_zeros(size_of(variable, count));
                Entity::Memory(
                    Space::Global,
                    address.map_err(|fault| DecodeError::new(variable.line, fault.to_string()))?,
                )
            }
            (Space::Const, Some(count)) => {
                let at = reserve(&mut constant, variable, count, CONSTANT_BYTES)?;
                constants.resize(constant, 0);
                Entity::Memory(Space::Const, at as u64)
            }
            (Space::Shared, Some(count)) => {
                Entity::Memory(Space::Shared, reserve(&mut shared, variable, count, SHARED_BYTES)? as u64)
            }
            (Space::Shared, None) => {
                dynamic_align = dynamic_align.max(variable.align);
                Entity::DynamicShared { align: variable.align }
            }
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
                let mut code = function::decode(function, &names, shared, errors)?;
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
        // Padded, so that all of the dynamic part lies behind an aligned beginning.
        code.shared_bytes = code.shared_bytes.max(shared).next_multiple_of(dynamic_align);
    }
    let files = module.files.iter().cloned().collect();
    Ok(Program { functions, by_name, files, constants })
}

fn size_of(variable: &Variable, count: usize) -> usize {
    variable.ty.size() * variable.vector * count
}

/// Takes room for a variable of `count` elements behind `end`, and returns where it begins.
fn reserve(end: &mut usize, variable: &Variable, count: usize, limit: usize) -> Result<usize, DecodeError> {
    let size = size_of(variable, count);
    let start = end.checked_next_multiple_of(variable.align.max(1));
    match start.and_then(|start| Some((start, start.checked_add(size)?))) {
        Some((start, behind)) if behind <= limit => {
            *end = behind;
            Ok(start)
        }
        _ => {
            let what = format!("variable `{}` of {size} bytes in {:?} memory", variable.name, variable.space);
            Err(DecodeError::new(variable.line, format!("{what}: more than {limit} bytes in all")))
        }
    }
}

/// Writes a variable's initial value.
fn initialise(variable: &Variable, names: &Names, memory: &Memory, constants: &mut [u8]) -> Result<(), DecodeError> {
    let Some(Entity::Memory(space, address)) = names.find(&variable.name) else { return Ok(()) };
    let (len, size) = (size_of(variable, variable.count.unwrap_or(0)), variable.ty.size().max(1));
    let mut bytes = vec![0; len.min(size * variable.init.len())];
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
        Space::Global => {
            memory.write(address, &bytes).map_err(|fault| DecodeError::new(variable.line, fault.to_string()))
        }
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
