//! Products of matrices in f32, and conversions between bf16 and f32, compiled for every level.
//!
//! Tiles of sums stay in the 16 registers that AVX2 has, and an operand's rows in the first cache while a tile's other
//! operand passes. Whatever tiles a matrix is cut into, each sum is taken in the same order.

use std::ops::Range;

use half::bf16;

use super::level::{Arithmetic, LANES};

/// Rows of the left operand that dot products are taken of at a time: with four of the right one 12 sums.
const DOT_ROWS: usize = 3;

/// Rows of sums, and their columns, to which rows are added at a time: 12 registers.
const SUM_ROWS: usize = 6;
pub(super) const SUM_COLUMNS: usize = 2 * LANES;

/// A matrix whose rows are `stride` numbers apart.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub numbers: &'a [f32],
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// Some columns of a row.
    #[inline(always)]
    pub fn row(&self, row: usize, columns: &Range<usize>) -> &'a [f32] {
        &self.numbers[row * self.stride..][columns.start..columns.end]
    }

    /// Some columns of some rows.
    #[inline(always)]
    pub fn rows<const M: usize>(&self, first: usize, columns: &Range<usize>) -> [&'a [f32]; M] {
        let mut rows = [self.row(first, columns); M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = self.row(first + i, columns);
        }
        rows
    }
}

/// The next row length, in numbers, of at least `width`, with which no few of a cache's sets hold a column: an odd number
/// of lines.
pub(super) fn padded(width: usize) -> usize {
    let lines = width.div_ceil(SUM_COLUMNS);
    (lines + (lines + 1) % 2) * SUM_COLUMNS
}

/// A range in as few parts as there can be of at most `most`, about as long as each other.
#[inline(always)]
pub(super) fn parts(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (range.start, range.len());
    let count = len.div_ceil(most);
    (0..count).map(move |part| start + part * len / count..start + (part + 1) * len / count)
}

/// `sums[i][j] += a[i] . b[j]`, of rows with a multiple of [`LANES`] numbers.
#[inline(always)]
pub(super) fn add_dots<A: Arithmetic, const M: usize>(sums: &mut [[A::Eight; 4]; M], a: [&[f32]; M], b: [&[f32]; 4]) {
    let steps = b[0].len() / LANES;
    let a = a.map(|row| &row.as_chunks::<LANES>().0[..steps]);
    let b = b.map(|row| &row.as_chunks::<LANES>().0[..steps]);
    let mut own = *sums;
    for step in 0..steps {
        let mut of_a = [A::splat(0.0); M];
        for i in 0..M {
            of_a[i] = A::load(&a[i][step]);
        }
        for j in 0..4 {
            let of_b = A::load(&b[j][step]);
            for i in 0..M {
                own[i][j] = A::multiply_add(of_a[i], of_b, own[i][j]);
            }
        }
    }
    *sums = own;
}

/// Hands on the dot products of some rows of `a` with four rows, of whose width `a` has as many columns.
#[inline(always)]
fn dots<A: Arithmetic>(a: Matrix, rows: Range<usize>, b: [&[f32]; 4], mut take: impl FnMut(usize, [f32; 4])) {
    for rows in parts(rows, DOT_ROWS) {
        match rows.len() {
            1 => dots_of::<A, 1>(a, rows.start, b, &mut take),
            2 => dots_of::<A, 2>(a, rows.start, b, &mut take),
            _ => dots_of::<A, DOT_ROWS>(a, rows.start, b, &mut take),
        }
    }
}

#[inline(always)]
fn dots_of<A: Arithmetic, const M: usize>(
    a: Matrix,
    first: usize,
    b: [&[f32]; 4],
    take: &mut impl FnMut(usize, [f32; 4]),
) {
    let mut sums = [[A::splat(0.0); 4]; M];
    add_dots::<A, M>(&mut sums, a.rows(first, &(0..b[0].len())), b);
    for (i, sums) in sums.into_iter().enumerate() {
        take(first + i, A::sums(sums));
    }
}

