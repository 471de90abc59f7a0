//! A module: places its variables, assembles its functions.

use std::collections::HashMap;

use super::function;
use super::variables::{CONSTANT_BYTES, GLOBAL_BYTES, SHARED_BYTES, reserve, size_of};
use crate::ast::{Initializer, Module, Space, Variable};
use crate::decode::{DecodeError, Entity, Names};
use crate::exec::{Program, function_address};
use crate::memory::Memory;

/// Assembles a module and places its global variables in memory. All instructions that cannot be decoded are reported,
/// in the order of lines.
pub(crate) fn assemble(module: &Module, memory: &mut Memory) -> Result<Program, Vec<DecodeError>> {
    let mut errors = Vec::new();
    match assemble_all(module, memory, &mut errors) {
        Ok(program) if errors.is_empty() => return Ok(program),
        Ok(_) => {}
        Err(error) => errors.push(error),
    }
    errors.sort_by_key(|error| error.line);
    Err(errors)
}

/// The program; it is complete only if there are no `errors` of instructions.
fn assemble_all(module: &Module, memory: &mut Memory, errors: &mut Vec<DecodeError>) -> Result<Program, DecodeError> {
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
                let mut code = function::assemble(function, &names, shared, errors)?;
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
