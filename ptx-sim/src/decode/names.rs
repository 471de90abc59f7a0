//! What the names of a module and a function stand for.

use std::collections::HashMap;

use crate::ast::{Space, Type};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Entity {
    Register {
        index: usize,
        ty: Type,
    },
    Predicate(usize),
    /// A variable at a fixed address: global, constant or static shared memory.
    Memory(Space, u64),
    /// `extern __shared__`.
    DynamicShared {
        align: usize,
    },
    /// A kernel parameter, by its offset in the parameter block.
    KernelParam(usize),
    /// A `.param` variable of a call, by its offset in the frame, with its size.
    FrameParam {
        offset: usize,
        size: usize,
    },
    /// A `.local` variable, by its offset in the frame.
    FrameLocal(usize),
    Function(usize),
}

/// Parameterised registers: `%r<41>`.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: usize,
    count: u32,
    ty: Type,
}

/// Most digits of a register's number.
const LONGEST: usize = 10;

/// Nested scopes of names, innermost last.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    scopes: Vec<Scope>,
}

#[derive(Clone, Debug, Default)]
struct Scope {
    single: HashMap<String, Entity>,
    ranges: HashMap<String, Range>,
}

impl Default for Names {
    fn default() -> Self {
        Self { scopes: vec![Scope::default()] }
    }
}

impl Names {
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Closes the innermost scope; the outermost stays.
    pub fn close(&mut self) {
        if self.scopes.len() > 1 {
            self.scopes.pop();
        }
    }

    pub fn define(&mut self, name: &str, entity: Entity) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.single.insert(name.into(), entity);
        }
    }

    /// `prefix<count>`: registers (or predicates) from `first` on.
    pub fn define_range(&mut self, prefix: &str, first: usize, count: u32, ty: Type) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.ranges.insert(prefix.into(), Range { first, count, ty });
        }
    }

    pub fn find(&self, name: &str) -> Option<Entity> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let digits = digits.min(LONGEST);
        self.scopes.iter().rev().find_map(|scope| {
            let single = scope.single.get(name).copied();
            single.or_else(|| (1..=digits).find_map(|n| scope.numbered(name.split_at(name.len() - n))))
        })
    }
}

impl Scope {
    fn numbered(&self, (prefix, number): (&str, &str)) -> Option<Entity> {
        let range = self.ranges.get(prefix)?;
        let number: u32 = number.parse().ok().filter(|number| *number < range.count)?;
        let index = range.first + number as usize;
        Some(match range.ty {
            Type::Pred => Entity::Predicate(index),
            ty => Entity::Register { index, ty },
        })
    }
}