/// Hands on the dot products of all rows of `a` with the `outputs` of a weight matrix, four at a time: which four, a row, and
/// its products with them. `weight_row` has the weights of an output, and `a`'s rows zeros behind as many numbers.
#[inline(always)]
pub(super) fn project<'w, A: Arithmetic>(
    (a, rows): (Matrix, usize),
    outputs: Range<usize>,
    weight_row: impl Fn(usize) -> &'w [bf16],
    mut take: impl FnMut(Range<usize>, usize, [f32; 4]),
) {
    let mut weights = vec![0.0; 4 * a.stride];
    for first in outputs.clone().step_by(4) {
        let four = first..outputs.end.min(first + 4);
        for (output, weights) in four.clone().zip(weights.chunks_exact_mut(a.stride.max(1))) {
            let row = weight_row(output);
            widen(row, &mut weights[..row.len()]);
        }
        let of_four = Matrix { numbers: &weights, stride: a.stride }.rows(0, &(0..a.stride));
        dots::<A>(a, 0..rows, of_four, |row, products| take(four.clone(), row, products));
    }
}

/// `sums[i] = factors[i] sums[i] + sum_t weights[i][t] rows[t]`, for each factor, of `count` rows, in the first `width`
/// columns, a multiple of [`SUM_COLUMNS`].
#[inline(always)]
pub(super) fn add_weighted<A: Arithmetic>(
    (sums, stride): (&mut [f32], usize),
    factors: &[f32],
    weights: Matrix,
    rows: Matrix,
    count: usize,
    width: usize,
) {
    for column in (0..width).step_by(SUM_COLUMNS) {
        let rows = Matrix { numbers: &rows.numbers[column..], ..rows };
        for part in parts(0..factors.len(), SUM_ROWS) {
            let sums = (&mut sums[part.start * stride + column..], stride);
            let weights = Matrix { numbers: &weights.numbers[part.start * weights.stride..], ..weights };
            let factors = &factors[part];
            match factors.len() {
                1 => add_weighted_to::<A, 1>(sums, factors, weights, rows, count),
                2 => add_weighted_to::<A, 2>(sums, factors, weights, rows, count),
                3 => add_weighted_to::<A, 3>(sums, factors, weights, rows, count),
                4 => add_weighted_to::<A, 4>(sums, factors, weights, rows, count),
                5 => add_weighted_to::<A, 5>(sums, factors, weights, rows, count),
                _ => add_weighted_to::<A, SUM_ROWS>(sums, factors, weights, rows, count),
            }
        }
    }
}

#[inline(always)]
fn add_weighted_to<A: Arithmetic, const M: usize>(
    (sums, stride): (&mut [f32], usize),
    factors: &[f32],
    weights: Matrix,
    rows: Matrix,
    count: usize,
) {
    let mut own = [[A::splat(0.0); 2]; M];
    let of_row = weights.rows::<M>(0, &(0..count));
    for i in 0..M {
        let [first, second] = halves(&sums[i * stride..]);
        let factor = A::splat(factors[i]);
        own[i] = [A::multiply(factor, A::load(first)), A::multiply(factor, A::load(second))];
    }
    for (t, row) in rows.numbers.chunks(rows.stride).take(count).enumerate() {
        let [first, second] = halves(row);
        let (first, second) = (A::load(first), A::load(second));
        for i in 0..M {
            let weight = A::splat(of_row[i][t]);
            own[i] = [A::multiply_add(weight, first, own[i][0]), A::multiply_add(weight, second, own[i][1])];
        }
    }
    for (i, own) in own.into_iter().enumerate() {
        let (halves, _) = sums[i * stride..][..SUM_COLUMNS].as_chunks_mut::<LANES>();
        A::store(own[0], &mut halves[0]);
        A::store(own[1], &mut halves[1]);
    }
}

/// The first [`SUM_COLUMNS`] numbers.
#[inline(always)]
fn halves(numbers: &[f32]) -> [&[f32; LANES]; 2] {
    let (halves, _) = numbers[..SUM_COLUMNS].as_chunks::<LANES>();
    [&halves[0], &halves[1]]
}

/// `y += a * x`.
#[inline(always)]
pub(super) fn add_scaled<A: Arithmetic>(y: &mut [f32], a: f32, x: &[f32]) {
    let ((y, y_rest), (x, x_rest)) = (y.as_chunks_mut::<LANES>(), x.as_chunks::<LANES>());
    for (y, x) in y.iter_mut().zip(x) {
        A::store(A::multiply_add(A::splat(a), A::load(x), A::load(y)), y);
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y += a * x;
    }
}

