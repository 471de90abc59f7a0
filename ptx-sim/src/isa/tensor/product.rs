//! The product of two matrices whose elements lie in the registers of a warp, as [`fragments`] says.
//!
//! Elements of A are unpacked in the order of registers, in which they lie: a product takes them one by one. Elements of B
//! are unpacked row after row, and those of a row in the order in which the lanes' accumulators hold columns: first the
//! even ones, then the odd ones. So four columns of the result are four lanes' accumulators.
//!
//! [`fragments`]: super::fragments

use super::mma_formats::{Format, unpack};
use crate::exec::{Kernel, LANES, Vectors, Word, run_vectors};

/// Columns of B, C and D in every shape.
const COLUMNS: usize = 8;
/// Most rows of A.
const TALLEST: usize = 16;
/// Lanes that share a row of A, and of the accumulators.
const GROUPS: usize = 4;
/// Rows that are computed at once, so that one sum need not wait for the one before it.
const ROWS: usize = 4;

/// How elements of a format get out of registers.
pub(super) struct Unpack<W, T> {
    /// Elements of a register.
    pub parts: usize,
    a: fn(registers: &[&[W; LANES]], out: &mut [[T; LANES]]),
    b: fn(registers: &[&[W; LANES]], out: &mut [[T; COLUMNS]]),
}

impl<W: Word, T: Copy> Unpack<W, T> {
    pub fn of<F: Format<Word = W, Value = T>>() -> Self {
        Self {
            parts: F::PARTS,
            a: |registers, out| run_vectors(UnpackA::<F> { registers, out }),
            b: |registers, out| run_vectors(UnpackB::<F> { registers, out }),
        }
    }
}

/// Puts the elements of A into `out`: all lanes' first part of the first register, all lanes' second part of it, ...
struct UnpackA<'a, F: Format> {
    registers: &'a [&'a [F::Word; LANES]],
    out: &'a mut [[F::Value; LANES]],
}

impl<F: Format> Kernel for UnpackA<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        for (words, out) in self.registers.iter().zip(self.out.chunks_exact_mut(F::PARTS)) {
            for (part, out) in out.iter_mut().enumerate() {
                unpack::<F, _>(words, part, out);
            }
        }
    }
}

/// Puts the rows of B into `out`.
struct UnpackB<'a, F: Format> {
    registers: &'a [&'a [F::Word; LANES]],
    out: &'a mut [[F::Value; COLUMNS]],
}

impl<F: Format> Kernel for UnpackB<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        for (words, rows) in self.registers.iter().zip(self.out.chunks_exact_mut(GROUPS * F::PARTS)) {
            // Lane `4 * n + group` has elements of column `n`. Group after group:
            let lane = |i: usize| GROUPS * (2 * (i % 4) + i / 4 % 2) + i / COLUMNS;
            let words: [_; LANES] = std::array::from_fn(|i| words[lane(i)]);
            let mut elements = [F::Value::default(); LANES];
            for part in 0..F::PARTS {
                unpack::<F, _>(&words, part, &mut elements);
                for (rows, elements) in rows.chunks_exact_mut(F::PARTS).zip(elements.as_chunks().0) {
                    rows[part] = *elements;
                }
            }
        }
    }
}

/// How products are added up.
pub(super) trait Sum {
    type Value: Copy;
    /// `sum + x * y`
    fn add<V: Vectors>(sum: Self::Value, x: Self::Value, y: Self::Value) -> Self::Value;
}

/// In f64, of elements so short that f64 holds their products exactly: a fused multiplication and addition, which does
/// not round the product, is then the same as a multiplication and an addition.
pub(super) struct ExactProducts;
/// A chain of fused multiplications and additions.
pub(super) struct FusedChain;
/// Of integers so small that no sum overflows: at most 64 products of less than 2^16.
pub(super) struct Integers;

impl Sum for ExactProducts {
    type Value = f64;
    #[inline(always)]
    fn add<V: Vectors>(sum: f64, x: f64, y: f64) -> f64 {
        if V::FUSED { x.mul_add(y, sum) } else { sum + x * y }
    }
}

