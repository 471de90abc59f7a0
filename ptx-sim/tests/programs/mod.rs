//! Random programs: kernels and functions whose lanes take different ways through loops, branches and calls.
//!
//! A program is a graph of blocks for each function. `text` writes it as PTX; `model` runs one thread of it without
//! warps, registers' places or turns, for programs without `Op::Raw`, whose threads know nothing of each other.
#![allow(dead_code)] // Each test file uses its own part of this.

pub mod model;
mod text;

/// Kernels of a program, the first of its functions: `F0`, `F1`.
pub const KERNELS: usize = 2;

/// Registers of a function: of 32 bits, of 64, of 128 and predicates.
pub const NARROW: usize = 40;
pub const WIDE: usize = 10;
pub const QUADS: usize = 2;
pub const PREDICATES: usize = 4;

/// Words that a thread stores to, and words that all threads load from.
pub const SLOTS: usize = 8;
pub const INPUTS: usize = 64;

/// Levels of calls below a kernel.
pub const DEPTH: u32 = 3;

/// What a call that is not made leaves as its result.
pub const NOT_CALLED: u32 = 77;

/// Numbers from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// Whether something happens that does once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

pub struct Program {
    /// The kernels first.
    pub functions: Vec<Function>,
}

pub struct Function {
    pub blocks: Vec<Block>,
    /// Jumps backwards that a lane makes in one call before it goes to the last block.
    pub fuel: u32,
}

pub struct Block {
    pub lines: Vec<Line>,
    pub end: End,
}

pub struct Line {
    /// A predicate and whether it is negated.
    pub guard: Option<(usize, bool)>,
    pub op: Op,
}

/// Operations; `d` is written, the others are read. `v`, `w`, `q`, `p` are registers of 32, 64 and 128 bits, and
/// predicates.
pub enum Op {
    Constant {
        d: usize,
        value: u32,
    },
    /// The first or the second argument: of a kernel `%tid.x` and `%ctaid.x`.
    Argument {
        d: usize,
        index: usize,
    },
    /// `add.u32` and its like.
    Binary {
        name: &'static str,
        d: usize,
        a: usize,
        b: usize,
    },
    Select {
        d: usize,
        a: usize,
        b: usize,
        p: usize,
    },
    Compare {
        p: usize,
        a: usize,
        b: usize,
    },
    MultiplyWide {
        w: usize,
        a: usize,
        b: usize,
    },
    AddWide {
        w: usize,
        a: usize,
        b: usize,
    },
    Cut {
        d: usize,
        w: usize,
    },
    Pack {
        w: usize,
        a: usize,
        b: usize,
    },
    Unpack {
        d: usize,
        high: usize,
        w: usize,
    },
    PackQuad {
        q: usize,
        a: usize,
        b: usize,
    },
    UnpackQuad {
        w: usize,
        high: usize,
        q: usize,
    },
    /// Word `a` of the inputs, modulo their number.
    Load {
        d: usize,
        a: usize,
    },
    Store {
        slot: usize,
        a: usize,
    },
    Call {
        d: usize,
        callee: Callee,
        a: usize,
        b: usize,
    },
    /// Any other line, perhaps with a guard of its own in place of this one.
    Raw(String),
}

#[derive(Clone, Copy)]
pub enum Callee {
    Direct(usize),
    /// By address: the first where predicate `p` holds, else the second.
    Either(usize, usize, usize),
}

pub enum End {
    /// Goes on with the next block.
    Next,
    Jump(usize),
    /// Lanes for which a predicate holds, or if negated does not, jump; the others go on.
    Branch {
        p: usize,
        negated: bool,
        block: usize,
    },
    /// `brx.idx` by a register modulo the number of blocks, which is a power of two.
    Table {
        v: usize,
        blocks: Vec<usize>,
    },
    Return(usize),
    Exit,
}

/// A program from a seed; `raw` makes lines that the model does not know, once in a few lines.
pub fn random(seed: u64, mut raw: Option<&mut dyn FnMut(&mut Random) -> String>) -> Program {
    let mut random = Random::new(seed);
    let functions = KERNELS + random.below(4);
    let fuel = if random.once_in(8) { 400 } else { 6 };
    let functions = (0..functions).map(|index| function(&mut random, index, functions, fuel, &mut raw)).collect();
    Program { functions }
}

fn function(
    random: &mut Random,
    index: usize,
    functions: usize,
    fuel: u32,
    raw: &mut Option<&mut dyn FnMut(&mut Random) -> String>,
) -> Function {
    let is_kernel = index < KERNELS;
    let count = 2 + random.below(if is_kernel { 10 } else { 5 });
    // Calls in long loops would take long.
    let is_long = is_kernel && fuel > 10;
    let mut calls = if functions > KERNELS && !is_long { 1 + random.below(3) } else { 0 };
    let mut recent = Recent { narrow: vec![0], wide: vec![0] };
    let blocks = (0..count).map(|block| {
        let lines = (0..random.below(12)).map(|at| {
            // Lanes differ from the beginning, or few branches would tell them apart.
            if block == 0 && at < 6 {
                return Line { guard: None, op: beginning(random, &mut recent, at) };
            }
            let guard = random.once_in(5).then(|| (random.below(PREDICATES), random.once_in(2)));
            let op = match raw {
                Some(raw) if random.once_in(6) => Op::Raw(raw(random)),
                _ => op(random, &mut recent, functions, &mut calls),
            };
            Line { guard, op }
        });
        let lines = lines.collect();
        let end = if block + 1 == count { End::Return(recent.narrow(random)) } else { end(random, &mut recent, count) };
        Block { lines, end }
    });
    // A called function's loops are short, for its callers have loops too.
    Function { blocks: blocks.collect(), fuel: if is_kernel { fuel } else { 2 } }
}

