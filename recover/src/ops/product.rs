//! Matrix products of parts of slices, by the same kernels as candle's.

use std::ops::Range;

use gemm::Parallelism;

use super::real::Real;

/// A matrix inside of a slice: element `(r, c)` is number `start + r * row + c * col`, all of them inside of `data`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    start: usize,
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a, T: Real> View<'a, T> {
    /// All of `data`, in rows of `cols` numbers.
    ///
    /// # Panics
    /// If `data` is no whole number of rows.
    pub fn new(data: &'a [T], cols: usize) -> Self {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, data.len(), "a whole number of rows");
        Self { data, start: 0, rows, cols, row: cols, col: 1 }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If they are not all there, like slice indexing.
    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        Self { start: self.start + rows.start * self.row, rows: rows.len(), ..self }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If they are not all there, like slice indexing.
    pub fn cols(self, cols: Range<usize>) -> Self {
        assert!(cols.start <= cols.end && cols.end <= self.cols, "columns {cols:?} of {}", self.cols);
        Self { start: self.start + cols.start * self.col, cols: cols.len(), ..self }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// Whether a product may use all cores, or is one of many that are computed at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// All.
    All,
    /// The one of the caller.
    One,
}

/// `out = a b`, or `out += a b`, where rows of `out` are `stride` numbers apart.
///
/// # Panics
/// If the shapes do not fit each other, or the result does not fit into `out`.
pub fn product<T: Real>(a: View<T>, b: View<T>, out: &mut [T], stride: usize, accumulate: bool, cores: Cores) {
    assert_eq!(a.cols, b.rows, "columns of the left and rows of the right matrix");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    assert!(b.cols <= stride && (a.rows - 1) * stride + b.cols <= out.len(), "the product fits into its place");
    for view in [&a, &b] {
        let last = view.start + view.rows.saturating_sub(1) * view.row + view.cols.saturating_sub(1) * view.col;
        assert!(last < view.data.len() || view.rows == 0 || view.cols == 0, "the matrix lies inside of its slice");
    }
    if a.cols == 0 {
        if !accumulate {
            (0..a.rows).for_each(|row| out[row * stride..][..b.cols].fill(T::zero()));
        }
        return;
    }
    let parallelism = match cores {
        Cores::All => Parallelism::Rayon(0),
        Cores::One => Parallelism::None,
    };
    // SAFETY: the first and the last element of each matrix lie inside of its slice, as was just asserted, so all between
    // them do; `out` is borrowed mutably, so it overlaps neither. Strides fit into isize as slices' lengths do.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr().add(a.start),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr().add(b.start),
            b.col as isize,
            b.row as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_parts_are_those_of_the_parts() {
        let a: Vec<f64> = (0..5 * 7).map(|i| (i as f64).sin()).collect();
        let b: Vec<f64> = (0..6 * 8).map(|i| (i as f64).cos()).collect();
        let (left, right) = (View::new(&a, 7).rows(1..4).cols(2..6), View::new(&b, 8).rows(1..6).cols(3..7).t());
        let mut out = vec![1.0; 3 * 9];
        product(left, right, &mut out[2..], 9, true, Cores::One);
        for r in 0..3 {
            for c in 0..5 {
                let dot: f64 = (0..4).map(|k| a[(r + 1) * 7 + 2 + k] * b[(c + 1) * 8 + 3 + k]).sum();
                assert!((out[2 + r * 9 + c] - 1.0 - dot).abs() < 1e-12);
            }
        }
        assert_eq!((out[0], out[1], out[7], out[8]), (1.0, 1.0, 1.0, 1.0));
        let nothing: [f64; 0] = [];
        product(View::new(&a, 7).cols(0..0), View::new(&nothing, 2), &mut out[..10], 2, false, Cores::All);
        assert_eq!(out[..11], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, out[10]]);
    }

    #[test]
    #[should_panic(expected = "fits into its place")]
    fn a_product_that_does_not_fit_is_refused() {
        let a = [1.0f32; 6];
        product(View::new(&a, 3), View::new(&a, 2), &mut [0.0; 3], 2, false, Cores::One);
    }
}
