//! The few dense f64 operations of the conversion, as thin wrappers around `faer`.
//!
//! Everything runs sequentially (`Par::Seq`), so that the same input gives the same bits on the same machine
//! whatever parallelism another user of `faer` in the process has switched on.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::{cholesky::llt, evd, householder, matmul, qr::no_pivoting as qr, svd, triangular_solve};
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};

use crate::error::{Error, Result};
use crate::weights::Matrix;

/// `A = U diag(s) V^T` with `min(rows, cols)` columns in `U` and `V`, singular values descending.
pub(super) struct ThinSvd {
    pub u: Mat<f64>,
    pub s: Vec<f64>,
    pub v: Mat<f64>,
}

/// Widens a matrix to f64.
pub(super) fn widen(matrix: &Matrix) -> Mat<f64> {
    Mat::from_fn(matrix.rows(), matrix.cols(), |row, col| f64::from(matrix.row(row)[col]))
}

/// Widens a vector to f64.
pub(super) fn widen_vector(vector: &[f32]) -> Vec<f64> {
    vector.iter().map(|&x| f64::from(x)).collect()
}

/// Rounds a matrix to f32, once and last.
///
/// # Errors
/// [`Error::Numeric`] if a number does not fit into f32.
pub(super) fn round(what: &'static str, matrix: MatRef<'_, f64>) -> Result<Matrix> {
    let (rows, cols) = matrix.shape();
    let rounded = Matrix::from_fn(rows, cols, |row, col| matrix[(row, col)] as f32);
    check_rounded(what, rounded.data(), rows, cols)?;
    Ok(rounded)
}

/// Rounds a vector to f32, once and last.
///
/// # Errors
/// [`Error::Numeric`] if a number does not fit into f32.
pub(super) fn round_vector(what: &'static str, vector: &[f64]) -> Result<Vec<f32>> {
    let rounded: Vec<f32> = vector.iter().map(|&x| x as f32).collect();
    check_rounded(what, &rounded, rounded.len(), 1)?;
    Ok(rounded)
}

fn check_rounded(what: &'static str, rounded: &[f32], rows: usize, cols: usize) -> Result<()> {
    if rounded.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(Error::Numeric { what, rows, cols, why: "an element is outside of f32's range".into() })
    }
}

/// `lhs rhs`.
pub(super) fn product(lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) -> Mat<f64> {
    let mut result = Mat::zeros(lhs.nrows(), rhs.ncols());
    add_product(result.as_mut(), lhs, rhs);
    result
}

/// `sum += lhs rhs`.
pub(super) fn add_product(sum: MatMut<'_, f64>, lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) {
    matmul::matmul(sum, Accum::Add, lhs, rhs, 1.0, Par::Seq);
}

/// The lower triangle of `sum += matrix matrix^T`, which costs half as much as all of it; [`mirror`] completes a sum.
pub(super) fn add_square(sum: MatMut<'_, f64>, matrix: MatRef<'_, f64>) {
    use matmul::triangular::{BlockStructure, matmul};
    let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    matmul(sum, lower, Accum::Add, matrix, full, matrix.transpose(), full, 1.0, Par::Seq);
}

/// Copies the lower triangle into the upper one.
pub(super) fn mirror(matrix: &mut Mat<f64>) {
    for col in 0..matrix.ncols() {
        for row in 0..col {
            matrix[(row, col)] = matrix[(col, row)];
        }
    }
}

/// `matrix vector`.
pub(super) fn apply(matrix: MatRef<'_, f64>, vector: &[f64]) -> Vec<f64> {
    (0..matrix.nrows()).map(|row| vector.iter().enumerate().map(|(col, x)| matrix[(row, col)] * x).sum()).collect()
}

/// The singular value decomposition.
///
/// # Errors
/// [`Error::Numeric`] if it does not converge.
pub(super) fn thin_svd(matrix: MatRef<'_, f64>) -> Result<ThinSvd> {
    let (rows, cols) = matrix.shape();
    let size = rows.min(cols);
    let (mut u, mut s, mut v) = (Mat::zeros(rows, size), Diag::zeros(size), Mat::zeros(cols, size));
    let thin = svd::ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd::svd_scratch::<f64>(rows, cols, thin, thin, Par::Seq, Default::default()));
    svd::svd(
        matrix,
        s.as_mut(),
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|error| Error::Numeric { what: "SVD", rows, cols, why: format!("{error:?}") })?;
    Ok(ThinSvd { u, s: (0..size).map(|i| s[i]).collect(), v })
}

/// `(Q, R)` of a matrix with at least as many rows as columns: `Q` has orthonormal columns, `R` is upper triangular.
pub(super) fn thin_qr(mut matrix: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    let (rows, cols) = matrix.shape();
    let block = qr::factor::recommended_block_size::<f64>(rows, cols);
    let mut coefficients = Mat::zeros(block, cols);
    let scratch = qr::factor::qr_in_place_scratch::<f64>(rows, cols, block, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    qr::factor::qr_in_place(matrix.as_mut(), coefficients.as_mut(), Par::Seq, stack, Default::default());

    let mut q = Mat::identity(rows, cols);
    let scratch = householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(rows, block, cols);
    householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
        matrix.as_ref(),
        coefficients.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
    );
    let r = Mat::from_fn(cols, cols, |row, col| if row <= col { matrix[(row, col)] } else { 0.0 });
    (q, r)
}

