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
    /// The register that each number which a register is declared with stands for.
    places: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Scope {
    single: HashMap<String, Entity>,
    /// By prefix. A scope has so few that looking at all of them is fastest.
    ranges: Vec<(String, Range)>,
}

impl Default for Names {
    fn default() -> Self {
        Self { scopes: vec![Scope::default()], places: Vec::new() }
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
            scope.ranges.retain(|(known, _)| known != prefix);
            scope.ranges.push((prefix.into(), Range { first, count, ty }));
        }
    }

    /// From here on registers are found by these numbers in place of those that they are declared with.
    pub fn place_registers(&mut self, places: Vec<usize>) {
        self.places = places;
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Option<Entity> {
        Some(match self.declared(name)? {
            Entity::Register { index, ty } => {
                Entity::Register { index: self.places.get(index).copied().unwrap_or(index), ty }
            }
            other => other,
        })
    }

    /// What a name stands for, registers by the numbers that they are declared with.
    fn declared(&self, name: &str) -> Option<Entity> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let digits = digits.min(LONGEST);
        self.scopes.iter().rev().find_map(|scope| {
            let single = if scope.single.is_empty() { None } else { scope.single.get(name).copied() };
            single.or_else(|| scope.numbered(name, digits))
        })
    }
}

impl Scope {
    /// A register of a range, whose name ends in so many digits. Of several prefixes the longest counts.
    fn numbered(&self, name: &str, digits: usize) -> Option<Entity> {
        let fits = |(prefix, range): &(String, Range)| {
            let number = name.strip_prefix(prefix.as_str()).filter(|number| (1..=digits).contains(&number.len()))?;
            let number = number.parse().ok().filter(|number: &u32| *number < range.count)?;
            Some((prefix.len(), range.first + number as usize, range.ty))
        };
        let (_, index, ty) = self.ranges.iter().filter_map(fits).max_by_key(|(length, _, _)| *length)?;
        Some(match ty {
            Type::Pred => Entity::Predicate(index),
            ty => Entity::Register { index, ty },
        })
    }
}
