//! Low-rank factorisation of the key and value projections (arXiv 2502.14837, section 3.2).
//!
//! `W ~ up down` with orthonormal rows in every factor's `down`, so that all of the singular values sit in `up`.
//! The quantised latent then has the scale of the hidden state in every direction; putting singular values on the
//! latent makes few directions dominate, and they spoil the others' quantisation steps.

use faer::{Mat, MatRef};

use super::calibration::Calibration;
use super::linalg::{cholesky, product, solve_transposed, thin_qr, thin_svd};
use super::options::Factorization;
use crate::error::{Error, Result};

/// Added to the diagonal of the inputs' second moment, relative to its mean diagonal element. It makes the moment of
/// fewer tokens than hidden dimensions invertible; only directions with less power than this feel it.
const RIDGE: f64 = 1e-6;

/// The three matrices between the hidden state and the heads.
pub(super) struct Factors {
    /// `[L, hidden]`.
    pub down: Mat<f64>,
    /// `[G*Dn, L]`.
    pub up_key: Mat<f64>,
    /// `[G*Dv, L]`.
    pub up_value: Mat<f64>,
}

/// A root of the inputs' second moment `C = R R^T`: `||(W - W') R||_F` is the root mean square error of the outputs.
pub(super) struct Whitener {
    root: Mat<f64>,
}

impl Whitener {
    /// # Errors
    /// [`Error::Numeric`] if all inputs were zero.
    pub fn new(calibration: &Calibration) -> Result<Self> {
        let mut moment = calibration.second_moment();
        let size = moment.nrows();
        let trace: f64 = (0..size).map(|i| moment[(i, i)]).sum();
        for i in 0..size {
            moment[(i, i)] += RIDGE * trace / size as f64;
        }
        Ok(Self { root: cholesky(moment)? })
    }
}

/// Factorises the unrotated key rows and the value rows to `rank` latent dimensions in total.
///
/// # Errors
/// [`Error::Config`] if the rank exceeds what the matrices have, [`Error::Numeric`] if an SVD fails.
pub(super) fn factorize(
    method: Factorization,
    key: MatRef<'_, f64>,
    value: MatRef<'_, f64>,
    rank: usize,
    whitener: Option<&Whitener>,
) -> Result<Factors> {
    match method {
        Factorization::Joint => joint(key, value, rank, whitener),
        Factorization::Split => split(key, value, rank, whitener),
    }
}

/// One factorisation of the stacked matrix: keys and values share every latent dimension.
fn joint(key: MatRef<'_, f64>, value: MatRef<'_, f64>, rank: usize, whitener: Option<&Whitener>) -> Result<Factors> {
    let (key_rows, rows) = (key.nrows(), key.nrows() + value.nrows());
    let full = rows.min(value.ncols());
    check_rank(rank, full, &format!("min({rows} key and value rows, hidden {})", value.ncols()))?;
    let (up, down) = low_rank(stack(key, value).as_ref(), rank, whitener)?;
    let up_key = up.get(..key_rows, ..).to_owned();
    let up_value = up.get(key_rows.., ..).to_owned();
    Ok(Factors { down, up_key, up_value })
}

/// Two factorisations side by side: the latent is `[c_k | c_v]`, and each up-projection ignores the other's part.
fn split(key: MatRef<'_, f64>, value: MatRef<'_, f64>, rank: usize, whitener: Option<&Whitener>) -> Result<Factors> {
    let hidden = value.ncols();
    let (full_key, full_value) = (key.nrows().min(hidden), value.nrows().min(hidden));
    check_rank(rank, full_key + full_value, &format!("{full_key} of the keys and {full_value} of the values"))?;
    let value_rank = (rank - (rank / 2).min(full_key)).min(full_value);
    let key_rank = rank - value_rank;
    let (key_up, key_down) = low_rank(key, key_rank, whitener)?;
    let (value_up, value_down) = low_rank(value, value_rank, whitener)?;
    let mut up_key = Mat::zeros(key.nrows(), rank);
    up_key.get_mut(.., ..key_rank).copy_from(&key_up);
    let mut up_value = Mat::zeros(value.nrows(), rank);
    up_value.get_mut(.., key_rank..).copy_from(&value_up);
    Ok(Factors { down: stack(key_down.as_ref(), value_down.as_ref()), up_key, up_value })
}

fn check_rank(rank: usize, full: usize, of_what: &str) -> Result<()> {
    if rank <= full {
        return Ok(());
    }
    Err(Error::Config { what: format!("latent rank {rank}"), why: format!("the full rank is {full}: {of_what}") })
}

/// `(up, down)` of the given rank; `down` has orthonormal rows.
///
/// Without a whitener this is the truncated SVD, the best approximation of `matrix` itself (Eckart-Young). With one
/// it is the best approximation on the inputs: with `matrix R = U S V^T`, `up = U S` and `down = V^T R^-1`, whose
/// rows a QR factorisation then makes orthonormal without changing the product.
fn low_rank(matrix: MatRef<'_, f64>, rank: usize, whitener: Option<&Whitener>) -> Result<(Mat<f64>, Mat<f64>)> {
    if rank == 0 {
        return Ok((Mat::zeros(matrix.nrows(), 0), Mat::zeros(0, matrix.ncols())));
    }
    let target = match whitener {
        None => matrix.to_owned(),
        Some(whitener) => product(matrix, whitener.root.as_ref()),
    };
    let svd = thin_svd(target.as_ref())?;
    let up = Mat::from_fn(matrix.nrows(), rank, |row, i| svd.u[(row, i)] * svd.s[i]);
    let down_transposed = svd.v.get(.., ..rank).to_owned();
    Ok(match whitener {
        None => (up, down_transposed.transpose().to_owned()),
        Some(whitener) => {
            let (q, r) = thin_qr(solve_transposed(whitener.root.as_ref(), down_transposed));
            (product(up.as_ref(), r.transpose()), q.transpose().to_owned())
        }
    })
}

/// `upper` on top of `lower`.
fn stack(upper: MatRef<'_, f64>, lower: MatRef<'_, f64>) -> Mat<f64> {
    let at = upper.nrows();
    Mat::from_fn(at + lower.nrows(), lower.ncols(), |row, col| match row.checked_sub(at) {
        None => upper[(row, col)],
        Some(row) => lower[(row, col)],
    })
}
