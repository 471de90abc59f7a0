//! The products of `wgmma` that a warp has begun and not waited for: accumulators on their way, and what the checker
//! has to say of the registers (PTX ISA sections 9.7.15.5.2 and 9.7.15.7).
//!
//! A product is computed when it is issued, but its accumulators are kept here until a `wgmma.wait_group` has waited
//! for it: a kernel that reads them before finds the old values. A product with the same accumulators finds the new
//! ones.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Frame;
use super::held::shrink;
use super::lanes::Lanes;
use super::register_file::Word;
use crate::fault::Fault;

/// The shape of accumulators: columns, and whether their elements are packed in halves of a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub columns: usize,
    pub packed: bool,
}

/// A matrix of accumulators in flight.
#[derive(Debug)]
struct Tile {
    registers: Arc<[usize]>,
    values: Vec<Lanes>,
    /// Number of the last product that it belongs to.
    last: u64,
}

/// How a product uses a register.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Number of the last product that does; 0 if there is none.
    product: u64,
    /// Its PTX line.
    line: u32,
    /// Which register of the matrix it is.
    index: usize,
}

/// What is known of a register.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    accumulates: Use,
    multiplies: Use,
    /// The shape of the accumulators that it belongs to, and the fences that the warp had passed then.
    shape: Shape,
    fences: u64,
    /// The line of the last ordinary instruction that has touched it, and the fences that the warp had passed then.
    touched: u32,
    touched_fences: u64,
}

/// A warp's products.
#[derive(Debug, Default)]
pub(crate) struct Products {
    /// Products issued so far.
    issued: u64,
    /// Groups that have not been waited for, oldest first: `issued` at their commit, and how many in a row have the
    /// same, so that a loop which commits empty groups takes no memory.
    groups: VecDeque<(u64, u64)>,
    /// How many groups they are.
    pending: u64,
    /// Products that have been waited for: all up to this number.
    finished: u64,
    /// `issued` at the last commit.
    committed: u64,
    /// `wgmma.fence`s executed so far.
    fences: u64,
    /// Line of the last product.
    line: u32,
    /// The level of calls that the registers belong to.
    depth: usize,
    tiles: Vec<Tile>,
    registers: Vec<Register>,
}

fn accumulator(index: usize) -> String {
    format!("register {index} of D")
}

fn multiplicand(index: usize) -> String {
    format!("register {index} of A")
}

impl Products {
    fn in_flight(&self, used: Use) -> bool {
        used.product > self.finished
    }

    fn fault(register: String, used: Use) -> Fault {
        Fault::ProductInFlight { register, line: used.line }
    }

    /// An ordinary instruction of a PTX line touches registers. Returns what the checker has to say.
    pub fn touch(&mut self, registers: &[u32], depth: usize, line: u32) -> Option<Fault> {
        if depth != self.depth {
            return None;
        }
        let mut found = None;
        for &register in registers {
            let register = register as usize;
            if self.registers.len() <= register {
                self.registers.resize(register + 1, Register::default());
            }
            let known = &mut self.registers[register];
            (known.touched, known.touched_fences) = (line, self.fences);
            let (accumulates, multiplies) = (known.accumulates, known.multiplies);
            if self.in_flight(accumulates) {
                found = found.or(Some(Self::fault(accumulator(accumulates.index), accumulates)));
            } else if self.in_flight(multiplies) {
                found = found.or(Some(Self::fault(multiplicand(multiplies.index), multiplies)));
            }
        }
        found
    }

    /// What the checker has to say before a product is issued; `d` and `a` are its registers.
    pub fn check(&self, d: &[usize], a: &[usize], shape: Shape) -> Option<Fault> {
        if self.fences == 0 {
            return Some(Fault::Wgmma("there is no `wgmma.fence` before the first product".into()));
        }
        let known = |register: usize| self.registers.get(register).copied().unwrap_or_default();
        let unfenced = |register: String, line: u32| Fault::NoRegisterFence { register, line };
        let touched = |known: &Register| known.touched != 0 && known.touched_fences == self.fences;
        let chained = self.tile(d).is_some();
        for (index, register) in d.iter().enumerate() {
            let known = known(*register);
            if self.in_flight(known.multiplies) {
                return Some(Self::fault(multiplicand(known.multiplies.index), known.multiplies));
            }
            if self.in_flight(known.accumulates) && !(chained && known.shape == shape) {
                return Some(Self::fault(accumulator(known.accumulates.index), known.accumulates));
            }
            if touched(&known) {
                return Some(unfenced(accumulator(index), known.touched));
            }
            let used = known.accumulates;
            if used.product != 0 && known.shape != shape && known.fences == self.fences {
                return Some(unfenced(accumulator(index), used.line));
            }
        }
        for (index, register) in a.iter().enumerate() {
            let known = known(*register);
            if self.in_flight(known.accumulates) {
                return Some(Self::fault(accumulator(known.accumulates.index), known.accumulates));
            }
            if touched(&known) {
                return Some(unfenced(multiplicand(index), known.touched));
            }
        }
        None
    }

