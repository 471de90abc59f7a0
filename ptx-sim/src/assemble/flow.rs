//! Which registers an instruction writes and reads.

use crate::ast::{Instruction, Operand, Type};
use crate::decode::{Entity, Names};
use crate::exec::{Flow, Guard, PREDICATE};
use crate::meter::Class;

/// The registers of an instruction of a class. What is not known to write its first operand alone counts as writing
/// all.
pub(super) fn of(instruction: &Instruction, class: Class, guard: Option<&Guard>, names: &Names) -> Flow {
    let has = |part: &str| instruction.opcode.iter().any(|own| own == part);
    let root = instruction.opcode.first().map_or("", String::as_str);
    // The carry flag is no operand.
    let carries = has("cc") || matches!(root, "addc" | "subc" | "madc");
    // These refuse operands that are too large.
    let refuses = matches!(root, "bfe" | "bfi");
    let pure = match class {
        Class::Integer | Class::Float | Class::Half | Class::Special | Class::Convert | Class::Move => {
            !carries && !refuses
        }
        Class::Memory => matches!(root, "cvta" | "isspacep" | "mapa" | "getctarank"),
        _ => false,
    };
    let one_target = pure
        || carries
        || refuses
        || class == Class::Warp
        || matches!(root, "ld" | "ldu" | "atom" | "ldmatrix" | "movmatrix" | "mma")
        || matches!(root, "bar" | "barrier") && has("red")
        || root == "mbarrier" && ["test_wait", "try_wait", "pending_count"].into_iter().any(has);
    let declared = ["v2", "v4", "v8"].into_iter().any(has);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (index, operand) in instruction.operands.iter().enumerate() {
        if index == 0 || !one_target {
            places(operand, declared, names, &mut writes);
        }
        if index > 0 || !one_target {
            places(operand, declared, names, &mut reads);
        }
    }
    reads.extend(guard.map(|guard| guard.predicate as u32 | PREDICATE));
    Flow { writes: writes.into(), reads: reads.into(), pure }
}

/// Adds the registers and predicates that an operand names. `declared` says whether it may name a register that was
/// declared as a vector.
fn places(operand: &Operand, declared: bool, names: &Names, found: &mut Vec<u32>) {
    match operand {
        Operand::Name(name) | Operand::Sum { name, .. } => {
            let mut add = |entity: Option<Entity>| match entity {
                Some(Entity::Register { index, ty }) => {
                    found.push(index as u32);
                    found.extend((ty == Type::B128).then_some(index as u32 + 1));
                }
                Some(Entity::Predicate(index)) => found.push(index as u32 | PREDICATE),
                _ => {}
            };
            add(names.find(name));
            if declared {
                ["x", "y", "z", "w"].into_iter().for_each(|element| add(names.find(&format!("{name}.{element}"))));
            }
        }
        Operand::Address { base: inner, .. } | Operand::Not(inner) | Operand::Negative(inner) => {
            places(inner, declared, names, found);
        }
        Operand::Pair(first, second) => {
            places(first, declared, names, found);
            places(second, declared, names, found);
        }
        Operand::Vector(list) | Operand::List(list) | Operand::TensorAddress(list) => {
            list.iter().for_each(|operand| places(operand, declared, names, found));
        }
        Operand::Integer(_) | Operand::F32(_) | Operand::F64(_) | Operand::Sink => {}
    }
}
