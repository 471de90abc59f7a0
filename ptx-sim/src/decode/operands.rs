//! An instruction's operands, as the instruction families ask for them.

use super::error::DecodeError;
use super::names::{Entity, Names};
use crate::ast::{Instruction, Operand, Space, Type};
use crate::exec::{Source, Special, function_address};

/// An instruction with the names it can see.
pub(crate) struct Operands<'a> {
    pub instruction: &'a Instruction,
    pub names: &'a Names,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Operands<'_> {
    /// An error at this instruction.
    pub fn error<T>(&self, why: impl std::fmt::Display) -> Result<T> {
        Err(DecodeError::new(self.instruction.line, format!("`{}`: {why}", self.instruction.name())))
    }

    /// The opcode's first part: `ld` of `ld.global.f32`.
    pub fn root(&self) -> &str {
        self.instruction.opcode.first().map_or("", String::as_str)
    }

    /// The opcode's other parts.
    pub fn modifiers(&self) -> impl Iterator<Item = &str> + Clone {
        self.instruction.opcode.iter().skip(1).map(String::as_str)
    }

    /// The opcode's other parts, to be matched as a whole: for instructions that fix their order.
    pub fn parts(&self) -> Vec<&str> {
        self.modifiers().collect()
    }

    /// The same with those that are listed in front, in the order of the list. ptxas takes parts in any order, and
    /// libraries make use of it: CUB writes `vote.ballot.sync`, others `ldmatrix.sync.aligned.x4.m8n8`.
    pub fn parts_with(&self, front: &[&str]) -> Vec<&str> {
        let mut parts = self.parts();
        let place = |part: &&str| front.iter().position(|other| other == part).unwrap_or(front.len());
        parts.sort_by_key(place);
        parts
    }

    /// Whether the opcode has this part.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers().any(|m| m == modifier)
    }

    /// The types among the opcode's parts, in order.
    pub fn types(&self) -> Vec<Type> {
        self.modifiers().filter_map(Type::from_name).collect()
    }

    /// Returns an error if the opcode has a part that is neither a type nor one of `known`.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.modifiers().find(|m| Type::from_name(m).is_none() && !known.contains(m)) {
            Some(unknown) => self.error(format!("unknown part `.{unknown}`")),
            None => Ok(()),
        }
    }

    /// Returns an error unless there are `min..=max` operands.
    pub fn count(&self, min: usize, max: usize) -> Result<usize> {
        let count = self.instruction.operands.len();
        if (min..=max).contains(&count) {
            Ok(count)
        } else {
            self.error(format!("expected {min} to {max} operands, got {count}"))
        }
    }

    /// Operand `index` as written.
    pub fn operand(&self, index: usize) -> Result<&Operand> {
        match self.instruction.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.error(format!("operand {} is missing", index + 1)),
        }
    }

    /// Operand `index` as a value of type `ty`.
    pub fn source(&self, index: usize, ty: Type) -> Result<Source> {
        self.value(self.operand(index)?, ty)
    }

    /// A value of type `ty`.
    pub fn value(&self, operand: &Operand, ty: Type) -> Result<Source> {
        let bits = 8 * ty.size().min(8);
        let cut = |value: u64| if bits == 64 || bits == 0 { value } else { value & ((1 << bits) - 1) };
        Ok(match operand {
            Operand::Integer(value) => match ty {
                Type::F32 => Source::Immediate((*value as i64 as f32).to_bits().into()),
                Type::F64 => Source::Immediate((*value as i64 as f64).to_bits()),
                _ => Source::Immediate(cut(*value)),
            },
            Operand::F32(value) if ty == Type::F64 => Source::Immediate(f64::from(f32::from_bits(*value)).to_bits()),
            Operand::F32(value) => Source::Immediate(u64::from(*value)),
            Operand::F64(value) => match ty {
                Type::F32 => Source::Immediate((f64::from_bits(*value) as f32).to_bits().into()),
                Type::F64 | Type::B64 => Source::Immediate(*value),
                _ => return self.error("a floating-point constant does not fit here"),
            },
            Operand::Name(name) => self.named(name)?,
            Operand::Sum { name, offset } => match self.named(name)? {
                Source::Immediate(base) => Source::Immediate(base.wrapping_add_signed(*offset)),
                Source::FrameLocal(base) => Source::FrameLocal(base.wrapping_add_signed(*offset as isize)),
                Source::FrameParam(base) => Source::FrameParam(base.wrapping_add_signed(*offset as isize)),
                _ => return self.error(format!("`{name}` is no variable with a fixed address")),
            },
            Operand::Not(inner) => match self.value(inner, ty)? {
                Source::Predicate { index, negated } => Source::Predicate { index, negated: !negated },
                _ => return self.error("`!` is for predicates"),
            },
            other => return self.error(format!("expected a value, found {other:?}")),
        })
    }

    fn named(&self, name: &str) -> Result<Source> {
        if let Some(special) = special(name) {
            return Ok(Source::Special(special));
        }
        Ok(match self.names.find(name) {
            Some(Entity::Register { index, .. }) => Source::Register(index),
            Some(Entity::Predicate(index)) => Source::Predicate { index, negated: false },
            Some(Entity::Memory(_, address)) => Source::Immediate(address),
            Some(Entity::DynamicShared { align }) => Source::DynamicShared { align },
            Some(Entity::KernelParam(offset)) => Source::Immediate(offset as u64),
            Some(Entity::FrameParam { offset, .. }) => Source::FrameParam(offset),
            Some(Entity::FrameLocal(offset)) => Source::FrameLocal(offset),
            Some(Entity::Function(index)) => Source::Immediate(function_address(index)),
            None => return self.error(format!("`{name}` is not declared")),
        })
    }

    /// Operand `index` as a destination register; `None` for `_`.
    pub fn destination(&self, index: usize) -> Result<Option<usize>> {
        self.register(self.operand(index)?)
    }

    /// A destination register; `None` for `_`.
    pub fn register(&self, operand: &Operand) -> Result<Option<usize>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Name(name) => match self.names.find(name) {
                Some(Entity::Register { index, .. }) => Ok(Some(index)),
                _ => self.error(format!("`{name}` is no register")),
            },
            other => self.error(format!("expected a register, found {other:?}")),
        }
    }

    /// A predicate and whether it is negated.
    pub fn predicate(&self, operand: &Operand) -> Result<(usize, bool)> {
        match operand {
            Operand::Not(inner) => self.predicate(inner).map(|(index, negated)| (index, !negated)),
            Operand::Name(name) => match self.names.find(name) {
                Some(Entity::Predicate(index)) => Ok((index, false)),
                _ => self.error(format!("`{name}` is no predicate")),
            },
            other => self.error(format!("expected a predicate, found {other:?}")),
        }
    }

    /// A destination predicate; `None` for `_`.
    pub fn predicate_destination(&self, operand: &Operand) -> Result<Option<usize>> {
        match operand {
            Operand::Sink => Ok(None),
            other => self.predicate(other).map(|(index, _)| Some(index)),
        }
    }

    /// The parts of `{a, b}`, or the operand alone.
    pub fn elements(&self, index: usize) -> Result<&[Operand]> {
        Ok(match self.operand(index)? {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        })
    }

    /// `[base+offset]` of operand `index`.
    pub fn address(&self, index: usize) -> Result<(Source, i64)> {
        match self.operand(index)? {
            Operand::Address { base, offset } => Ok((self.value(base, Type::B64)?, *offset)),
            other => self.error(format!("expected an address, found {other:?}")),
        }
    }

    /// The state space of the variable that an address operand names directly, if it names one.
    pub fn named_space(&self, index: usize) -> Option<Space> {
        let Operand::Address { base, .. } = self.instruction.operands.get(index)? else { return None };
        let Operand::Name(name) = base.as_ref() else { return None };
        match self.names.find(name)? {
            Entity::Memory(space, _) => Some(space),
            Entity::DynamicShared { .. } => Some(Space::Shared),
            Entity::KernelParam(_) | Entity::FrameParam { .. } => Some(Space::Param),
            Entity::FrameLocal(_) => Some(Space::Local),
            _ => None,
        }
    }

    /// Every register, no predicates, that an operand names.
    pub fn registers_of(&self, operand: &Operand, found: &mut Vec<u32>) {
        match operand {
            Operand::Name(name) => {
                if let Some(Entity::Register { index, ty }) = self.names.find(name) {
                    found.push(index as u32);
                    found.extend((ty == Type::B128).then_some(index as u32 + 1));
                }
            }
            Operand::Address { base: inner, .. } | Operand::Not(inner) | Operand::Negative(inner) => {
                self.registers_of(inner, found);
            }
            Operand::Pair(first, second) => {
                self.registers_of(first, found);
                self.registers_of(second, found);
            }
            Operand::Vector(list) | Operand::List(list) | Operand::TensorAddress(list) => {
                list.iter().for_each(|operand| self.registers_of(operand, found));
            }
            Operand::Integer(_) | Operand::F32(_) | Operand::F64(_) | Operand::Sink | Operand::Sum { .. } => {}
        }
    }

    /// The declared type of a register operand.
    pub fn register_type(&self, operand: &Operand) -> Option<Type> {
        let Operand::Name(name) = operand else { return None };
        match self.names.find(name)? {
            Entity::Register { ty, .. } => Some(ty),
            _ => None,
        }
    }
}

/// A special register by its name.
fn special(name: &str) -> Option<Special> {
    let axis = |suffix: &str| ["x", "y", "z"].iter().position(|a| *a == suffix);
    if let Some((root, suffix)) = name.rsplit_once('.') {
        let axis = axis(suffix)?;
        return Some(match root {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            "%clusterid" => Special::Clusterid(axis),
            "%nclusterid" => Special::Nclusterid(axis),
            "%cluster_ctaid" => Special::ClusterCtaid(axis),
            "%cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%is_explicit_cluster" => Special::IsExplicitCluster,
        "%laneid" => Special::Laneid,
        "%warpid" => Special::Warpid,
        "%nwarpid" => Special::Nwarpid,
        "%smid" => Special::Smid,
        "%nsmid" => Special::Nsmid,
        "%gridid" => Special::Gridid,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%clock" => Special::Clock,
        "%clock64" => Special::Clock64,
        "%globaltimer" => Special::Globaltimer,
        "%globaltimer_lo" => Special::GlobaltimerLo,
        "%globaltimer_hi" => Special::GlobaltimerHi,
        "%dynamic_smem_size" => Special::DynamicSmemSize,
        "%total_smem_size" => Special::TotalSmemSize,
        _ => return None,
    })
}