    fn tile(&self, registers: &[usize]) -> Option<&Tile> {
        self.tiles.iter().find(|tile| *tile.registers == *registers)
    }

    /// The accumulators in flight of these registers.
    pub fn accumulators(&self, registers: &[usize]) -> Option<&[Lanes]> {
        self.tile(registers).map(|tile| tile.values.as_slice())
    }

    /// The warp is about to issue at this level of calls.
    pub fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        if depth == self.depth {
            return Ok(());
        }
        if self.issued > self.finished {
            let line = self.line;
            return Err(Fault::Wgmma(format!("the product of PTX line {line} is in flight across a call or a return")));
        }
        self.registers.clear();
        self.depth = depth;
        Ok(())
    }

    /// Issues a product with its results.
    pub fn issue(&mut self, d: &Arc<[usize]>, a: &[usize], shape: Shape, values: Vec<Lanes>, line: u32) {
        self.issued += 1;
        self.line = line;
        let last = self.issued;
        match self.tiles.iter_mut().find(|tile| *tile.registers == **d) {
            Some(tile) => (tile.values, tile.last) = (values, last),
            None => self.tiles.push(Tile { registers: Arc::clone(d), values, last }),
        }
        let most = d.iter().chain(a).copied().max().unwrap_or(0);
        if self.registers.len() <= most {
            self.registers.resize(most + 1, Register::default());
        }
        for (index, register) in d.iter().enumerate() {
            let known = &mut self.registers[*register];
            known.accumulates = Use { product: last, line, index };
            (known.shape, known.fences) = (shape, self.fences);
        }
        for (index, register) in a.iter().enumerate() {
            self.registers[*register].multiplies = Use { product: last, line, index };
        }
    }

    /// What ordinary instructions have done to registers so far is before what products do from here on.
    pub fn fence(&mut self) {
        self.fences += 1;
    }

    /// Makes a group of the products issued since the last one.
    pub fn commit(&mut self) {
        match self.groups.back_mut() {
            Some((issued, count)) if *issued == self.issued => *count += 1,
            _ => self.groups.push_back((self.issued, 1)),
        }
        self.pending += 1;
        self.committed = self.issued;
    }

    /// Waits until at most `pending` groups are in flight; what they have computed goes to the registers. Returns what
    /// the checker has to say.
    pub fn wait(&mut self, pending: u64, depth: usize, frames: &mut [Frame]) -> Result<Option<Fault>, Fault> {
        let uncommitted = self.issued > self.committed;
        let found = (pending == 0 && self.pending == 0 && uncommitted).then(|| {
            let line = self.line;
            Fault::Wgmma(format!("nothing is waited for: the product of PTX line {line} has not been committed"))
        });
        if self.pending <= pending {
            return Ok(found);
        }
        self.enter(depth)?;
        while let Some((issued, count)) = self.groups.front_mut()
            && self.pending > pending
        {
            let complete = (*count).min(self.pending - pending);
            (self.finished, self.pending) = (*issued, self.pending - complete);
            *count -= complete;
            if *count == 0 {
                self.groups.pop_front();
            }
        }
        shrink(&mut self.groups);
        let finished = self.finished;
        let Some(frame) = frames.get_mut(depth) else { return Ok(found) };
        self.tiles.retain(|tile| {
            if tile.last > finished {
                return true;
            }
            for (register, values) in tile.registers.iter().zip(&tile.values) {
                u64::write(&mut frame.registers, *register, u32::MAX, values);
            }
            false
        });
        Ok(found)
    }

    /// Bytes of this computer's memory that groups in flight take.
    pub fn held_bytes(&self) -> usize {
        self.groups.len() * size_of::<(u64, u64)>()
    }

    /// What is wrong if the warp exits now.
    pub fn unfinished(&self) -> Option<Fault> {
        let line = self.line;
        (self.issued > self.finished)
            .then(|| Fault::Wgmma(format!("the warp exits and has not waited for the product of PTX line {line}")))
    }
}
