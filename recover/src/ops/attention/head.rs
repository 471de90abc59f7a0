//! One head of one sequence: blocks of queries against all keys that they see.

use std::ops::Range;

use super::super::product::{Cores, View, product};
use super::super::real::{Real, largest, sum, vectorised};

/// Queries whose scores are held at a time. Their keys end with the block, so a smaller block computes fewer scores that
/// the mask throws away, and a larger one makes better use of the products.
const BLOCK: usize = 64;

/// Keys and values of a sequence, `[T, key_dim]` and `[T, value_dim]`.
pub struct KeyValues<T> {
    pub keys: Vec<T>,
    pub values: Vec<T>,
    pub key_dim: usize,
    pub value_dim: usize,
}

/// The sums over query heads of the gradients of keys and values, in their shapes.
pub struct HeadGradients<T> {
    pub keys: Vec<T>,
    pub values: Vec<T>,
}

impl<T: Real> HeadGradients<T> {
    pub fn zeros(of: &KeyValues<T>) -> Self {
        Self { keys: vec![T::zero(); of.keys.len()], values: vec![T::zero(); of.values.len()] }
    }
}

impl<T: Real> KeyValues<T> {
    fn keys(&self, end: usize) -> View<'_, T> {
        View::new(&self.keys, self.key_dim).rows(0..end)
    }

    fn values(&self, end: usize) -> View<'_, T> {
        View::new(&self.values, self.value_dim).rows(0..end)
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let tokens = self.values.len() / self.value_dim;
        (0..tokens).step_by(BLOCK).map(move |start| start..tokens.min(start + BLOCK))
    }

    /// The weights of a block's queries over the keys up to its end: softmax of the scores, zero where a query does not
    /// see.
    fn weights(&self, queries: &[T], block: &Range<usize>, weights: &mut [T]) {
        let queries = View::new(queries, self.key_dim).rows(block.clone());
        product(queries, self.keys(block.end).t(), weights, block.end, false, Cores::One);
        vectorised(
            #[inline(always)]
            || {
                for (query, row) in block.clone().zip(weights.chunks_exact_mut(block.end)) {
                    let (seen, hidden) = row.split_at_mut(query + 1);
                    let largest = largest(seen);
                    seen.iter_mut().for_each(
                        #[inline(always)]
                        |score| *score = (*score - largest).exp(),
                    );
                    let inverse = T::one()
                        / sum(
                            seen.len(),
                            #[inline(always)]
                            |i| seen[i],
                        );
                    seen.iter_mut().for_each(
                        #[inline(always)]
                        |weight| *weight *= inverse,
                    );
                    hidden.fill(T::zero());
                }
            },
        );
    }
}

/// `[T, value_dim]` of queries `[T, key_dim]` that carry the scale of scores.
pub fn forward<T: Real>(queries: &[T], of: &KeyValues<T>) -> Vec<T> {
    let mut out = vec![T::zero(); of.values.len()];
    let mut scores = vec![T::zero(); BLOCK * of.values.len() / of.value_dim];
    for block in of.blocks() {
        let weights = &mut scores[..block.len() * block.end];
        of.weights(queries, &block, weights);
        let out = &mut out[block.start * of.value_dim..block.end * of.value_dim];
        product(View::new(weights, block.end), of.values(block.end), out, of.value_dim, false, Cores::One);
    }
    out
}

/// The gradient of the queries before they were multiplied by `scale`, from that of the output; adds those of keys and
/// values to `gradients`.
pub fn backward<T: Real>(
    queries: &[T],
    of: &KeyValues<T>,
    gradient: &[T],
    scale: T,
    gradients: &mut HeadGradients<T>,
) -> Vec<T> {
    let room = BLOCK * of.values.len() / of.value_dim;
    let (mut scores, mut by_scores) = (vec![T::zero(); room], vec![T::zero(); room]);
    let mut out = vec![T::zero(); queries.len()];
    for block in of.blocks() {
        let (keys, size) = (block.end, block.len() * block.end);
        let (weights, by_weights) = (&mut scores[..size], &mut by_scores[..size]);
        of.weights(queries, &block, weights);
        let gradient = View::new(gradient, of.value_dim).rows(block.clone());
        let transposed = View::new(weights, keys).t();
        product(transposed, gradient, &mut gradients.values[..keys * of.value_dim], of.value_dim, true, Cores::One);
        product(gradient, of.values(keys).t(), by_weights, keys, false, Cores::One);
        vectorised(
            #[inline(always)]
            || {
                for (weights, by_weights) in weights.chunks_exact(keys).zip(by_weights.chunks_exact_mut(keys)) {
                    // Softmax takes the weighted mean from every gradient.
                    let mean = sum(
                        keys,
                        #[inline(always)]
                        |i| weights[i] * by_weights[i],
                    );
                    for (weight, by_weight) in weights.iter().zip(by_weights) {
                        *by_weight = *weight * (*by_weight - mean);
                    }
                }
            },
        );
        let by_scores = View::new(by_weights, keys);
        let rows = block.start * of.key_dim..block.end * of.key_dim;
        product(by_scores, of.keys(keys), &mut out[rows], of.key_dim, false, Cores::One);
        let queries = View::new(queries, of.key_dim).rows(block);
        product(by_scores.t(), queries, &mut gradients.keys[..keys * of.key_dim], of.key_dim, true, Cores::One);
    }
    out.iter_mut().for_each(|x| *x *= scale);
    out
}