/// bf16 numbers as f32, exactly.
#[inline(always)]
pub(super) fn widen(from: &[bf16], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}

/// f32 numbers rounded to bf16.
#[inline(always)]
pub(super) fn round(from: &[f32], to: &mut [bf16]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = bf16::from_f32(from);
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::{Level, Task};
    use super::*;

    /// Rows of numbers that no sum is exact of.
    fn numbers(rows: usize, stride: usize, seed: f32) -> Vec<f32> {
        (0..rows * stride).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
    }

    struct Both<'a> {
        /// Rows of `a`, and of weights.
        rows: usize,
        width: usize,
        products: &'a mut Vec<[f32; 4]>,
        sums: &'a mut Vec<f32>,
    }

    impl Task for Both<'_> {
        #[inline(always)]
        fn run<A: Arithmetic>(self) {
            let (stride, columns) = (self.width + 8, 0..self.width);
            let (a, b) = (numbers(self.rows, stride, 0.0), numbers(4, stride, 1.0));
            let rows = Matrix { numbers: &b, stride };
            *self.products = vec![[0.0; 4]; self.rows];
            dots::<A>(Matrix { numbers: &a, stride }, 0..self.rows, rows.rows(0, &columns), |row, products| {
                self.products[row] = products;
            });
            *self.sums = numbers(self.rows, stride, 2.0);
            let factors = numbers(self.rows, 1, 3.0);
            let weights = Matrix { numbers: &a, stride };
            add_weighted::<A>((self.sums, stride), &factors, weights, rows, 4, self.width);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_the_others_are_and_those_of_its_formula_but_for_rounding() {
        const WIDTH: usize = 48;
        let run = |level: Level, rows| {
            let (mut products, mut sums) = (Vec::new(), Vec::new());
            level.run(Both { rows, width: WIDTH, products: &mut products, sums: &mut sums });
            (products, sums)
        };
        let stride = WIDTH + 8;
        let (a, b, before) = (numbers(20, stride, 0.0), numbers(4, stride, 1.0), numbers(20, stride, 2.0));
        let close = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 1e-5, "{got} is not {want}");
        let product = |a: &f32, b: &f32| f64::from(*a) * f64::from(*b);
        for level in Level::available() {
            let (most_products, most_sums) = run(level, 20);
            for rows in 1..20 {
                let (products, sums) = run(level, rows);
                assert_eq!(products, most_products[..rows], "{level}, {rows} rows");
                assert_eq!(sums, most_sums[..rows * stride], "{level}, {rows} rows");
            }
            for (row, products) in most_products.iter().enumerate() {
                for (other, got) in products.iter().enumerate() {
                    let (a, b) = (&a[row * stride..][..WIDTH], &b[other * stride..][..WIDTH]);
                    close(*got, a.iter().zip(b).map(|(a, b)| product(a, b)).sum());
                }
                let (sums, before) = (&most_sums[row * stride..][..stride], &before[row * stride..][..stride]);
                let factor = (row as f32 * 0.7 + 3.0).sin();
                for column in 0..WIDTH {
                    let added: f64 = (0..4).map(|t| product(&a[row * stride + t], &b[t * stride + column])).sum();
                    close(sums[column], product(&factor, &before[column]) + added);
                }
                assert_eq!(sums[WIDTH..], before[WIDTH..], "what lies behind the columns is not written");
            }
        }
    }

    #[test]
    fn parts_are_as_few_as_can_be_and_about_as_long_as_each_other() {
        for (len, most) in [(0, 3), (1, 3), (7, 3), (32, 6), (9, 9)] {
            let all: Vec<_> = parts(5..5 + len, most).collect();
            assert_eq!(all.len(), len.div_ceil(most));
            assert_eq!(all.iter().cloned().flatten().collect::<Vec<_>>(), (5..5 + len).collect::<Vec<_>>());
            let lens = || all.iter().map(Range::len);
            assert!(lens().max().unwrap_or(0) <= lens().min().unwrap_or(0) + 1);
        }
    }

    #[test]
    fn rows_are_an_odd_number_of_lines() {
        for width in 0..200 {
            let padded = padded(width);
            assert!(padded >= width && padded < width + 3 * SUM_COLUMNS && padded / SUM_COLUMNS % 2 == 1);
            assert_eq!(padded % SUM_COLUMNS, 0);
        }
    }
}
