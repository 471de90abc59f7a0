//! `combine`: merge attention over parts of a sequence into attention over the whole.

use super::decode::Attended;
use crate::error::{Error, Result, check_len};

/// Merges partials that attended to disjoint sets of tokens (splits of one cache, a shared prefix, other ranks):
///
/// ```text
/// lse      = ln sum_p exp(lse_p)
/// o_latent = sum_p exp(lse_p - lse) o_latent_p
/// ```
///
/// A partial whose lse is infinite saw nothing: its `o_latent` is not read, whatever it holds. (Minus infinity is the
/// logarithm of an empty sum; plus infinity is what FlashAttention 2 writes for one.) If all are, the result is zeros
/// and minus infinity. A partial whose lse is NaN makes its row NaN, lse and latents, so that what went wrong is seen.
///
/// # Errors
/// [`Error::Config`] without partials, [`Error::Shape`] if the partials differ in shape.
pub fn combine(partials: &[Attended]) -> Result<Attended> {
    let Some(first) = partials.first() else {
        return Err(Error::Config { what: "combine".into(), why: "needs at least one partial".into() });
    };
    let rows = first.lse.len();
    let width = first.o_latent.len().checked_div(rows).unwrap_or(0);
    for partial in partials {
        check_len("lse of a partial", partial.lse.len(), &[("rows", rows)])?;
        check_len("o_latent of a partial", partial.o_latent.len(), &[("rows", rows), ("width", width)])?;
    }
    let mut merged = Attended { o_latent: vec![0.0; rows * width], lse: vec![f64::NEG_INFINITY; rows] };
    for row in 0..rows {
        let seen = || partials.iter().filter(|partial| !partial.lse[row].is_infinite());
        // NaN is not the largest of anything: it comes into the sum, and through it everywhere.
        let max = seen().map(|partial| partial.lse[row]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = seen().map(|partial| (partial.lse[row] - max).exp()).sum();
        if seen().next().is_none() {
            continue;
        }
        merged.lse[row] = max + sum.ln();
        for partial in seen() {
            let weight = (partial.lse[row] - max).exp() / sum;
            super::vector::add_scaled(
                &mut merged.o_latent[row * width..][..width],
                weight,
                &partial.o_latent[row * width..][..width],
            );
        }
    }
    Ok(merged)
}
