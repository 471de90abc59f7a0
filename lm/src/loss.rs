//! What predictions cost, by their logits.

use anyhow::{Result, ensure};
use rayon::prelude::*;

/// The summed negative log-likelihood of `targets`, in nats, each by a row of logits.
///
/// # Errors
/// If there is not one target a row, or one lies outside of it.
pub fn loss_of_rows(rows: &[&[f32]], targets: &[u32]) -> Result<f64> {
    ensure!(rows.len() == targets.len(), "{} rows of logits but {} target tokens", rows.len(), targets.len());
    let of_row = |(row, &target): (&&[f32], &u32)| {
        let logit = row.get(target as usize);
        ensure!(logit.is_some(), "token {target} lies outside of a vocabulary of {}", row.len());
        let largest = row.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
        let sum: f64 = row.iter().map(|logit| f64::from((logit - largest).exp())).sum();
        Ok(f64::from(largest) + sum.ln() - f64::from(logit.copied().unwrap_or_default()))
    };
    rows.par_iter().zip(targets).map(of_row).collect::<Result<Vec<f64>>>().map(|losses| losses.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_equal_logits_is_the_logarithm_of_the_vocabulary() {
        let row = [3.0f32; 50];
        let loss = loss_of_rows(&[&row, &row], &[0, 49]).unwrap();
        assert!((loss - 2.0 * 50f64.ln()).abs() < 1e-5, "{loss}");
        assert!(loss_of_rows(&[&row], &[50]).unwrap_err().to_string().contains("token 50"));
        assert!(loss_of_rows(&[&row], &[]).is_err());
    }
}
