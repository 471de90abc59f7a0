//! Pauses, dependent launches and traps (PTX ISA 9.7.12.7, 9.7.13.13, 9.7.19).

use crate::ast::Type;
use crate::decode::Operands;
use crate::exec::Outcome;
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let (known, operand_count): (&[&str], _) = match operands.root() {
        "nanosleep" => (&[], 1),
        "griddepcontrol" if !matches!(operands.parts()[..], ["launch_dependents" | "wait"]) => {
            return operands.error("expected `.launch_dependents` or `.wait`");
        }
        "griddepcontrol" => (&["launch_dependents", "wait"], 0),
        "trap" | "brkpt" => (&[], 0),
        _ => return Ok(None),
    };
    operands.only(known)?;
    operands.count(operand_count, operand_count)?;
    if operand_count == 1 {
        operands.agreeing(0, Type::U32)?;
    }
    Ok(Some((
        Class::Control,
        match operands.root() {
            // A pause is for others to get on.
            "nanosleep" => Box::new(|_| Ok(Outcome::Yield)),
            "trap" => Box::new(|_| Err(Fault::Trap("trap".into()))),
            "brkpt" => Box::new(|_| Err(Fault::Trap("brkpt".into()))),
            // One launch runs at a time: what `griddepcontrol.wait` waits for is done.
            _ => Box::new(|_| Ok(Outcome::Next)),
        },
    )))
}
