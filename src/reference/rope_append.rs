//! `rope_append`: rotate, normalise, quantise and store the new tokens of a batch.

use crate::cache::PagedCache;
use crate::error::{Error, Result, check_epsilon, check_len};
use crate::geometry::Geometry;
use crate::rope::{FrequencyIndex, Pairing, RopeTables, rotate_head};
use crate::warp;
use crate::weights::RmsNorm;

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug)]
pub struct RopeAppendParams<'a> {
    /// The layer's sizes.
    pub geometry: &'a Geometry,
    /// What rotates queries and keys; `None`: keys are rotated already, and there are no queries.
    pub rotation: Option<RopeAppendRotation<'a>>,
    /// Norm over the latent.
    pub norm: Option<&'a RmsNorm>,
    /// `[L]`, added to the latent after the norm.
    pub bias: Option<&'a [f32]>,
}

/// What rotates a layer's heads.
#[derive(Clone, Copy, Debug)]
pub struct RopeAppendRotation<'a> {
    /// Which dimensions of a rope head form a pair.
    pub pairing: Pairing,
    /// Cosines and sines.
    pub tables: &'a RopeTables,
    /// `[Gr, R/2]` columns of the tables. Query head `h` uses those of its rope head.
    pub frequencies: &'a FrequencyIndex,
}

/// What normalises keys head by head: the rotated part here, the rest where scores are computed.
#[derive(Clone, Copy, Debug)]
pub struct KeyNorm<'a> {
    /// `[G, R]`: the gain of the rotated dimensions.
    pub gain: &'a [f32],
    /// `[T, G]`: 1 over the root of each key's mean square, by [`head_norm`](super::head_norm).
    pub factors: &'a [f32],
}

/// New tokens, projected.
#[derive(Clone, Copy, Debug)]
pub struct RopeAppendInputs<'a> {
    /// `[T, H, R]`, not yet rotated; `None`: there are no queries.
    pub q_rope: Option<&'a [f32]>,
    /// `[T, Gr, R]`, not yet rotated; without a rotation it is stored as it is.
    pub k_rope: &'a [f32],
    /// `[T, L]`: the down-projection's output.
    pub c_kv: &'a [f32],
    /// Of normalised keys, and only of these.
    pub key_norm: Option<KeyNorm<'a>>,
    /// `[T]`: row of the tables; with a rotation, and only with one.
    pub positions: Option<&'a [i32]>,
    /// `[T]`: where each token goes in the cache; -1 rotates the query but stores nothing.
    pub slots: &'a [i64],
}

/// The outcome of [`rope_append`].
#[derive(Clone, Debug, PartialEq)]
pub struct RopeAppended {
    /// `[T, H, R]`, rotated; empty without queries.
    pub q_rope: Vec<f32>,
    /// How many cached values were not finite or beyond f16's range, and had to be moved into their group's range.
    pub saturated: usize,
}

/// Normalises `k_rope` where keys are normalised (two f32 products of each number, with the head's factor and with the
/// gain); rotates `q_rope` and `k_rope` ([`rotate_head`]), where there are queries and a rotation; applies norm
/// ([`rms_norm`]) and bias to the latent (one f32 addition), and writes latent, key and the keys' factors into the cache
/// ([`quantize`](crate::cache::quantize); factors as f16, rounded to nearest even, within 0 ..= 65504 and 0 for NaN).
///
/// Everything is f32, rounded to nearest even after each operation, so that the cache agrees byte for byte.
///
/// # Errors
/// [`Error::Shape`] if a slice does not fit the geometry, the token count or the cache's layout; [`Error::Index`]
/// for a slot, position or frequency that does not exist; [`Error::Config`] if two tokens share a slot, if queries or
/// positions are given without a rotation, or a rotation without positions, factors for keys that are not normalised
/// or none for keys that are, or if the norm's epsilon is negative or not finite; [`Error::NotFinite`] if a cosine or sine is not finite. Nothing is written then.
pub fn rope_append(
    params: &RopeAppendParams,
    inputs: &RopeAppendInputs,
    cache: &mut PagedCache,
) -> Result<RopeAppended> {
    check(params, inputs, cache)?;
    let g = params.geometry;
    let mut q_rope = inputs.q_rope.unwrap_or_default().to_vec();
    let mut saturated = 0;
    for (t, &slot) in inputs.slots.iter().enumerate() {
        let rotate = |heads: &mut [f32], rope_head_of: &dyn Fn(usize) -> usize| {
            let Some((rotation, positions)) = params.rotation.zip(inputs.positions) else { return };
            for (head, dims) in heads.chunks_exact_mut(g.rope_dim.max(1)).enumerate() {
                let frequencies = rotation.frequencies.head(rope_head_of(head));
                rotate_head(dims, frequencies, rotation.pairing, rotation.tables, positions[t] as usize);
            }
        };
        if inputs.q_rope.is_some() {
            rotate(row_mut(&mut q_rope, t, g.query_heads * g.rope_dim), &|head| g.rope_head_of(head));
        }
        if slot < 0 {
            continue;
        }
        let mut key = row(inputs.k_rope, t, g.rope_width()).to_vec();
        let mut factors: &[f32] = &[];
        if let Some(norm) = inputs.key_norm {
            factors = row(norm.factors, t, g.kv_heads);
            for (i, (value, gain)) in key.iter_mut().zip(norm.gain).enumerate() {
                *value = *value * factors[i / g.rope_dim] * gain;
            }
        }
        rotate(&mut key, &|head| head);
        let mut latent = row(inputs.c_kv, t, g.latent_rank).to_vec();
        if let Some(norm) = params.norm {
            rms_norm(&mut latent, norm);
        }
        for (value, bias) in latent.iter_mut().zip(params.bias.unwrap_or_default()) {
            *value += bias;
        }
        saturated += cache.write_normalised(slot as usize, &latent, &key, factors)?;
    }
    Ok(RopeAppended { q_rope, saturated })
}

