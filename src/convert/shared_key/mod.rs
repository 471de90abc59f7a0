//! Converts a layer so that the model stays: one shared rotated key, a latent weighted by what its errors cost, and
//! decoders by least squares.
//!
//! MHA2MLA drops most pairs' rotation, factorises what is left, and lets fine-tuning repair the damage. Here the damage is
//! avoided as far as a closed form goes. All expectations are over calibration text, seen by the layer itself:
//!
//! 1. **What an error costs** (`samples`): a score's error counts by what it does to the head's output.
//! 2. **One shared rotated key** (`components`): RoPE turns all heads' pairs of one frequency alike, so the KV heads' pairs
//!    are mixed into principal components of each frequency.
//! 3. **Which components keep their rotation** (`components`): those whose scores lose most without it.
//! 4. **The latent** (`latent`): the directions of the input in which what is left of the keys and all of the values lie,
//!    both weighted by what they are worth.
//! 5. **Decoders** (`decoders`): each query head's own key and value of what is cached, by least squares.
//! 6. **Sequential refit**: [`SharedKey::attention`] fits to any inputs, so a caller who converts layer by layer hands it
//!    what the converted layers before make of the text; [`OutputFit`] then takes back what the output projection can.
//! 7. **Balance** (`balance`): coordinates of the latent and scales of the rotated pairs that lose least to four bits.
//!
//! The result has DeepSeek's shape, one rotated key for all heads and up-projections for every query head, with
//! frequencies of its own.

mod balance;
mod components;
mod decoders;
mod inputs;
mod latent;
#[cfg(test)]
mod latent_tests;
mod moments;
mod original;
mod output;
mod regression;
mod samples;
#[cfg(test)]
mod tests;

pub use inputs::LayerInputs;
pub use output::OutputFit;

use faer::Mat;

use balance::Balance;
use components::{Component, Components};
use decoders::Decoders;
use latent::Fitted;
use moments::Moments;
use original::Original;

use super::linalg::{product, round, round_vector};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::{FrequencyIndex, Pairing};
use crate::weights::{DenseAttention, LatentAttention, Linear};

/// A step of the method, by what it adds. [`Sampling::without`] leaves one out, to see what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Step 1: without it the error of a score counts by the attention alone.
    Costs,
    /// Step 2: without it a component is one KV head's pair.
    Mixing,
    /// Step 3: without it those components keep their rotation whose scores vary most.
    Ranking,
    /// Step 4: without it all directions of a key and all of a value count alike in the latent.
    Sensitivity,
    /// Step 5: without it keys and values are made of the latent as the projections say.
    Decoders,
    /// Step 7: without it the latent is rotated at random, and nothing else.
    Balance,
}

/// How a text is sampled and fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Queries sampled in each sequence, or in as many tokens as [`Sampling::per`] says.
    pub queries: usize,
    /// Keys sampled for each head of each of those queries.
    pub keys: usize,
    /// Queries in each sequence, or in as many tokens, whose heads' averages the values are fitted to.
    pub averages: usize,
    /// Tokens that `queries` and `averages` are counted by: every token of a text then weighs the same, however long the
    /// sequence that it stands in. Without it every sequence weighs the same.
    pub per: Option<usize>,
    /// Pull of every least-squares fit towards what the projections alone say, relative to the features' squares.
    pub ridge: f64,
    /// Picks samples and the latent's rotation.
    pub seed: u64,
    /// A step that is left out.
    pub without: Option<Step>,
}

impl Default for Sampling {
    /// 16 queries of each sequence with 24 keys, and averages for 64; a ridge of 0.001; seed 0; all steps.
    fn default() -> Self {
        Self { queries: 16, keys: 24, averages: 64, per: None, ridge: 1e-3, seed: 0, without: None }
    }
}

impl Sampling {
    /// The same with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How many of a sequence of `tokens` tokens are sampled where `count` are asked for: at least one.
    fn of_sequence(&self, count: usize, tokens: usize) -> usize {
        self.per.map_or(count, |per| (count * tokens).div_ceil(per))
    }

    fn check(&self) -> Result<()> {
        let per = self.per.unwrap_or(1);
        for (what, count) in [("queries", self.queries), ("keys", self.keys), ("averages", self.averages), ("per", per)]
        {
            if count == 0 {
                return Err(Error::Config { what: format!("Sampling::{what}"), why: "must be at least 1".into() });
            }
        }
        if self.ridge.is_finite() && self.ridge > 0.0 {
            Ok(())
        } else {
            Err(Error::Config { what: "Sampling::ridge".into(), why: "must be positive".into() })
        }
    }
}

