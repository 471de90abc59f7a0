//! The Kullback-Leibler divergence between the predictions of two models, in chunks: on the CPU their logits are never held whole.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::node::{Gradients, Value, by_type, common_type, constant, node2, with_numbers};
use super::primitives::{self, by_hand};
use super::product::{Cores, View, product};
use super::real::{Real, largest, sum, vectorised};

/// Tokens whose logits are held at a time, those of two models: enough to use the weights well.
pub(super) const CHUNK: usize = 64;

/// The hidden states of a model after its last norm, `[tokens, hidden]`, and its output head, `[vocabulary, hidden]`.
type Predictor<'a> = (&'a Tensor, &'a Tensor);

/// The mean over tokens of `KL(original || x)` in nats, where both predict by `softmax(hidden head^T)`.
///
/// `x` and its head may lead to variables, `original` is a constant. On the CPU the gradients are computed
/// along with the value, since both need the same logits.
///
/// # Errors
/// If the shapes or types do not fit, or there are no tokens.
pub fn divergence(x: Predictor, original: Predictor) -> Result<Tensor> {
    let dtype = check(x, original)?;
    if !by_hand(x.0) {
        return primitives::divergence(x, original);
    }
    let detached = [x.0.contiguous()?, x.1.contiguous()?];
    let original = [original.0.detach().contiguous()?, original.1.detach().contiguous()?];
    by_type!(dtype, run(&detached[0], &detached[1], &original))
}

/// How the predictions of two models compare on some tokens, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// The sum of `KL(original || x)`.
    pub divergence: f64,
    /// The sum of the negative log-likelihoods of the tokens that follow, by `x`.
    pub loss: f64,
    /// The same by the original.
    pub original_loss: f64,
}

/// Compares `x` with `original` on tokens followed by `targets`.
///
/// # Errors
/// As [`divergence`], or if there is not one target per token, or one lies outside of the vocabulary.
pub fn compare(x: Predictor, original: Predictor, targets: &[u32]) -> Result<Compared> {
    let dtype = check(x, original)?;
    let vocabulary = x.1.dim(0)?;
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocabulary) {
        bail!("token {target} of a vocabulary of {vocabulary}")
    }
    if targets.len() != x.0.dim(0)? {
        bail!("{} targets of {} tokens", targets.len(), x.0.dim(0)?)
    }
    if !by_hand(x.0) {
        return primitives::compare(x, original, targets);
    }
    let tensors = [x.0.contiguous()?, x.1.contiguous()?, original.0.contiguous()?, original.1.contiguous()?];
    by_type!(dtype, compare_as(&tensors, targets))
}

fn check(x: Predictor, original: Predictor) -> Result<candle_core::DType> {
    let dtype = common_type("divergence", &[x.0, x.1, original.0, original.1])?;
    let ((tokens, hidden), (vocabulary, _)) = (x.0.dims2()?, x.1.dims2()?);
    let (other, _) = (original.0.dims2()?, original.1.dims2()?);
    let fits = x.1.dims() == [vocabulary, hidden]
        && other.0 == tokens
        && original.1.dims() == [vocabulary, other.1]
        && tokens > 0
        && vocabulary > 0;
    if !fits {
        let shapes = [x.0, x.1, original.0, original.1].map(Tensor::dims);
        bail!(
            "divergence of hidden states {:?} with head {:?} from {:?} with head {:?}",
            shapes[0],
            shapes[1],
            shapes[2],
            shapes[3]
        )
    }
    Ok(dtype)
}

/// The logits of both models for one chunk of tokens.
struct Logits<T> {
    x: Vec<T>,
    original: Vec<T>,
    vocabulary: usize,
}

