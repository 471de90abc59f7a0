//! `decode`: attention over the cached latents themselves.

use std::ops::Range;

use super::vector::{add_scaled, dot, map_rows};
use crate::cache::{PagedCache, Sequences};
use crate::error::{Result, check_finite, check_len};
use crate::geometry::Geometry;

/// What [`decode`] reads beside the cache.
#[derive(Clone, Copy, Debug)]
pub struct DecodeInputs<'a> {
    /// The layer's sizes.
    pub geometry: &'a Geometry,
    /// `[T, H, L]`: [`absorb_query`](super::absorb_query)'s output.
    pub q_latent: &'a [f64],
    /// `[T, H, R]`: rotated by [`rope_append`](super::rope_append).
    pub q_rope: &'a [f64],
    /// Factor on every score, finite.
    pub scale: f64,
    /// The batch.
    pub sequences: Sequences<'a>,
}

/// Attention output in the latent space, with what is needed to merge it with other partials.
#[derive(Clone, Debug, PartialEq)]
pub struct Attended {
    /// `[T, H, L]`: the softmax-weighted mean of the latents; zeros where a query sees no token.
    pub o_latent: Vec<f64>,
    /// `[T, H]`: natural logarithm of the sum of `exp(score)`; minus infinity where a query sees no token.
    pub lse: Vec<f64>,
}

/// For query token `t` and head `h`, over the tokens `s` it sees (see [`Sequences`]):
///
/// ```text
/// score(s)     = scale * (f_s[KV head of h] q_latent[t, h] . c_s + q_rope[t, h] . k_rope_s[rope head of h])
/// lse[t, h]    = ln sum_s exp(score(s))
/// o_latent[t, h] = sum_s exp(score(s) - lse) c_s
/// ```
///
/// f are the cached [factors](crate::cache::CacheLayout::key_factors) of normalised keys, 1 where there are none.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a slice does not fit the geometry or the batch,
/// [`Error::Index`](crate::Error::Index) for a negative length or a page that does not exist,
/// [`Error::NotFinite`](crate::Error::NotFinite) if the scale is not finite. Only page-table entries below a sequence's
/// length are read.
pub fn decode(inputs: &DecodeInputs, cache: &PagedCache) -> Result<Attended> {
    decode_split(inputs, cache, 0..usize::MAX)
}

/// [`decode`] over those tokens only whose index in the sequence lies in `tokens`: one split of split-KV attention.
///
/// # Errors
/// As [`decode`].
pub fn decode_split(inputs: &DecodeInputs, cache: &PagedCache, tokens: Range<usize>) -> Result<Attended> {
    let g = inputs.geometry.validate()?;
    cache.layout().check(&g)?;
    check_finite("scale", inputs.scale)?;
    let sequences = inputs.sequences.resolve(cache)?;
    let rows = [("query tokens", inputs.sequences.query_tokens()), ("query heads", g.query_heads)];
    check_len("q_latent", inputs.q_latent.len(), &[rows[0], rows[1], ("latent", g.latent_rank)])?;
    check_len("q_rope", inputs.q_rope.len(), &[rows[0], rows[1], ("rope", g.rope_dim)])?;

    let mut attended = Attended { o_latent: Vec::new(), lse: Vec::new() };
    // The query tokens of all sequences stand one after the other, so results are appended in order.
    for sequence in &sequences {
        let start = tokens.start.min(sequence.slots.len());
        let end = tokens.end.clamp(start, sequence.slots.len());
        let latents = concat(&sequence.slots[start..end], |slot| cache.latent(slot))?;
        let keys = concat(&sequence.slots[start..end], |slot| cache.rope(slot))?;
        let factors = concat(&sequence.slots[start..end], |slot| cache.factors(slot))?;
        let per_head = map_rows(sequence.queries.len() * g.query_heads, |row| {
            let (j, head) = (row / g.query_heads, row % g.query_heads);
            let query = sequence.queries.start * g.query_heads + row;
            let q_latent = &inputs.q_latent[query * g.latent_rank..][..g.latent_rank];
            let q_rope = &inputs.q_rope[query * g.rope_dim..][..g.rope_dim];
            let score = |s: usize| {
                let latent = &latents[s * g.latent_rank..][..g.latent_rank];
                let key = &keys[s * g.rope_width() + g.rope_head_of(head) * g.rope_dim..][..g.rope_dim];
                let factor = factors.get(s * g.key_factors() + g.kv_head_of(head)).map_or(1.0, |&factor| factor);
                inputs.scale * (factor * dot(q_latent, latent) + dot(q_rope, key))
            };
            let seen = sequence.visible(j).clamp(start, end) - start;
            softmax_mean((0..seen).map(score).collect(), &latents, g.latent_rank)
        });
        for (o_latent, lse) in per_head {
            attended.o_latent.extend(o_latent);
            attended.lse.push(lse);
        }
    }
    Ok(attended)
}

/// The mean of `values`' rows of `width` numbers, weighted by the softmax of `scores`, and the logarithm of the sum
/// of `exp(score)`. Without scores: zeros and minus infinity.
fn softmax_mean(mut scores: Vec<f64>, values: &[f64], width: usize) -> (Vec<f64>, f64) {
    let mut mean = vec![0.0; width];
    if scores.is_empty() {
        return (mean, f64::NEG_INFINITY);
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f64 = scores.iter().sum();
    for (score, value) in scores.iter().zip(values.chunks_exact(width)) {
        add_scaled(&mut mean, score / sum, value);
    }
    (mean, max + sum.ln())
}

fn concat(slots: &[usize], read: impl Fn(usize) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let rows: Vec<_> = slots.iter().map(|&slot| read(slot)).collect::<Result<_>>()?;
    Ok(rows.concat())
}
