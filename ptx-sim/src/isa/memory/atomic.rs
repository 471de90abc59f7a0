//! `atom` and `red`: lanes take their turns in ascending order (PTX ISA 9.7.13.5-6).

use half::{bf16, f16};

use super::access::{Address, extend, space_of};
use super::memory::is_hint;
use super::traffic::{Kind, count};
use crate::ast::{Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, LANES, Outcome, Source, Target};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::isa::arithmetic::numeric::NAN32;
use crate::meter::Class;

/// Orders, scopes and roundings that change nothing here: every atomic is strong, and subnormals are kept.
const KNOWN: [&str; 10] =
    ["relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "noftz", "L2::cache_hint"];

/// An operation and how many operands it takes besides the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Inc,
    Dec,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

impl Operation {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "add" => Self::Add,
            "inc" => Self::Inc,
            "dec" => Self::Dec,
            "min" => Self::Min,
            "max" => Self::Max,
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            "exch" => Self::Exch,
            "cas" => Self::Cas,
            _ => return None,
        })
    }

    /// Whether the ISA has the operation for elements of the type.
    fn takes(self, ty: Type, vector: usize) -> bool {
        let floating = matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2);
        match self {
            Self::Add if floating || ty == Type::F32 => true,
            Self::Min | Self::Max if vector > 1 => floating,
            _ if vector > 1 => false,
            Self::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64 | Type::F64),
            Self::Inc | Self::Dec => ty == Type::U32,
            Self::Min | Self::Max => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64),
            Self::And | Self::Or | Self::Xor => matches!(ty, Type::B32 | Type::B64),
            Self::Exch => matches!(ty, Type::B32 | Type::B64 | Type::B128),
            Self::Cas => matches!(ty, Type::B16 | Type::B32 | Type::B64 | Type::B128),
        }
    }

    /// The new value of an element. `a` and `b` are the operands: `b` is used by `cas` alone.
    fn apply(self, ty: Type, old: u128, a: u128, b: u128) -> u128 {
        let signed = |value: u128| match ty {
            Type::S32 => i64::from(value as i32),
            _ => value as i64,
        };
        match self {
            Self::Add => add(ty, old as u64, a as u64).into(),
            Self::Inc => {
                if old >= a {
                    0
                } else {
                    old + 1
                }
            }
            Self::Dec => {
                if old == 0 || old > a {
                    a
                } else {
                    old - 1
                }
            }
            Self::Min | Self::Max if matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2) => {
                halves(ty, old as u64, a as u64, |x, y| if self == Self::Min { x.min(y) } else { x.max(y) }).into()
            }
            Self::Min if matches!(ty, Type::S32 | Type::S64) => {
                if signed(a) < signed(old) {
                    a
                } else {
                    old
                }
            }
            Self::Max if matches!(ty, Type::S32 | Type::S64) => {
                if signed(a) > signed(old) {
                    a
                } else {
                    old
                }
            }
            Self::Min => old.min(a),
            Self::Max => old.max(a),
            Self::And => old & a,
            Self::Or => old | a,
            Self::Xor => old ^ a,
            Self::Exch => a,
            Self::Cas => {
                if old == a {
                    b
                } else {
                    old
                }
            }
        }
    }
}

fn add(ty: Type, old: u64, a: u64) -> u64 {
    match ty {
        Type::F32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(a as u32);
            if sum.is_nan() { NAN32.to_bits() } else { sum.to_bits() }.into()
        }
        Type::F64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => halves(ty, old, a, |x, y| x + y),
        Type::U32 | Type::S32 => u64::from((old as u32).wrapping_add(a as u32)),
        _ => old.wrapping_add(a),
    }
}

/// Combines 16-bit floating-point values, rounding to nearest even: a sum of two of them is exact in f64, or so close to
/// it that the rest decides nothing. NaN becomes the canonical one.
fn halves(ty: Type, old: u64, a: u64, f: impl Fn(f64, f64) -> f64) -> u64 {
    let brain = matches!(ty, Type::Bf16 | Type::Bf16x2);
    let widen = |bits: u16| if brain { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() };
    let narrow = |value: f64| match brain {
        _ if value.is_nan() => 0x7FFF,
        true => bf16::from_f64(value).to_bits(),
        false => f16::from_f64(value).to_bits(),
    };
    let element = |i: u32| u64::from(narrow(f(widen((old >> (16 * i)) as u16), widen((a >> (16 * i)) as u16))));
    if ty.size() == 4 { element(0) | element(1) << 16 } else { element(0) }
}

struct Form {
    operation: Operation,
    ty: Type,
    vector: usize,
    address: Address,
    /// Old values: a register place per element, and bytes of the register.
    targets: Vec<Option<(usize, usize)>>,
    /// Register places of the operand, and of `cas`'s second one.
    operands: [Vec<Source>; 2],
}