/// What a layer's text says before sizes are chosen: steps 1 to 3, which every size shares.
pub struct Survey {
    layer: DenseAttention,
    original: Original,
    sampling: Sampling,
    moments: Moments,
    components: Components,
    /// All components, those first whose scores lose most without their rotation.
    ranked: Vec<Component>,
}

impl Survey {
    /// Looks at what `layer`, whose pairs turn by `frequencies` (`[head_dim/2]`, radians per token), sees in `inputs`.
    ///
    /// # Errors
    /// - As for [`DenseAttention::validate`];
    /// - [`Error::Shape`] if there is not one frequency per pair, or inputs do not divide into tokens;
    /// - [`Error::NotFinite`] if a weight or an input is not finite;
    /// - [`Error::Unsupported`] if the layer has norms over heads;
    /// - [`Error::Config`] if a number of samples is 0, or there are no tokens;
    /// - [`Error::Numeric`] if an eigendecomposition fails;
    /// - what reading the inputs may return.
    pub fn new(
        layer: &DenseAttention,
        frequencies: &[f32],
        inputs: &dyn LayerInputs,
        sampling: &Sampling,
    ) -> Result<Self> {
        if layer.head_norms.is_some() {
            return Err(Error::Unsupported {
                what: "a shared key of keys with norms over heads".into(),
                why: "each KV head's factor is its own; `convert` keeps heads apart".into(),
            });
        }
        let original = Original::new(layer, frequencies)?;
        sampling.check()?;
        let moments = Moments::gather(&original, inputs, sampling)?;
        let components = Components::new(&original, &moments, sampling)?;
        let ranked = components.ranked(&original, &moments, inputs, sampling)?;
        Ok(Self { layer: layer.clone(), original, sampling: *sampling, moments, components, ranked })
    }

    /// Step 4: the layer with a shared key of `rope_dim` rotated dimensions (R, two per pair; 0 to
    /// `kv_heads * head_dim`) and a latent of `latent_rank` (L). `inputs` are those of [`Survey::new`].
    ///
    /// # Errors
    /// - [`Error::Geometry`] if `rope_dim` is odd or larger than all KV heads' dimensions together;
    /// - [`Error::Config`] if the latent rank is 0 or larger than the rank of keys and values together, or if the text has
    ///   fewer tokens than a fit has unknowns;
    /// - [`Error::Numeric`] if a factorisation fails;
    /// - what reading the inputs may return.
    pub fn choose(&self, inputs: &dyn LayerInputs, rope_dim: usize, latent_rank: usize) -> Result<SharedKey<'_>> {
        check_sizes(&self.original, &self.moments, rope_dim, latent_rank)?;
        let mut kept = self.ranked[..rope_dim / 2].to_vec();
        kept.sort_unstable();
        let (original, moments) = (&self.original, &self.moments);
        let fitted = Fitted::new(original, &self.components, &kept, moments, inputs, latent_rank, &self.sampling)?;
        Ok(SharedKey { survey: self, fitted })
    }
}

/// A layer whose shared key and latent are chosen.
pub struct SharedKey<'a> {
    survey: &'a Survey,
    fitted: Fitted,
}

