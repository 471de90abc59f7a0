//! What one thread of a program does.

use super::{
    Callee, DEPTH, End, Function, INPUTS, KERNELS, Line, NARROW, NOT_CALLED, Op, PREDICATES, Program, QUADS, SLOTS,
    WIDE,
};

/// A thread's words of the output after a kernel.
pub fn outputs(
    program: &Program,
    kernel: usize,
    inputs: &[u32; INPUTS],
    [x, y]: [u32; 2],
    before: [u32; SLOTS],
) -> [u32; SLOTS] {
    let mut thread = Thread { program, inputs, mine: before };
    thread.call(kernel, [x, y], DEPTH);
    thread.mine
}

struct Thread<'a> {
    program: &'a Program,
    inputs: &'a [u32; INPUTS],
    mine: [u32; SLOTS],
}

/// A call's registers, which begin as zeros.
struct Registers {
    v: [u32; NARROW],
    w: [u64; WIDE],
    q: [[u64; 2]; QUADS],
    p: [bool; PREDICATES],
    fuel: u32,
}

impl Thread<'_> {
    /// The result of a function; `None` if the thread exits in it.
    fn call(&mut self, function: usize, arguments: [u32; 2], depth: u32) -> Option<u32> {
        let program = self.program;
        let Function { blocks, fuel } = &program.functions[function];
        let mut r = Registers { v: [0; NARROW], w: [0; WIDE], q: [[0; 2]; QUADS], p: [false; PREDICATES], fuel: *fuel };
        let mut at = 0;
        loop {
            let block = &blocks[at];
            for line in &block.lines {
                self.execute(line, &mut r, arguments, depth)?;
            }
            let last = blocks.len() - 1;
            let mut stops = |is_backwards: bool| {
                r.fuel = r.fuel.wrapping_sub(u32::from(is_backwards));
                is_backwards && r.fuel == 0
            };
            at = match &block.end {
                End::Next => at + 1,
                End::Jump(to) => {
                    if stops(*to <= at) {
                        last
                    } else {
                        *to
                    }
                }
                End::Branch { block: to, .. } if stops(*to <= at) => last,
                End::Branch { p, negated, block: to } => {
                    if r.p[*p] != *negated {
                        *to
                    } else {
                        at + 1
                    }
                }
                End::Table { blocks: list, .. } if stops(list.iter().any(|to| *to <= at)) => last,
                End::Table { v, blocks: list } => list[r.v[*v] as usize % list.len()],
                End::Return(v) => {
                    if function < KERNELS {
                        self.mine[0] = r.v[*v];
                    }
                    return Some(r.v[*v]);
                }
                End::Exit => return None,
            };
        }
    }

    fn execute(&mut self, line: &Line, r: &mut Registers, arguments: [u32; 2], depth: u32) -> Option<()> {
        let holds = line.guard.is_none_or(|(p, negated)| r.p[p] != negated);
        if let Op::Call { d, callee, a, b } = &line.op {
            let callee = match *callee {
                Callee::Direct(f) => f,
                Callee::Either(f, g, p) => {
                    if r.p[p] {
                        f
                    } else {
                        g
                    }
                }
            };
            let is_made = holds && depth > 0;
            r.v[*d] = if is_made { self.call(callee, [r.v[*a], r.v[*b]], depth - 1)? } else { NOT_CALLED };
            return Some(());
        }
        if !holds {
            return Some(());
        }
        let halves = |value: u64| [value as u32, (value >> 32) as u32];
        match line.op {
            Op::Constant { d, value } => r.v[d] = value,
            Op::Argument { d, index } => r.v[d] = arguments[index],
            Op::Binary { name, d, a, b } => {
                let (a, b) = (r.v[a], r.v[b]);
                r.v[d] = match name {
                    "add.u32" => a.wrapping_add(b),
                    "sub.u32" => a.wrapping_sub(b),
                    "mul.lo.u32" => a.wrapping_mul(b),
                    "xor.b32" => a ^ b,
                    "and.b32" => a & b,
                    "min.u32" => a.min(b),
                    _ => unreachable!("the model does not know {name}"),
                };
            }
            Op::Select { d, a, b, p } => r.v[d] = if r.p[p] { r.v[a] } else { r.v[b] },
            Op::Compare { p, a, b } => r.p[p] = r.v[a] < r.v[b],
            Op::MultiplyWide { w, a, b } => r.w[w] = u64::from(r.v[a]) * u64::from(r.v[b]),
            Op::AddWide { w, a, b } => r.w[w] = r.w[a].wrapping_add(r.w[b]),
            Op::Cut { d, w } => r.v[d] = r.w[w] as u32,
            Op::Pack { w, a, b } => r.w[w] = u64::from(r.v[b]) << 32 | u64::from(r.v[a]),
            Op::Unpack { d, high, w } => [r.v[d], r.v[high]] = halves(r.w[w]),
            Op::PackQuad { q, a, b } => r.q[q] = [r.w[a], r.w[b]],
            Op::UnpackQuad { w, high, q } => [r.w[w], r.w[high]] = r.q[q],
            Op::Load { d, a } => r.v[d] = self.inputs[r.v[a] as usize % INPUTS],
            Op::Store { slot, a } => self.mine[slot] = r.v[a],
            Op::Call { .. } => {}
            Op::Raw(_) => unreachable!("the model does not know what other threads do"),
        }
        Some(())
    }
}