/// RMSNorm in place, specified to the bit for a warp of 32 lanes: `x * (1 / sqrt(sum / n + epsilon)) * gain`.
///
/// Lane `l` adds the squares of elements `i` with `(i / 8) % 32 == l` in ascending order, beginning with 0 (so that a
/// lane reads 8 neighbours, 16 bytes of bf16, at a time); then, for a distance of 16, 8, 4, 2, 1, every lane adds the sum of the
/// lane at that distance (butterfly). All operations are f32, rounded to nearest even, none contracted.
pub fn rms_norm(values: &mut [f32], norm: &RmsNorm) {
    let inverse = warp::inverse_rms(values, norm.epsilon);
    for (value, gain) in values.iter_mut().zip(&norm.gain) {
        *value = *value * inverse * gain;
    }
}

fn row(values: &[f32], index: usize, len: usize) -> &[f32] {
    &values[index * len..][..len]
}

fn row_mut(values: &mut [f32], index: usize, len: usize) -> &mut [f32] {
    &mut values[index * len..][..len]
}

fn check(params: &RopeAppendParams, inputs: &RopeAppendInputs, cache: &PagedCache) -> Result<()> {
    let (g, tokens) = (params.geometry, inputs.slots.len());
    g.validate()?;
    cache.layout().check(g)?;
    let t = ("tokens", tokens);
    if let Some(q_rope) = inputs.q_rope {
        check_len("q_rope", q_rope.len(), &[t, ("query heads", g.query_heads), ("rope", g.rope_dim)])?;
    }
    check_len("k_rope", inputs.k_rope.len(), &[t, ("rope heads", g.rope_heads), ("rope", g.rope_dim)])?;
    check_len("c_kv", inputs.c_kv.len(), &[t, ("latent", g.latent_rank)])?;
    if let Some(norm) = inputs.key_norm {
        check_len("gain of keys", norm.gain.len(), &[("kv heads", g.kv_heads), ("rope", g.rope_dim)])?;
        check_len("factors of keys", norm.factors.len(), &[t, ("kv heads", g.kv_heads)])?;
    }
    g.check_key_norm(inputs.key_norm.is_some())?;
    if let Some(norm) = params.norm {
        check_len("latent norm", norm.gain.len(), &[("latent", g.latent_rank)])?;
        check_epsilon("latent norm", norm.epsilon)?;
    }
    if let Some(bias) = params.bias {
        check_len("latent bias", bias.len(), &[("latent", g.latent_rank)])?;
    }
    let index =
        |what: &str, i: usize, got: i64, bound: String| Err(Error::Index { what: format!("{what} [{i}]"), got, bound });
    let incomplete = |what: &str, why: &str| Err(Error::Config { what: what.into(), why: why.into() });
    match (params.rotation, inputs.positions) {
        (Some(RopeAppendRotation { tables, frequencies, .. }), Some(positions)) => {
            check_len("positions", positions.len(), &[t])?;
            frequencies.check(g)?;
            frequencies.check_within(tables.frequencies())?;
            for (i, &position) in positions.iter().enumerate() {
                if usize::try_from(position).map_or(true, |p| p >= tables.positions()) {
                    return index("positions", i, position.into(), format!("0..{} positions", tables.positions()));
                }
                tables.check_finite(position as usize..position as usize + 1)?;
            }
        }
        (Some(_), None) => return incomplete("rotation", "is given without positions"),
        (None, Some(_)) => return incomplete("positions", "is given without a rotation"),
        (None, None) if inputs.q_rope.is_some() => return incomplete("q_rope", "is given without a rotation"),
        (None, None) => {}
    }
    let mut written: Vec<i64> = Vec::with_capacity(tokens);
    for (i, &slot) in inputs.slots.iter().enumerate() {
        if slot < -1 || slot >= cache.slots() as i64 {
            return index("slots", i, slot, format!("-1 or 0..{} slots", cache.slots()));
        }
        written.extend((slot >= 0).then_some(slot));
    }
    written.sort_unstable();
    if let Some(twice) = written.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Config {
            what: format!("slot {}", twice[0]),
            why: "two tokens of one step cannot share a slot".into(),
        });
    }
    Ok(())
}