impl SharedKey<'_> {
    /// What each direction of the latent is worth before step 7 mixes them, `[L]`, roughly descending: an estimate of the
    /// mean square of the layer's output that is lost without it, an error of a score counted as step 1 does. The
    /// directions of a smaller latent are the first of a larger one.
    #[must_use]
    pub fn worths(&self) -> Vec<f64> {
        self.fitted.worths(&self.survey.original, &self.survey.moments)
    }

    /// Steps 5 and 7: the converted layer, its decoders fitted to `inputs`, which are those of [`Survey::new`] or what the
    /// layer will see behind other converted layers.
    ///
    /// # Errors
    /// As for [`Survey::new`].
    pub fn attention(&self, inputs: &dyn LayerInputs) -> Result<LatentAttention> {
        let Survey { layer, original, sampling, moments, .. } = self.survey;
        let fitted = &self.fitted;
        let decoders = Decoders::fit(original, fitted, inputs, sampling)?;
        let balance = Balance::new(original, fitted, &decoders, moments, inputs, sampling)?;
        let (heads, d, rank, count) =
            (original.query_heads, original.head_dim, fitted.down.nrows(), fitted.pairs.len());
        let rope_dim = 2 * count;

        let mut key_rope = fitted.key_rope.clone();
        let mut query_rope = (Mat::<f64>::zeros(heads * rope_dim, original.hidden), vec![0.0; heads * rope_dim]);
        for (j, factor) in balance.pairs.iter().enumerate() {
            for row in [j, j + count] {
                key_rope.0.row_mut(row).iter_mut().for_each(|x| *x *= factor);
                key_rope.1[row] *= factor;
            }
        }
        let down = product(balance.latent.as_ref(), fitted.down.as_ref());
        let mut up_key = Mat::<f64>::zeros(heads * d, rank);
        let mut up_value = Mat::<f64>::zeros(heads * d, rank);
        for head in 0..heads {
            let (rope, latent) = decoders.keys[head].split_at_row(rope_dim);
            let inverse = Mat::from_fn(rope_dim, d, |row, i| rope[(row, i)] / balance.pairs[row % count]);
            let (weight, bias) = (original.head_rows(&original.query.0, head), &original.query.1[head * d..][..d]);
            query_rope
                .0
                .get_mut(head * rope_dim..(head + 1) * rope_dim, ..)
                .copy_from(product(inverse.as_ref(), weight));
            for row in 0..rope_dim {
                query_rope.1[head * rope_dim + row] = bias.iter().enumerate().map(|(i, b)| inverse[(row, i)] * b).sum();
            }
            let rows = head * d..(head + 1) * d;
            up_key.get_mut(rows.clone(), ..).copy_from(product(latent.transpose(), balance.inverse.as_ref()));
            up_value.get_mut(rows, ..).copy_from(product(decoders.values[head].transpose(), balance.inverse.as_ref()));
        }
        let linear = |what, (weight, bias): &(Mat<f64>, Vec<f64>), biased: bool| -> Result<Linear> {
            let bias = if biased { Some(round_vector(what, bias)?) } else { None };
            Ok(Linear { weight: round(what, weight.as_ref())?, bias })
        };
        let frequencies = fitted.pairs.iter().map(|&pair| pair as u32).collect();
        let value_bias = |bias: &Vec<f32>| -> Vec<f32> {
            (0..heads).flat_map(|head| bias[original.kv_head_of(head) * d..][..d].iter().copied()).collect()
        };
        Ok(LatentAttention {
            geometry: Geometry::deepseek(heads, rank, rope_dim, d, d)?,
            query_down: None,
            query_rope: linear("rounding the rotated query projection", &query_rope, layer.query.bias.is_some())?,
            query_nope: layer.query.clone(),
            key_rope: linear("rounding the rotated key projection", &key_rope, layer.key.bias.is_some())?,
            down: Linear::new(round("rounding the down-projection", down.as_ref())?),
            latent_norm: None,
            latent_bias: None,
            up_key: round("rounding the key up-projection", up_key.as_ref())?,
            up_value: round("rounding the value up-projection", up_value.as_ref())?,
            value_bias: layer.value.bias.as_ref().map(value_bias),
            output: layer.output.clone(),
            frequencies: FrequencyIndex::new(1, frequencies)?,
            pairing: Pairing::Half,
            scale: original.scale,
            head_norms: None,
        })
    }
}

/// Checks sizes against the layer and its text.
fn check_sizes(original: &Original, moments: &Moments, rope_dim: usize, latent_rank: usize) -> Result<()> {
    let all = original.kv_heads * original.head_dim;
    if !rope_dim.is_multiple_of(2) || rope_dim > all {
        return Err(Error::Geometry {
            field: "rope_dim",
            expected: format!("even and at most {all}, all KV heads' dimensions together"),
            got: rope_dim,
        });
    }
    let full = original.hidden.min(2 * all);
    if latent_rank == 0 || latent_rank > full {
        return Err(Error::Config {
            what: format!("latent rank {latent_rank}"),
            why: format!("must be 1 to {full}, the rank of keys and values together"),
        });
    }
    let (unknowns, tokens) = (rope_dim + latent_rank, moments.tokens);
    if tokens < unknowns {
        return Err(Error::Config {
            what: "calibration text".into(),
            why: format!("{tokens} tokens are fewer than the {unknowns} unknowns (rotated and latent) of every fit"),
        });
    }
    Ok(())
}
