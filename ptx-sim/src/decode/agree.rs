//! Whether operands agree with the types that an instruction has for them (PTX ISA section 9.4).

use super::error::DecodeError;
use super::names::Entity;
use super::operands::Operands;
use crate::ast::{Operand, Type};
use crate::exec::Source;

type Result<T> = std::result::Result<T, DecodeError>;

/// What values of a type are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bits,
    Integer,
    /// Floating-point types of one size differ: `.f16x2` is not `.f32`.
    Float(Type),
    Predicate,
}

fn kind(ty: Type) -> Kind {
    match ty {
        Type::B8 | Type::B16 | Type::B32 | Type::B64 | Type::B128 => Kind::Bits,
        Type::S8 | Type::S16 | Type::S32 | Type::S64 | Type::U8 | Type::U16 | Type::U32 | Type::U64 => Kind::Integer,
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Tf32 | Type::F32 | Type::F64 => Kind::Float(ty),
        Type::Pred => Kind::Predicate,
    }
}

/// Whether values of both types are of one kind; bits are of each kind but the predicates'.
fn alike(a: Type, b: Type) -> bool {
    let (a, b) = (kind(a), kind(b));
    a == b || a != Kind::Predicate && b != Kind::Predicate && (a == Kind::Bits || b == Kind::Bits)
}

/// Which sizes agree with the instruction's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Same,
    /// Loads and stores take wider registers, too (section 9.4.1).
    Least,
}

impl Operands<'_> {
    /// Operand `index` as a value of type `ty`: a constant of that kind, or a register of its size and kind.
    pub fn agreeing(&self, index: usize, ty: Type) -> Result<Source> {
        self.agreeing_value(self.operand(index)?, ty)
    }

    /// A value of type `ty`: a constant of that kind, or a register of its size and kind.
    pub fn agreeing_value(&self, operand: &Operand, ty: Type) -> Result<Source> {
        self.check_value(operand, ty, Width::Same)?;
        self.value(operand, ty)
    }

    /// Returns an error unless a store may take the operand as its value of type `ty`: a constant of that kind, or a
    /// register of that kind and at least its size.
    pub fn check_stored(&self, operand: &Operand, ty: Type) -> Result<()> {
        self.check_value(operand, ty, Width::Least)
    }

    /// Returns an error unless a load may bring its value of type `ty` to the operand: a register of that kind and at
    /// least its size.
    pub fn check_loaded(&self, operand: &Operand, ty: Type) -> Result<()> {
        self.check_register(operand, ty, Width::Least)
    }

    /// Returns an error if registers of a vector differ in size.
    pub fn check_vector(&self, elements: &[Operand]) -> Result<()> {
        let mut sizes = elements.iter().filter_map(|element| self.register_type(element)).map(Type::size);
        match sizes.next() {
            Some(first) if sizes.any(|size| size != first) => self.error("the vector's registers differ in size"),
            _ => Ok(()),
        }
    }

    /// Operand `index` as the register of a result of type `ty`; `None` for `_`.
    pub fn result(&self, index: usize, ty: Type) -> Result<Option<usize>> {
        self.result_of(self.operand(index)?, ty)
    }

    /// The register of a result of type `ty`; `None` for `_`.
    pub fn result_of(&self, operand: &Operand, ty: Type) -> Result<Option<usize>> {
        self.check_register(operand, ty, Width::Same)?;
        self.register(operand)
    }

    /// Operand `index` as the register of a result of type `ty`, of an instruction that has no `_`.
    pub fn needed(&self, index: usize, ty: Type) -> Result<usize> {
        match self.result(index, ty)? {
            Some(register) => Ok(register),
            None => self.error("expected a register in place of `_`"),
        }
    }

    /// Operand `index` as the predicate of a result, of an instruction that has no `_`.
    pub fn needed_predicate(&self, index: usize) -> Result<usize> {
        match self.predicate_destination(self.operand(index)?)? {
            Some(predicate) => Ok(predicate),
            None => self.error("expected a predicate in place of `_`"),
        }
    }

    /// The constant that operand `index` is, if it is one: what a register has to hold when the instruction runs can be
    /// seen of it at once.
    pub fn constant(&self, index: usize) -> Option<u64> {
        match self.instruction.operands.get(index)? {
            Operand::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns an error unless a register of an address is one: integers or bits, of at most 64.
    pub fn check_address(&self, base: &Operand) -> Result<()> {
        let Operand::Name(name) = base else { return Ok(()) };
        match self.names.find(name) {
            Some(Entity::Predicate(_)) => self.error(format!("`{name}` is a predicate, where an address is expected")),
            Some(Entity::Register { ty, .. }) if matches!(kind(ty), Kind::Float(_)) || ty.size() > 8 => {
                self.error(format!("the `.{}` register `{name}` holds no address", ty.name()))
            }
            _ => Ok(()),
        }
    }

    fn check_value(&self, operand: &Operand, ty: Type, width: Width) -> Result<()> {
        let fits = match (operand, kind(ty)) {
            (Operand::Integer(_), Kind::Float(_)) => false,
            (Operand::F32(_) | Operand::F64(_), Kind::Integer) => false,
            (Operand::F32(_), Kind::Bits) => ty == Type::B32,
            (Operand::F32(_) | Operand::F64(_), Kind::Float(_)) => matches!(ty, Type::F32 | Type::F64),
            _ => return self.check_register(operand, ty, width),
        };
        if fits { Ok(()) } else { self.error(format!("expected a constant that is a `.{}`", ty.name())) }
    }

    fn check_register(&self, operand: &Operand, ty: Type, width: Width) -> Result<()> {
        let (Operand::Name(name), expected) = (operand, ty.name()) else { return Ok(()) };
        match self.names.find(name) {
            Some(Entity::Register { ty: own, .. }) => {
                let (bits, wanted) = (8 * own.size(), 8 * ty.size());
                if own.size() < ty.size() || width == Width::Same && own.size() > ty.size() {
                    self.error(format!("`{name}` is a register of {bits} bits, where `.{expected}` has {wanted}"))
                } else if !alike(own, ty) {
                    self.error(format!("`{name}` is a `.{}` register, where a `.{expected}` is expected", own.name()))
                } else {
                    Ok(())
                }
            }
            Some(Entity::Predicate(_)) if ty != Type::Pred => {
                self.error(format!("`{name}` is a predicate, where a `.{expected}` is expected"))
            }
            _ => Ok(()),
        }
    }
}
