//! Step 5: every head's keys and values of what is cached, by least squares.

use faer::Mat;

use super::inputs::{LayerInputs, for_each_sequence};
use super::latent::Fitted;
use super::moments::averaging;
use super::original::{Original, project};
use super::regression::{Features, Turns};
use super::samples::Samples;
use super::{Sampling, Step};
use crate::convert::linalg::{add_product, product, regress};
use crate::error::Result;

/// Share of a head's own averages in what its values are fitted to; the rest are those of all heads.
const OWN_SHARE: f64 = 0.7;

/// What each query head makes of the cache.
pub(super) struct Decoders {
    /// `[R + L, d]`: the key of the rotated key and the latent.
    pub keys: Vec<Mat<f64>>,
    /// `[L, d]`: the value of the latent.
    pub values: Vec<Mat<f64>>,
}

/// Products of one sequence, or sums over sequences.
struct Sums {
    /// For each head `Z Z^T` and `Z Y^T` of its keys.
    keys: Vec<(Mat<f64>, Mat<f64>)>,
    /// For each head `c c^T` over what it averages, `[L, L]`.
    latents: Vec<Mat<f64>>,
    /// For each head its values by the latents, over what it averages, `[L, d]`.
    values: Vec<Mat<f64>>,
    /// For each KV head its values by the latents, over what all heads average, `[L, d]`.
    all_values: Vec<Mat<f64>>,
}

impl Decoders {
    /// Fits to the keys and values that the original makes of `inputs`, which may be those of the converted model.
    ///
    /// # Errors
    /// As for [`Original::sequence`].
    pub fn fit(original: &Original, fitted: &Fitted, inputs: &dyn LayerInputs, sampling: &Sampling) -> Result<Self> {
        if sampling.without == Some(Step::Decoders) {
            let values = (0..original.query_heads).map(|head| fitted.values[original.kv_head_of(head)].clone());
            return Ok(Self { keys: fitted.keys.clone(), values: values.collect() });
        }
        let (heads, groups, d) = (original.query_heads, original.kv_heads, original.head_dim);
        let (rank, features) = (fitted.down.nrows(), fitted.key_rope.0.nrows() + fitted.down.nrows());
        let mut sums = Sums {
            keys: vec![(Mat::zeros(features, features), Mat::zeros(features, d)); heads],
            latents: vec![Mat::zeros(rank, rank); heads],
            values: vec![Mat::zeros(rank, d); heads],
            all_values: vec![Mat::zeros(rank, d); groups],
        };
        let make = |index| Sums::of_sequence(original, fitted, inputs, sampling, index);
        for_each_sequence(inputs.sequences(), make, |_, sequence| sums.add(&sequence))?;

        let Sums { keys, latents, values, all_values } = sums;
        let keys = keys.into_iter().zip(&fitted.keys);
        let keys =
            keys.map(|((gram, cross), prior)| regress(gram, cross, sampling.ridge, prior)).collect::<Result<_>>()?;
        let mut all_latents = Mat::<f64>::zeros(rank, rank);
        latents.iter().for_each(|latents| all_latents += latents);
        let mix = |own: &Mat<f64>, all: &Mat<f64>| {
            own * faer::Scale(OWN_SHARE) + all * faer::Scale((1.0 - OWN_SHARE) / heads as f64)
        };
        let value = |head: usize| {
            let group = original.kv_head_of(head);
            let gram = mix(&latents[head], &all_latents);
            let cross = mix(&values[head], &all_values[group]);
            regress(gram, cross, sampling.ridge, &fitted.values[group])
        };
        Ok(Self { keys, values: (0..heads).map(value).collect::<Result<_>>()? })
    }
}

impl Sums {
    fn of_sequence(
        original: &Original,
        fitted: &Fitted,
        inputs: &dyn LayerInputs,
        sampling: &Sampling,
        index: usize,
    ) -> Result<Self> {
        let sequence = original.sequence(inputs, index)?;
        let read = original.keys_and_values(&sequence);
        let samples = Samples::draw(original, &sequence, &read, index, sampling);
        let rotated = project(&fitted.key_rope, sequence.inputs.as_ref());
        let latent = product(fitted.down.as_ref(), sequence.inputs.as_ref());
        let turns = Turns::new(&original.frequencies, sequence.tokens());
        let features = Features { rotated: rotated.as_ref(), pairs: &fitted.pairs, plain: latent.as_ref() };
        let heads = 0..original.query_heads;
        let keys = heads.map(|head| features.products(original, &sequence, &samples, head, &turns)).collect();

        let (mut latents, mut values) = (Vec::new(), Vec::new());
        let mut all_values = vec![Mat::zeros(fitted.down.nrows(), original.head_dim); original.kv_heads];
        for (head, attention) in averaging(original, &sequence, &read, index, sampling).enumerate() {
            let latent = product(latent.as_ref(), attention.as_ref());
            let value = product(read.value.as_ref(), attention.as_ref());
            latents.push(product(latent.as_ref(), latent.transpose()));
            for (group, sum) in all_values.iter_mut().enumerate() {
                add_product(sum.as_mut(), latent.as_ref(), original.head_rows(&value, group).transpose());
            }
            let own = original.head_rows(&value, original.kv_head_of(head));
            values.push(product(latent.as_ref(), own.transpose()));
        }
        Ok(Self { keys, latents, values, all_values })
    }

    fn add(&mut self, other: &Self) {
        for ((gram, cross), (more_gram, more_cross)) in self.keys.iter_mut().zip(&other.keys) {
            *gram += more_gram;
            *cross += more_cross;
        }
        let matrices = |sums: &mut [Mat<f64>], more: &[Mat<f64>]| {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        matrices(&mut self.latents, &other.latents);
        matrices(&mut self.values, &other.values);
        matrices(&mut self.all_values, &other.all_values);
    }
}