/// Calls `f(first token, logits)` for chunk after chunk.
fn for_chunks<T: Real>(numbers: [&[T]; 4], tokens: usize, vocabulary: usize, mut f: impl FnMut(usize, &mut Logits<T>)) {
    let widths = [numbers[0].len() / tokens, numbers[2].len() / tokens];
    for start in (0..tokens).step_by(CHUNK) {
        let chunk = start..tokens.min(start + CHUNK);
        let logits = |hidden, head, width| {
            let mut out = vec![T::zero(); chunk.len() * vocabulary];
            let (hidden, head) = (View::new(hidden, width).rows(chunk.clone()), View::new(head, width));
            product(hidden, head.t(), &mut out, vocabulary, false, Cores::All);
            out
        };
        let x = logits(numbers[0], numbers[1], widths[0]);
        let original = logits(numbers[2], numbers[3], widths[1]);
        f(start, &mut Logits { x, original, vocabulary });
    }
}

/// Turns a row of logits into probabilities; returns the logarithm of the sum of their exponentials.
#[inline(always)]
fn softmax<T: Real>(row: &mut [T]) -> f64 {
    let largest = largest(row);
    row.iter_mut().for_each(
        #[inline(always)]
        |x| *x = (*x - largest).exp(),
    );
    let total = sum(
        row.len(),
        #[inline(always)]
        |i| row[i],
    );
    let inverse = T::one() / total;
    row.iter_mut().for_each(
        #[inline(always)]
        |x| *x *= inverse,
    );
    largest.to_f64() + total.to_f64().ln()
}

/// `KL(original || x)` of a row of logits each, of which probabilities are left; and the two logarithms of sums.
#[inline(always)]
fn row_divergence<T: Real>(x: &mut [T], original: &mut [T]) -> (f64, [f64; 2]) {
    let difference: Vec<T> = original
        .iter()
        .zip(x.iter())
        .map(
            #[inline(always)]
            |(o, x)| *o - *x,
        )
        .collect();
    let sums = [softmax(x), softmax(original)];
    let mean = sum(
        difference.len(),
        #[inline(always)]
        |i| original[i] * difference[i],
    );
    (mean.to_f64() + sums[0] - sums[1], sums)
}

fn run<T: Real>(x: &Tensor, head: &Tensor, original: &[Tensor; 2]) -> Result<Tensor> {
    let ((tokens, hidden), vocabulary) = (x.dims2()?, head.dim(0)?);
    let (want_x, want_head) = (x.track_op(), head.track_op());
    let mut dx = vec![T::zero(); if want_x { tokens * hidden } else { 0 }];
    let mut dhead = vec![T::zero(); if want_head { vocabulary * hidden } else { 0 }];
    let scale = T::from_f64(1.0 / tokens as f64);
    let mut total = 0.0;
    with_numbers([x, head, &original[0], &original[1]], |numbers: [&[T]; 4]| {
        for_chunks(numbers, tokens, vocabulary, |start, logits| {
            let rows = logits.x.par_chunks_mut(vocabulary).zip(logits.original.par_chunks_mut(vocabulary));
            let row = |(x, original): (&mut [T], &mut [T])| {
                vectorised(
                    #[inline(always)]
                    || {
                        let (divergence, _) = row_divergence(x, original);
                        // The gradient by the logits: the difference of the probabilities.
                        x.iter_mut().zip(original).for_each(
                            #[inline(always)]
                            |(x, o)| *x = (*x - *o) * scale,
                        );
                        divergence
                    },
                )
            };
            let parts: Vec<f64> = rows.map(row).collect();
            total += parts.iter().sum::<f64>();
            let gradient = View::new(&logits.x, logits.vocabulary);
            let end = start + parts.len();
            if want_x {
                let (head, dx) = (View::new(numbers[1], hidden), &mut dx[start * hidden..end * hidden]);
                product(gradient, head, dx, hidden, false, Cores::All);
            }
            if want_head {
                let x = View::new(numbers[0], hidden).rows(start..end);
                product(gradient.t(), x, &mut dhead, hidden, true, Cores::All);
            }
        });
        Ok(())
    })?;
    let dx = want_x.then(|| constant(Value::new(dx, (tokens, hidden)))).transpose()?;
    let dhead = want_head.then(|| constant(Value::new(dhead, (vocabulary, hidden)))).transpose()?;
    let value = Value::new(vec![T::from_f64(total / tokens as f64)], ());
    node2("divergence", [x, head], value, move |_, gradient| {
        let scaled = |of: &Option<Tensor>| of.as_ref().map(|of| of.broadcast_mul(gradient)).transpose();
        let gradients: Gradients<2> = [scaled(&dx)?, scaled(&dhead)?];
        Ok(gradients)
    })
}