/// The lower triangular `R` with `R R^T = matrix`, for a symmetric positive definite matrix.
///
/// # Errors
/// [`Error::Numeric`] if the matrix is not positive definite.
pub(super) fn cholesky(matrix: Mat<f64>) -> Result<Mat<f64>> {
    let size = matrix.nrows();
    let mut root = matrix;
    let scratch = llt::factor::cholesky_in_place_scratch::<f64>(size, Par::Seq, Default::default());
    llt::factor::cholesky_in_place(
        root.as_mut(),
        Default::default(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|error| Error::Numeric { what: "Cholesky", rows: size, cols: size, why: format!("{error:?}") })?;
    Ok(Mat::from_fn(size, size, |row, col| if row >= col { root[(row, col)] } else { 0.0 }))
}

/// `X` with `lower^T X = right`, for a lower triangular matrix.
pub(super) fn solve_transposed(lower: MatRef<'_, f64>, mut right: Mat<f64>) -> Mat<f64> {
    triangular_solve::solve_upper_triangular_in_place(lower.transpose(), right.as_mut(), Par::Seq);
    right
}

/// A symmetric matrix's eigenvalues, descending, and its orthonormal eigenvectors as columns in the same order.
pub(super) struct Eigen {
    pub values: Vec<f64>,
    pub vectors: Mat<f64>,
}

/// The eigenvalues and eigenvectors of a symmetric matrix.
///
/// # Errors
/// [`Error::Numeric`] if the iteration does not converge.
pub(super) fn symmetric_eigen(matrix: MatRef<'_, f64>) -> Result<Eigen> {
    let size = matrix.nrows();
    let (mut values, mut vectors) = (Diag::zeros(size), Mat::zeros(size, size));
    let scratch =
        evd::self_adjoint_evd_scratch::<f64>(size, evd::ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let (stack, parameters) = (MemStack::new(&mut memory), Default::default());
    evd::self_adjoint_evd(matrix, values.as_mut(), Some(vectors.as_mut()), Par::Seq, stack, parameters).map_err(
        |error| Error::Numeric { what: "eigendecomposition", rows: size, cols: size, why: format!("{error:?}") },
    )?;
    let values = (0..size).rev().map(|i| values[i]).collect();
    let vectors = Mat::from_fn(size, size, |row, col| vectors[(row, size - 1 - col)]);
    Ok(Eigen { values, vectors })
}

/// A symmetric positive semidefinite matrix to the power `power`. Eigenvalues below `floor` times the largest count as
/// that much, so that negative powers exist.
///
/// # Errors
/// As for [`symmetric_eigen`].
pub(super) fn symmetric_power(matrix: MatRef<'_, f64>, power: f64, floor: f64) -> Result<Mat<f64>> {
    let Eigen { values, vectors } = symmetric_eigen(matrix)?;
    let least = floor * values.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
    let scaled = Mat::from_fn(vectors.nrows(), vectors.ncols(), |row, col| {
        vectors[(row, col)] * values[col].max(least).powf(power)
    });
    Ok(product(scaled.as_ref(), vectors.transpose()))
}

/// `X` with `gram X = right`, for a symmetric positive definite `gram`.
///
/// # Errors
/// [`Error::Numeric`] if the matrix is not positive definite.
pub(super) fn solve_positive(gram: Mat<f64>, mut right: Mat<f64>) -> Result<Mat<f64>> {
    let lower = cholesky(gram)?;
    triangular_solve::solve_lower_triangular_in_place(lower.as_ref(), right.as_mut(), Par::Seq);
    triangular_solve::solve_upper_triangular_in_place(lower.transpose(), right.as_mut(), Par::Seq);
    Ok(right)
}

/// The `X` that minimises `||Y - X^T Z||^2 + sum_i ridge gram_ii |X_i - prior_i|^2` for features `Z` and targets `Y`, from
/// `gram = Z Z^T` (`[features, features]`) and `cross = Z Y^T` (`[features, targets]`).
///
/// The ridge pulls towards `prior` and not towards nothing: where the features determine the targets, `prior` being
/// right, it changes nothing.
///
/// # Errors
/// [`Error::Numeric`] if the features' second moments are not positive definite even with the ridge.
pub(super) fn regress(mut gram: Mat<f64>, mut cross: Mat<f64>, ridge: f64, prior: &Mat<f64>) -> Result<Mat<f64>> {
    matmul::matmul(cross.as_mut(), Accum::Add, gram.as_ref(), prior.as_ref(), -1.0, Par::Seq);
    let largest = (0..gram.nrows()).map(|i| gram[(i, i)]).fold(0.0, f64::max);
    if largest == 0.0 {
        return Ok(prior.clone());
    }
    for i in 0..gram.nrows() {
        // A feature that is always 0 stays with its prior.
        gram[(i, i)] += ridge * gram[(i, i)].max(1e-9 * largest);
    }
    let mut solution = solve_positive(gram, cross)?;
    solution += prior;
    Ok(solution)
}
