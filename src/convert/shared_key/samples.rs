//! Step 1: what an error of a score costs, and the pairs of queries and keys at which it is looked at.
//!
//! A score's error `e_nm` moves the output of query n by `p_nm e_nm W_O (v_m - o_n)`, p being the attention and o the
//! head's output. Its square, with one factor p instead of two, is what errors are weighted with here:
//! `omega_nm = p_nm |W_O (v_m - o_n)|^2`. (Two factors would be the output's error for errors that are independent of each
//! other; those of a low rank are not, and go with the key rather than with the attention that a query pays to it.)

use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::original::{KeysAndValues, Original, Sequence};
use super::{Sampling, Step};
use crate::convert::linalg::product;

/// No query is taken from the first tokens, which see too little to tell anything.
const FIRST_POSITION: usize = 8;

/// Queries of one sequence, and for each head and query some keys, drawn with probabilities in proportion to omega.
pub(super) struct Samples {
    /// Positions of the queries, ascending.
    pub positions: Vec<usize>,
    /// `[H*d, queries]`, not rotated.
    pub queries: Mat<f64>,
    /// Sum of omega over the keys of a query, `[H, queries]`, row-major: the weight of its sampled keys together.
    pub weights: Vec<f64>,
    /// Tokens, `[H, queries, keys]`, row-major.
    pub keys: Vec<u32>,
    keys_per_query: usize,
}

impl Samples {
    /// Draws from one sequence.
    pub fn draw(
        original: &Original,
        sequence: &Sequence,
        read: &KeysAndValues,
        index: usize,
        sampling: &Sampling,
    ) -> Self {
        let (mut rng, tokens) = (stream(sampling.seed, index, 0), sequence.tokens());
        let positions = draw_positions(&mut rng, tokens, sampling.of_sequence(sampling.queries, tokens));
        let queries = original.queries(sequence, &positions);
        let rotated = original.rotated(&queries, &positions);
        let (mut weights, mut keys) = (Vec::new(), Vec::new());
        for head in 0..original.query_heads {
            let attention = original.attention(read, &rotated, &positions, head);
            let costs = match sampling.without {
                Some(Step::Costs) => attention,
                _ => costs(original, read, attention, head),
            };
            for (query, position) in positions.iter().enumerate() {
                let (seen, column) = (position + 1, costs.col(query));
                let total: f64 = (0..seen).map(|token| column[token]).sum();
                weights.push(total);
                draw_keys(&mut rng, |token| column[token], seen, total, sampling.keys, &mut keys);
            }
        }
        Self { positions, queries, weights, keys, keys_per_query: sampling.keys }
    }

    /// The weight of one query's sampled keys together, and the keys.
    pub fn of(&self, head: usize, query: usize) -> (f64, &[u32]) {
        let index = head * self.positions.len() + query;
        (self.weights[index], &self.keys[index * self.keys_per_query..][..self.keys_per_query])
    }
}

/// `omega` of all keys (rows) for one head's queries (columns), of their attention.
fn costs(original: &Original, read: &KeysAndValues, attention: Mat<f64>, head: usize) -> Mat<f64> {
    let value = original.head_rows(&read.value, original.kv_head_of(head));
    let value = product(original.output_roots[head].as_ref(), value);
    let output = product(value.as_ref(), attention.as_ref());
    let products = product(value.transpose(), output.as_ref());
    let square = |matrix: &Mat<f64>, col: usize| matrix.col(col).iter().map(|x| x * x).sum::<f64>();
    let value_squares: Vec<f64> = (0..value.ncols()).map(|token| square(&value, token)).collect();
    let output_squares: Vec<f64> = (0..output.ncols()).map(|query| square(&output, query)).collect();
    Mat::from_fn(attention.nrows(), attention.ncols(), |token, query| {
        let distance = value_squares[token] + output_squares[query] - 2.0 * products[(token, query)];
        attention[(token, query)] * distance.max(0.0)
    })
}

/// A random stream of its own for each purpose and sequence, so that neither threads nor the number of draws elsewhere
/// change it.
pub(super) fn stream(seed: u64, sequence: usize, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(2 * sequence as u64 + purpose);
    rng
}

/// Up to `count` different positions, ascending.
pub(super) fn draw_positions(rng: &mut ChaCha8Rng, tokens: usize, count: usize) -> Vec<usize> {
    let first = FIRST_POSITION.min(tokens.saturating_sub(1));
    let mut left: Vec<usize> = (first..tokens).collect();
    let count = count.min(left.len());
    for i in 0..count {
        let other = rng.random_range(i..left.len());
        left.swap(i, other);
    }
    left.truncate(count);
    left.sort_unstable();
    left
}

/// `count` tokens, one from each of as many equal parts of the distribution, which varies less than independent draws.
fn draw_keys(
    rng: &mut ChaCha8Rng,
    cost: impl Fn(usize) -> f64,
    seen: usize,
    total: f64,
    count: usize,
    keys: &mut Vec<u32>,
) {
    let (mut token, mut passed) = (0, cost(0));
    for part in 0..count {
        let goal = (part as f64 + rng.random::<f64>()) / count as f64 * total;
        while passed < goal && token + 1 < seen {
            token += 1;
            passed += cost(token);
        }
        keys.push(token as u32);
    }
}