fn compare_as<T: Real>(tensors: &[Tensor; 4], targets: &[u32]) -> Result<Compared> {
    let vocabulary = tensors[1].dim(0)?;
    let mut total = Compared::default();
    with_numbers([&tensors[0], &tensors[1], &tensors[2], &tensors[3]], |numbers: [&[T]; 4]| {
        for_chunks(numbers, targets.len(), vocabulary, |start, logits| {
            let rows = logits.x.par_chunks_mut(vocabulary).zip(logits.original.par_chunks_mut(vocabulary));
            let row = |((x, original), target): ((&mut [T], &mut [T]), &u32)| {
                let target = [x[*target as usize], original[*target as usize]].map(|logit| logit.to_f64());
                let (divergence, sums) = vectorised(
                    #[inline(always)]
                    || row_divergence(x, original),
                );
                Compared { divergence, loss: sums[0] - target[0], original_loss: sums[1] - target[1] }
            };
            let parts: Vec<Compared> = rows.zip(&targets[start..]).map(row).collect();
            for part in parts {
                total.divergence += part.divergence;
                total.loss += part.loss;
                total.original_loss += part.original_loss;
            }
        });
        Ok(())
    })?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let original = (random(3, &[CHUNK + 3, 3]), random(4, &[11, 3]));
        check(&[random(1, &[CHUNK + 3, 2]), random(2, &[11, 2])], |a| {
            divergence((&a[0], &a[1]), (&original.0, &original.1))
        });
    }

    #[test]
    fn a_comparison_is_what_its_words_say() {
        let (x, head) = (random(1, &[3, 4]), random(2, &[7, 4]));
        let (original, original_head) = (random(3, &[3, 5]), random(4, &[7, 5]));
        let targets = [6, 0, 3];
        let log_softmax = |hidden: &Tensor, head: &Tensor| -> Vec<Vec<f64>> {
            let rows: Vec<Vec<f64>> = hidden.matmul(&head.t().unwrap()).unwrap().to_vec2().unwrap();
            let log_sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
            rows.into_iter().map(|row| row.iter().map(|x| x - log_sum(&row)).collect()).collect()
        };
        let (p, q) = (log_softmax(&original, &original_head), log_softmax(&x, &head));
        let mut expected = Compared::default();
        for t in 0..3 {
            expected.divergence += (0..7).map(|v| p[t][v].exp() * (p[t][v] - q[t][v])).sum::<f64>();
            expected.loss -= q[t][targets[t] as usize];
            expected.original_loss -= p[t][targets[t] as usize];
        }
        let got = compare((&x, &head), (&original, &original_head), &targets).unwrap();
        assert!((got.divergence - expected.divergence).abs() < 1e-12);
        assert!((got.loss - expected.loss).abs() < 1e-12);
        assert!((got.original_loss - expected.original_loss).abs() < 1e-12);
        let mean: f64 = divergence((&x, &head), (&original, &original_head)).unwrap().to_scalar().unwrap();
        assert!((mean * 3.0 - expected.divergence).abs() < 1e-12);
        assert!(compare((&x, &head), (&original, &original_head), &[7, 0, 3]).is_err());
        assert!(compare((&x, &head), (&original, &original_head), &[0, 3]).is_err());
        assert!(divergence((&x, &head), (&original, &head)).is_err());
    }
}
