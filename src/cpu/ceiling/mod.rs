//! `ceiling`: what the machine can do at most, as `csrc/ceiling.cu` has it: bytes that are copied, bytes that are only read,
//! and products in registers: of f32, and of 8-bit integers on levels that have them.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod int8;

use std::hint::black_box;

use rayon::prelude::*;

use super::TASKS_AT_ONCE;
use super::level::{Arithmetic, LANES, Level, Task};
use super::memory::{numbers, numbers_mut};
use crate::sys;

/// Numbers of 8 bytes in a unit of the parameter blocks.
const UNIT: usize = 2;

/// Words of the exclusive or, and so the tasks that read: as many as a GPU of as many multiprocessors has warps.
const READERS: usize = 8 * TASKS_AT_ONCE * sys::CEILING_THREADS as usize / WARP;
/// As many warps that multiply.
const MULTIPLIERS: usize = 2 * TASKS_AT_ONCE * sys::CEILING_THREADS as usize / WARP;
const WARP: usize = 32;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn ceiling_copy(params: &sys::CeilingCopyParams) {
    // SAFETY: promised by the caller.
    let (from, to) = unsafe { (from(params), numbers_mut::<u64>(params.to, UNIT * params.units as usize)) };
    let part = from.len().div_ceil(TASKS_AT_ONCE).max(1);
    to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn ceiling_read(params: &sys::CeilingCopyParams, level: Level) {
    // SAFETY: promised by the caller.
    let (from, words) = unsafe { (from(params), numbers_mut::<u64>(params.to, READERS)) };
    words.par_iter_mut().enumerate().for_each(|(reader, word)| {
        let at = |reader: usize| from.len() * reader / READERS;
        level.run(Read { from: &from[at(reader)..at(reader + 1)], word });
    });
}

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn ceiling_mma(params: &sys::CeilingMmaParams, level: Level) {
    // SAFETY: promised by the caller.
    let out = unsafe { numbers_mut::<f32>(params.out, MULTIPLIERS * WARP) };
    out.par_chunks_mut(WARP).for_each(|out| level.run(Multiply { rounds: params.rounds, out }));
}

/// # Safety
/// As [`cpu`](super); the level has products of 8-bit integers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) unsafe fn ceiling_int8(params: &sys::CeilingMmaParams, level: Level) {
    // SAFETY: promised by the caller.
    let out = unsafe { numbers_mut::<f32>(params.out, MULTIPLIERS * WARP) };
    out.par_chunks_mut(WARP).for_each(|out| {
        // SAFETY: promised by the caller, and devices are made of levels that the machine has.
        let total = unsafe { int8::multiply(level, params.rounds) };
        out.fill((total / WARP as f64) as f32);
    });
}

/// What is read.
///
/// # Safety
/// As [`cpu`](super).
unsafe fn from(params: &sys::CeilingCopyParams) -> &[u64] {
    // SAFETY: promised by the caller.
    unsafe { numbers(params.from, UNIT * params.units as usize) }
}

struct Read<'a> {
    from: &'a [u64],
    word: &'a mut u64,
}

impl Task for Read<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        *self.word = self.from.iter().fold(0, |word, number| word ^ number);
    }
}

struct Multiply<'a> {
    rounds: u32,
    out: &'a mut [f32],
}

/// Sums that do not wait for each other: as many as there are registers for, beside the operands.
const CHAINS: usize = 12;

/// Products of eight numbers in a round, and how many of them each chain has; the first chains have the rest.
const PRODUCTS: usize = sys::CEILING_MMA_FLOPS_PER_WARP as usize / 2 / LANES;
const EACH: usize = PRODUCTS / CHAINS;

impl Task for Multiply<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        // Numbers that the compiler does not know.
        let (a, b) = (A::splat(black_box(1.0)), A::splat(black_box(1.0)));
        let mut sums = [A::splat(0.0); CHAINS];
        for _ in 0..self.rounds {
            for _ in 0..EACH {
                for sum in &mut sums {
                    *sum = A::multiply_add(a, b, *sum);
                }
            }
            for sum in &mut sums[..PRODUCTS % CHAINS] {
                *sum = A::multiply_add(a, b, *sum);
            }
        }
        let mut total = [0.0; LANES];
        for sum in sums {
            let mut numbers = [0.0; LANES];
            A::store(sum, &mut numbers);
            total.iter_mut().zip(numbers).for_each(|(total, number)| *total += number);
        }
        // A lane has a quarter of the products that a number of the warp's 32 has.
        for (i, out) in self.out.iter_mut().enumerate() {
            *out = total[i % LANES] * (LANES as f32 / WARP as f32);
        }
    }
}
