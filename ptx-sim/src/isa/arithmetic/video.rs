//! Video instructions (PTX ISA 9.7.18): arithmetic on the bytes of a word. Known is `vabsdiff4`, in the form without
//! selectors and mask: byte `i` of `a` with byte `i` of `b`, for all four of them.

use super::numeric::map3;
use crate::decode::Operands;
use crate::isa::Decoded;
use crate::meter::Class;

/// `vabsdiff4.dtype.atype.btype{.sat|.add} d, a, b, c`.
pub(crate) fn decode(operands: &Operands) -> Decoded {
    if operands.root() != "vabsdiff4" {
        return Ok(None);
    }
    let parts = operands.parts();
    let ([d, a, b], secondary) = match parts[..] {
        [d, a, b, ref secondary @ ..] => ([d, a, b].map(|ty| ty == "s32"), secondary),
        _ => return operands.error("expected three types"),
    };
    if let Some(other) = parts[..3].iter().find(|ty| !matches!(**ty, "u32" | "s32")) {
        return operands.error(format!("expected `.u32` or `.s32`, found `.{other}`"));
    }
    match secondary {
        // Without a mask nothing of `c` is merged into the result.
        [] => map3(operands, Class::Integer, move |x: u32, y: u32, _: u32| pack(differences(x, a, y, b))),
        ["sat"] => {
            let (least, most) = if d { (i8::MIN.into(), i8::MAX.into()) } else { (0, u8::MAX.into()) };
            map3(operands, Class::Integer, move |x: u32, y: u32, _: u32| {
                pack(differences(x, a, y, b).map(|difference| difference.clamp(least, most)))
            })
        }
        ["add"] => map3(operands, Class::Integer, move |x: u32, y: u32, c: i32| {
            differences(x, a, y, b).into_iter().fold(c, i32::wrapping_add)
        }),
        _ => operands.error("expected nothing, `.sat` or `.add` behind the types"),
    }
}

/// The absolute differences of the bytes of two words, which are signed or not.
fn differences(x: u32, x_signed: bool, y: u32, y_signed: bool) -> [i32; 4] {
    let bytes = |word: u32, signed: bool| {
        word.to_le_bytes().map(|byte| if signed { i32::from(byte as i8) } else { i32::from(byte) })
    };
    let (x, y) = (bytes(x, x_signed), bytes(y, y_signed));
    std::array::from_fn(|i| (x[i] - y[i]).abs())
}

/// A word of the low bytes.
fn pack(values: [i32; 4]) -> u32 {
    u32::from_le_bytes(values.map(|value| value as u8))
}
