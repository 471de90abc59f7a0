//! `gather`: cached tokens as the cache decodes them, for prefill.

use std::ops::Range;

use crate::cache::{PagedCache, Sequences};
use crate::error::{Error, Result, check_len};

/// Latents and rotated keys of cached tokens, exactly: `[S, L + Gr*R]`, sequence after sequence.
///
/// `tokens` says which of each sequence's tokens; `None`: all.
///
/// # Errors
/// As [`decode`](super::decode); [`Error::Shape`] unless there is a range for each sequence, [`Error::Index`] for one
/// that does not lie in its sequence.
pub fn gather(sequences: &Sequences, tokens: Option<&[Range<usize>]>, cache: &PagedCache) -> Result<Vec<f64>> {
    if let Some(tokens) = tokens {
        check_len("ranges of tokens", tokens.len(), &[("sequences", sequences.len())])?;
    }
    let mut gathered = Vec::new();
    for (b, sequence) in sequences.resolve(cache)?.into_iter().enumerate() {
        let range = tokens.map_or(0..sequence.slots.len(), |tokens| tokens[b].clone());
        let slots = sequence.slots.get(range.clone()).ok_or_else(|| Error::Index {
            what: format!("end of the tokens {range:?} of sequence {b}"),
            got: range.end as i64,
            bound: format!("{}..={}", range.start, sequence.slots.len()),
        })?;
        for &slot in slots {
            gathered.extend(cache.latent(slot)?);
            gathered.extend(cache.rope(slot)?);
        }
    }
    Ok(gathered)
}