impl Sum for FusedChain {
    type Value = f64;
    #[inline(always)]
    fn add<V: Vectors>(sum: f64, x: f64, y: f64) -> f64 {
        x.mul_add(y, sum)
    }
}

impl Sum for Integers {
    type Value = i32;
    #[inline(always)]
    fn add<V: Vectors>(sum: i32, x: i32, y: i32) -> i32 {
        sum.wrapping_add(x.wrapping_mul(y))
    }
}

/// Sums as the lanes hold them: one array per element of a lane's accumulators.
#[derive(Clone, Copy, Default)]
pub(super) struct Accumulators<T>(pub [[T; LANES]; 4]);

/// Adds the product of the matrices in the registers of A and B to `sums`, in ascending order of k.
pub(super) fn product<S: Sum<Value: Default>, W: Word>(
    unpack_a: &Unpack<W, S::Value>,
    a: &[&[W; LANES]],
    unpack_b: &Unpack<W, S::Value>,
    b: &[&[W; LANES]],
    sums: &mut Accumulators<S::Value>,
) {
    // Room for more elements than there are would have to be filled in vain.
    match 4 * unpack_b.parts * b.len() {
        0..=8 => product_of::<S, W, 8>(unpack_a, a, unpack_b, b, sums),
        9..=16 => product_of::<S, W, 16>(unpack_a, a, unpack_b, b, sums),
        17..=32 => product_of::<S, W, 32>(unpack_a, a, unpack_b, b, sums),
        _ => product_of::<S, W, 64>(unpack_a, a, unpack_b, b, sums),
    }
}

/// The same, of rows of A that have up to `DEPTH` elements.
fn product_of<S: Sum<Value: Default>, W: Word, const DEPTH: usize>(
    unpack_a: &Unpack<W, S::Value>,
    a: &[&[W; LANES]],
    unpack_b: &Unpack<W, S::Value>,
    b: &[&[W; LANES]],
    sums: &mut Accumulators<S::Value>,
) {
    let mut elements = [[S::Value::default(); TALLEST]; DEPTH];
    let elements = elements.as_flattened_mut().as_chunks_mut().0;
    let mut rows = [[S::Value::default(); COLUMNS]; DEPTH];
    (unpack_a.a)(a, elements);
    (unpack_b.b)(b, &mut rows);
    let depth = (4 * unpack_b.parts * b.len()).min(DEPTH);
    // A has a register for every register of B and eight rows.
    let halves = a.len() / b.len().max(1);
    run_vectors(Multiply::<S> { a: elements, b: &rows[..depth], parts: unpack_a.parts, halves, sums });
}

struct Multiply<'a, S: Sum> {
    /// All lanes' elements, for each register and part of it.
    a: &'a [[S::Value; LANES]],
    /// The rows of B.
    b: &'a [[S::Value; COLUMNS]],
    parts: usize,
    /// How often A has eight rows.
    halves: usize,
    sums: &'a mut Accumulators<S::Value>,
}