fn end(random: &mut Random, recent: &mut Recent, count: usize) -> End {
    match random.below(16) {
        0..3 => End::Next,
        3..5 => End::Jump(random.below(count)),
        5..13 => End::Branch { p: random.below(PREDICATES), negated: random.once_in(2), block: random.below(count) },
        13 => {
            let targets = random.of(&[1, 2, 4]);
            End::Table { v: recent.narrow(random), blocks: (0..targets).map(|_| random.below(count)).collect() }
        }
        14 => End::Return(recent.narrow(random)),
        _ if random.once_in(3) => End::Exit,
        _ => End::Next,
    }
}

/// Registers written lately: mostly these are read, so that most lives are short, as a compiler's are.
struct Recent {
    narrow: Vec<usize>,
    wide: Vec<usize>,
}

impl Recent {
    fn narrow(&self, random: &mut Random) -> usize {
        if random.once_in(12) {
            random.below(NARROW)
        } else {
            self.narrow[self.narrow.len() - 1 - random.below(self.narrow.len().min(4))]
        }
    }

    fn wide(&self, random: &mut Random) -> usize {
        if random.once_in(8) {
            random.below(WIDE)
        } else {
            self.wide[self.wide.len() - 1 - random.below(self.wide.len().min(2))]
        }
    }

    fn write_narrow(&mut self, random: &mut Random) -> usize {
        self.narrow.push(random.below(NARROW));
        self.narrow[self.narrow.len() - 1]
    }

    fn write_wide(&mut self, random: &mut Random) -> usize {
        self.wide.push(random.below(WIDE));
        self.wide[self.wide.len() - 1]
    }
}

/// Numbers that differ from thread to thread, and comparisons of them.
fn beginning(random: &mut Random, recent: &mut Recent, at: usize) -> Op {
    match at % 3 {
        0 => Op::Argument { d: recent.write_narrow(random), index: 0 },
        1 => Op::Constant { d: recent.write_narrow(random), value: random.below(40) as u32 },
        _ => {
            let [.., a, b] = recent.narrow[..] else {
                return Op::Argument { d: recent.write_narrow(random), index: 1 };
            };
            Op::Compare { p: random.below(PREDICATES), a, b }
        }
    }
}

fn op(random: &mut Random, recent: &mut Recent, functions: usize, calls: &mut usize) -> Op {
    let (a, b) = (recent.narrow(random), recent.narrow(random));
    let p = random.below(PREDICATES);
    match random.below(32) {
        0..2 => Op::Constant { d: recent.write_narrow(random), value: random.below(64) as u32 },
        2..5 => Op::Argument { d: recent.write_narrow(random), index: random.below(2) },
        5..11 => {
            let name = random.of(&["add.u32", "sub.u32", "mul.lo.u32", "xor.b32", "and.b32", "min.u32"]);
            Op::Binary { name, d: recent.write_narrow(random), a, b }
        }
        11..13 => Op::Select { d: recent.write_narrow(random), a, b, p },
        13..17 => Op::Compare { p, a, b },
        17 => Op::MultiplyWide { w: recent.write_wide(random), a, b },
        18 => {
            let (a, b) = (recent.wide(random), recent.wide(random));
            Op::AddWide { w: recent.write_wide(random), a, b }
        }
        19 => {
            let w = recent.wide(random);
            Op::Cut { d: recent.write_narrow(random), w }
        }
        20 => Op::Pack { w: recent.write_wide(random), a, b },
        21 => {
            let w = recent.wide(random);
            let d = recent.write_narrow(random);
            // Both halves go to different registers.
            Op::Unpack { d, high: (d + 1 + random.below(NARROW - 1)) % NARROW, w }
        }
        22 => {
            let (a, b) = (recent.wide(random), recent.wide(random));
            Op::PackQuad { q: random.below(QUADS), a, b }
        }
        23 => {
            let w = recent.write_wide(random);
            Op::UnpackQuad { w, high: (w + 1 + random.below(WIDE - 1)) % WIDE, q: random.below(QUADS) }
        }
        24..26 => Op::Load { d: recent.write_narrow(random), a },
        26..28 => Op::Store { slot: random.below(SLOTS), a },
        _ if *calls > 0 => {
            *calls -= 1;
            let mut callee = || KERNELS + random.below(functions - KERNELS);
            let (f, g) = (callee(), callee());
            let callee = if random.once_in(2) { Callee::Direct(f) } else { Callee::Either(f, g, p) };
            Op::Call { d: recent.write_narrow(random), callee, a, b }
        }
        _ => Op::Store { slot: random.below(SLOTS), a },
    }
}