pub(crate) fn decode(operands: &Operands) -> Decoded {
    let returns = match operands.root() {
        "atom" => true,
        "red" if operands.has("async") => return Ok(None),
        "red" => false,
        _ => return Ok(None),
    };
    let (mut space, mut vector, mut operation) = (None, 1, None);
    for part in operands.modifiers() {
        match part {
            "v2" => vector = 2,
            "v4" => vector = 4,
            "v8" => vector = 8,
            _ if space_of(part).is_some() => space = space_of(part),
            _ if Operation::from_name(part).is_some() => operation = Operation::from_name(part),
            _ if KNOWN.contains(&part) || is_hint(part) || Type::from_name(part).is_some() => {}
            _ => return operands.error(format!("unknown part `.{part}`")),
        }
    }
    let ([ty], Some(operation)) = (&operands.types()[..], operation) else {
        return operands.error("expected an operation and a type");
    };
    let in_space = matches!(space, None | Some(Space::Global | Space::Shared));
    let fits = ty.size() * vector <= 16 && (vector == 1 || space == Some(Space::Global) || space.is_none());
    if !operation.takes(*ty, vector) || !in_space || !fits {
        return operands.error("no such atomic");
    }
    let first = usize::from(returns);
    let values = if operation == Operation::Cas { 2 } else { 1 };
    let hinted = usize::from(operands.has("L2::cache_hint"));
    operands.count(first + 1 + values + hinted, first + 1 + values + hinted)?;
    let value = |index: usize| sources(operands, index, *ty, vector);
    let form = Form {
        operation,
        ty: *ty,
        vector,
        address: Address::decode(operands, first, space)?,
        targets: if returns { targets(operands, *ty, vector)? } else { Vec::new() },
        operands: [value(first + 1)?, if values == 2 { value(first + 2)? } else { Vec::new() }],
    };
    Ok(Some((Class::Atomic, Box::new(move |context| form.execute(context)))))
}

fn sources(operands: &Operands, index: usize, ty: Type, vector: usize) -> Result<Vec<Source>, DecodeError> {
    let elements = operands.elements(index)?;
    if elements.len() != vector {
        return operands.error(format!("expected {vector} values, found {}", elements.len()));
    }
    if ty == Type::B128 {
        operands.only_wide(&elements[0])?;
        return match operands.source(index, ty)? {
            Source::Register(register) => Ok(vec![Source::Register(register), Source::Register(register + 1)]),
            _ => operands.error("expected a 128-bit register"),
        };
    }
    elements.iter().map(|element| operands.value(element, ty)).collect()
}

fn targets(operands: &Operands, ty: Type, vector: usize) -> Result<Vec<Option<(usize, usize)>>, DecodeError> {
    let elements = operands.elements(0)?;
    if elements.len() != vector && elements.len() != 1 {
        return operands.error(format!("expected {vector} registers, found {}", elements.len()));
    }
    let mut targets = Vec::new();
    for element in elements {
        let width = operands.register_type(element).map_or(8, Type::size);
        let register = operands.register(element)?;
        if ty == Type::B128 {
            operands.only_wide(element)?;
        }
        targets.push(register.map(|register| (register, width)));
        if ty == Type::B128 {
            targets.push(register.map(|register| (register + 1, width)));
        }
    }
    Ok(targets)
}

impl Form {
    fn execute(&self, context: &mut Context) -> Result<Outcome, Fault> {
        let places = self.address.resolve(context)?;
        let size = self.ty.size() * self.vector;
        count(context, Kind::Atomic, &places, size);
        let piece = size / self.operands[0].len();
        let values = [0, 1].map(|i| self.operands[i].iter().map(|s| context.read(*s)).collect::<Vec<_>>());
        let mut old = [[0; 16]; LANES];
        for lane in context.lanes() {
            let (space, address) = places[lane];
            let target = Target { lane, space, address, strong: true };
            let bytes = |operand: usize| {
                let mut bytes = [0; 16];
                for (i, lanes) in values[operand].iter().enumerate() {
                    bytes[i * piece..(i + 1) * piece].copy_from_slice(&lanes[lane].to_le_bytes()[..piece]);
                }
                bytes
            };
            let (a, b) = (bytes(0), bytes(1));
            old[lane] = target.update(context, size, |old| self.apply(old, &a, &b))?;
        }
        for (i, target) in self.targets.iter().enumerate() {
            if let Some((register, width)) = *target {
                let ty = if self.ty == Type::B128 { Type::B64 } else { self.ty };
                let value = |lane: usize| extend(unsigned(ty), &old[lane][i * piece..(i + 1) * piece], width.min(8));
                context.write(register, &std::array::from_fn(value));
            }
        }
        Ok(Outcome::Next)
    }

    fn apply(&self, old: [u8; 16], a: &[u8; 16], b: &[u8; 16]) -> [u8; 16] {
        let size = self.ty.size();
        let mut new = [0; 16];
        for at in (0..size * self.vector).step_by(size) {
            let value = |bytes: &[u8; 16]| {
                let mut wide = [0; 16];
                wide[..size].copy_from_slice(&bytes[at..at + size]);
                u128::from_le_bytes(wide)
            };
            let result = self.operation.apply(self.ty, value(&old), value(a), value(b));
            new[at..at + size].copy_from_slice(&result.to_le_bytes()[..size]);
        }
        new
    }
}

/// Old values keep their bits: they are as wide as their registers.
fn unsigned(ty: Type) -> Type {
    match ty.size() {
        2 => Type::B16,
        4 => Type::B32,
        _ => Type::B64,
    }
}