impl<S: Sum> Kernel for Multiply<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        let Self { a, b, parts, halves, sums } = self;
        for (half, [low, high]) in sums.0.as_chunks_mut().0.iter_mut().enumerate().take(halves) {
            for first in (0..LANES).step_by(GROUPS * ROWS) {
                // The first lane of a group holds the first element of a row of accumulators.
                let mut sums = [[low[0]; COLUMNS]; ROWS];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let lane = first + GROUPS * i;
                    sums[..4].copy_from_slice(&low[lane..lane + 4]);
                    sums[4..].copy_from_slice(&high[lane..lane + 4]);
                }
                // In ascending order of k: registers, groups, parts. No division and no multiplication in here: they
                // would take longer than the products.
                let (mut rows, mut registers) = (b, a.get(half * parts..).unwrap_or_default());
                while !rows.is_empty() {
                    for group in 0..GROUPS {
                        let (b, rest) = rows.split_at_checked(parts).unwrap_or_default();
                        rows = rest;
                        for (b, a) in b.iter().zip(registers) {
                            let lane = |i: usize| (first + group + GROUPS * i) % LANES;
                            let column: [_; ROWS] = std::array::from_fn(|i| a[lane(i)]);
                            for (sums, x) in sums.iter_mut().zip(column) {
                                for (sum, y) in sums.iter_mut().zip(b) {
                                    *sum = S::add::<V>(*sum, x, *y);
                                }
                            }
                        }
                    }
                    registers = registers.get(halves * parts..).unwrap_or_default();
                }
                for (i, sums) in sums.iter().enumerate() {
                    let lane = first + GROUPS * i;
                    low[lane..lane + 4].copy_from_slice(&sums[..4]);
                    high[lane..lane + 4].copy_from_slice(&sums[4..]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragments;
    use super::super::mma_formats::{Signed, Tf32, Unsigned};
    use super::*;

    /// A generator of numbers: the words of registers.
    fn words(seed: &mut u32) -> [u32; LANES] {
        std::array::from_fn(|_| {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *seed >> 3 ^ *seed << 11
        })
    }

    /// Elements of a format by row and column, where `place` says that they lie.
    fn matrix<F: Format<Word = u32>>(
        registers: &[[u32; LANES]],
        columns: usize,
        place: impl Fn(usize, usize, usize) -> (usize, usize),
    ) -> Vec<F::Value> {
        let mut out = vec![F::Value::default(); registers.len() * LANES * F::PARTS];
        for (register, words) in registers.iter().enumerate() {
            for (lane, word) in words.iter().enumerate() {
                for part in 0..F::PARTS {
                    let (row, column) = place(lane, register, part);
                    out[row * columns + column] = F::element(word >> (part * F::BITS)).into();
                }
            }
        }
        out
    }

    fn check<F: Format<Word = u32, Value = S::Value>, S: Sum<Value: Default + PartialEq + std::fmt::Debug>>(
        halves: usize,
        depth: usize,
        plain: impl Fn(S::Value, S::Value, S::Value) -> S::Value,
    ) {
        let unpack = Unpack::of::<F>();
        let length = depth / (4 * F::PARTS);
        let seed = &mut (halves * depth + F::BITS).try_into().unwrap();
        let a: Vec<_> = (0..halves * length).map(|_| words(seed)).collect();
        let b: Vec<_> = (0..length).map(|_| words(seed)).collect();
        let mut sums = Accumulators::<S::Value>::default();
        let (of_a, of_b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
        product::<S, u32>(&unpack, &of_a, &unpack, &of_b, &mut sums);
        let rows = 8 * halves;
        let x = matrix::<F>(&a, depth, |lane, register, part| fragments::a(rows, F::PARTS, lane, register, part));
        let y = matrix::<F>(&b, COLUMNS, |lane, register, part| fragments::b(F::PARTS, lane, register, part));
        for lane in 0..LANES {
            for element in 0..2 * halves {
                let (row, column) = fragments::accumulator(lane, element);
                let terms = (0..depth).map(|k| (x[row * depth + k], y[k * COLUMNS + column]));
                let sum = terms.fold(S::Value::default(), |sum, (x, y)| plain(sum, x, y));
                assert_eq!(sums.0[element][lane], sum, "lane {lane} element {element} of {rows} rows, depth {depth}");
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_printed_fragments_in_ascending_order_of_k() {
        let integers = |sum, x, y| sum + x * y;
        for halves in [1, 2] {
            check::<Signed<4>, Integers>(halves, 64, integers);
            check::<Unsigned<4>, Integers>(halves, 32, integers);
            check::<Signed<8>, Integers>(halves, 16, integers);
            check::<Unsigned<8>, Integers>(halves, 32, integers);
        }
        // Any other order of these f64 sums would round differently: tf32 has the exponents of f32.
        check::<Finite, ExactProducts>(2, 8, |sum, x, y| sum + x * y);
        check::<Finite, ExactProducts>(2, 4, |sum, x, y| sum + x * y);
    }

    /// tf32 without infinities and NaN, and with exponents near each other.
    struct Finite;

    impl Format for Finite {
        type Element = f32;
        type Value = f64;
        type Word = u32;
        const BITS: usize = 32;
        fn element(word: u32) -> f32 {
            Tf32::element(word & 0x9FFF_FFFF | 0x2000_0000)
        }
    }
}
