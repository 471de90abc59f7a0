//! Ranks of the latent by what its directions are worth in every layer.

use anyhow::{Context, Result, ensure};
use latent_attention::convert::shared_key::{Sampling, Survey};

use crate::conversion::{OriginalStreams, Sizes, Source, tables};
use crate::tensors::to_vec;

/// Directions that a layer is given or not given together: the fewest that keep a row of 4-bit codes whole words.
pub const BLOCK: usize = 8;

/// What the first directions of each layer's latent are worth, at most as many as `most` says beside a shared rotated key of
/// its width: the mean square of the output that is lost without one, relative to that of the residual stream behind the
/// attention. `done` is called after every layer.
///
/// # Errors
/// As for [`convert_model`](crate::conversion::convert_model).
pub fn worths(
    source: Source<'_>,
    sequences: &[Vec<u32>],
    most: Sizes,
    sampling: &Sampling,
    mut done: impl FnMut(),
) -> Result<Vec<Vec<f64>>> {
    let Source { layers, frequencies, .. } = source;
    ensure!(sequences.iter().any(|tokens| tokens.len() > 1), "there is no text to calibrate on");
    let tables = tables(source, sequences)?;
    let mut original = OriginalStreams::new(source, &tables, sequences)?;
    let mut worths = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let inputs = original.attend(index)?;
        let mut squares = Vec::new();
        for behind in &original.streams {
            // The first token of a text is an attention sink in most models: its stream is of another size.
            squares.extend(to_vec(&behind.sqr()?.sum(1)?)?.into_iter().skip(1).map(f64::from));
        }
        original.add_mlp(index)?;
        let square = (squares.iter().sum::<f64>() / squares.len() as f64).max(f64::MIN_POSITIVE);
        let of_layer = || -> Result<Vec<f64>> {
            let survey = Survey::new(layer, frequencies, &inputs, sampling)?;
            let full = layer.hidden().min(2 * layer.kv_heads * layer.head_dim);
            let chosen = survey.choose(&inputs, most.rope_dim, most.latent_rank.min(full))?;
            Ok(chosen.worths().iter().map(|worth| worth.max(0.0) / square).collect())
        };
        worths.push(of_layer().with_context(|| format!("layer {index}"))?);
        done();
    }
    Ok(worths)
}

/// Sizes that keep what is worth most, of [`worths`]: `latent_rank` directions per layer in the mean (the rest of a [`BLOCK`]
/// left out), given in blocks to layers that begin with half of them, up to twice as many.
#[must_use]
pub fn by_worth(worths: &[Vec<f64>], rope_dim: usize, latent_rank: usize) -> Vec<Sizes> {
    let least = (latent_rank / 2).next_multiple_of(BLOCK).min(latent_rank);
    let mut sizes = vec![Sizes { rope_dim, latent_rank: least }; worths.len()];
    let mut left = worths.len() * (latent_rank - least);
    while left >= BLOCK {
        let worth = |(layer, sizes): (usize, &Sizes)| {
            let end = sizes.latent_rank + BLOCK;
            let block = worths[layer].get(sizes.latent_rank..end).filter(|_| end <= 2 * latent_rank)?;
            Some((layer, block.iter().sum::<f64>()))
        };
        let best = sizes.iter().enumerate().filter_map(worth).max_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((layer, _)) = best else { break };
        sizes[layer].latent_rank += BLOCK;
        left -= BLOCK;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::{dense, text, transformer};
    use latent_attention::rope::theta_frequencies;
    use latent_attention::weights::{DenseAttention, Matrix};

    #[test]
    fn a_layer_that_adds_nothing_needs_nothing() {
        let (transformer, frequencies, mut layers) = (transformer(), theta_frequencies(1e4, 8), dense(true));
        let of = |layers: &[DenseAttention]| {
            let source = Source { transformer: &transformer, layers, frequencies: &frequencies };
            let mut done = 0;
            let most = Sizes { rope_dim: 4, latent_rank: 99 };
            let worths = worths(source, &text(10, 30), most, &Sampling::default(), || done += 1).unwrap();
            assert_eq!((worths.len(), done), (layers.len(), layers.len()));
            worths
        };
        let before = of(&layers);
        assert!(before.iter().flatten().all(|&worth| (0.0..1e3).contains(&worth)), "{before:?}");
        assert!(before.iter().all(|layer| layer.len() == 24 && layer[0] > layer[23]), "{before:?}");
        let output = &mut layers[1].output.weight;
        *output = Matrix::from_fn(output.rows(), output.cols(), |_, _| 0.0);
        let after = of(&layers);
        assert_eq!(after[0], before[0]);
        assert!(after[1].iter().all(|&worth| worth == 0.0), "{after:?}");
        let ranks: Vec<usize> = by_worth(&after, 4, 16).iter().map(|sizes| sizes.latent_rank).collect();
        assert_eq!(ranks, [24, 8]);
    }

    #[test]
    fn layers_of_more_worth_have_more_and_all_together_as_much() {
        let falling = |from: f64| -> Vec<f64> { (0..64).map(|i| from * 0.9f64.powi(i)).collect() };
        let ranks_of = |worths: &[Vec<f64>], rank| -> Vec<usize> {
            by_worth(worths, 4, rank).iter().map(|sizes| sizes.latent_rank).collect()
        };
        let ranks = |worths: &[Vec<f64>]| ranks_of(worths, 16);
        assert_eq!(ranks(&[falling(1.0), falling(1.0)]), [16, 16]);
        assert_eq!(ranks(&[falling(9.0), falling(1.0)]), [24, 8]);
        // No layer has more than twice as many, or fewer than half.
        assert_eq!(ranks(&[falling(1e9), falling(1.0), falling(1.0)]), [32, 8, 8]);
        // A layer that has no more directions leaves them to others.
        assert_eq!(ranks(&[vec![1.0; 8], falling(1e-3)]), [8, 24]);
        // Ranks that blocks do not divide.
        assert_eq!(ranks_of(&[falling(9.0), falling(1.0)], 20), [24, 16]);
        assert_eq!(ranks_of(&[falling(9.0), falling(1.0)], 10), [8, 8]);
        assert_eq!(ranks_of(&[falling(9.0), falling(1.0)], 4), [4, 4]);
    }
}
