//! Who notices that an instruction was executed: by this the executor tells warps that work from warps that poll.
//!
//! What is not known here counts as noticed, which is right for every instruction and only makes a loop that polls look
//! busy.

use crate::ast::{Instruction, Operand};
use crate::exec::Effect;
use crate::meter::Class;

/// The effect of an instruction of a class.
pub(super) fn of(instruction: &Instruction, class: Class) -> Effect {
    let has = |part: &str| instruction.opcode.iter().any(|own| own == part);
    let root = instruction.opcode.first().map_or("", String::as_str);
    let effect = match class {
        Class::Integer | Class::Float | Class::Half | Class::Special | Class::Convert | Class::Move | Class::Warp => {
            Effect::Private
        }
        Class::Memory => match root {
            "cvta" | "isspacep" | "mapa" | "getctarank" | "createpolicy" => Effect::Private,
            "ld" if ["local", "param", "const"].into_iter().any(has) => Effect::Private,
            "ld" if ["shared", "shared::cta", "shared::cluster"].into_iter().any(has) => Effect::Polls,
            "ld" | "ldu" => Effect::Looks,
            "st" if has("local") || has("param") => Effect::Private,
            "st" if !has("async") => Effect::Writes,
            _ => Effect::Stirs,
        },
        Class::Atomic if matches!(root, "atom" | "red") => Effect::Writes,
        Class::Matrix if root == "ldmatrix" => Effect::Polls,
        Class::Matrix if root == "movmatrix" => Effect::Private,
        Class::Mma if root == "mma" => Effect::Private,
        Class::Barrier => match root {
            "fence" | "membar" => Effect::Private,
            "bar" if has("warp") => Effect::Private,
            "bar" | "barrier" => Effect::Meets,
            "mbarrier" if has("test_wait") || has("try_wait") => Effect::Polls,
            "mbarrier" if has("pending_count") => Effect::Private,
            _ => Effect::Stirs,
        },
        Class::Control => match root {
            "bra" | "brx" | "ret" | "exit" | "call" | "nanosleep" => Effect::Private,
            _ => Effect::Stirs,
        },
        _ => Effect::Stirs,
    };
    match effect {
        Effect::Private if instruction.operands.iter().any(is_time) => Effect::Times,
        // An instruction that does more than to note the time.
        _ if instruction.operands.iter().any(is_time) => Effect::Stirs,
        effect => effect,
    }
}

/// A special register that changes with time.
fn is_time(operand: &Operand) -> bool {
    matches!(operand, Operand::Name(name) if name.starts_with("%clock") || name.starts_with("%globaltimer"))
}
