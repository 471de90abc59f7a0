//! Causal attention written out in f64: once from the dense weights, once from the latent layer's documentation.

use latent_attention::rope::theta_frequencies;
use latent_attention::weights::{DenseAttention, HeadNorms, LatentAttention, Linear, Matrix, RmsNorm};

pub const THETA: f32 = 1000.0;

/// One vector per token.
pub type Tokens = Vec<Vec<f64>>;

/// Wraps `[tokens, width]`.
pub fn tokens(values: &[f32], width: usize) -> Tokens {
    values.chunks_exact(width).map(|token| token.iter().map(|&x| f64::from(x)).collect()).collect()
}

pub fn multiply(matrix: &Matrix, x: &[f64]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
    (0..matrix.rows()).map(|row| dot(matrix.row(row))).collect()
}

pub fn linear(linear: &Linear, x: &[f64]) -> Vec<f64> {
    let y = multiply(&linear.weight, x);
    plus(y, linear.bias.as_deref())
}

fn plus(y: Vec<f64>, bias: Option<&[f32]>) -> Vec<f64> {
    match bias {
        None => y,
        Some(bias) => y.iter().zip(bias).map(|(y, &b)| y + f64::from(b)).collect(),
    }
}

fn norm(norm: &RmsNorm, x: &[f64]) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let factor = 1.0 / (mean_square + f64::from(norm.epsilon)).sqrt();
    x.iter().zip(&norm.gain).map(|(x, &gain)| x * factor * f64::from(gain)).collect()
}

/// A head behind its norm, of the gain's dimensions, or as it is.
fn head_norm(norms: Option<&HeadNorms>, gain: impl Fn(&HeadNorms) -> &[f32], head: &[f64]) -> Vec<f64> {
    norms.map_or_else(|| head.to_vec(), |n| norm(&RmsNorm { gain: gain(n).to_vec(), epsilon: n.epsilon }, head))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Turns the pair `(a, b)` of `head` by frequency `frequency`.
fn turn(head: &mut [f64], (a, b): (usize, usize), frequency: f32, position: usize) {
    let (sin, cos) = (position as f64 * f64::from(frequency)).sin_cos();
    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
}

/// For one query head: softmax over the scores of tokens `0..scores.len()`, then the weighted sum of `values`.
fn attend(scores: &[f64], values: &[&[f64]]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = vec![0.0; values[0].len()];
    for (weight, value) in weights.iter().zip(values) {
        sum.iter_mut().zip(*value).for_each(|(sum, v)| *sum += weight / total * v);
    }
    sum
}

/// The dense layer; only the pairs for which `rotated(kv head, pair)` holds are turned.
pub fn dense(layer: &DenseAttention, x: &Tokens, rotated: impl Fn(usize, usize) -> bool) -> Tokens {
    let d = layer.head_dim;
    let group = layer.query_heads / layer.kv_heads;
    let frequencies = theta_frequencies(THETA, d);
    let head = |all: &[f64], head: usize, kv_head: usize, position: usize, gain: fn(&HeadNorms) -> &[f32]| {
        let mut head = head_norm(layer.head_norms.as_ref(), gain, &all[head * d..][..d]);
        for pair in (0..d / 2).filter(|&pair| rotated(kv_head, pair)) {
            turn(&mut head, (pair, pair + d / 2), frequencies[pair], position);
        }
        head
    };
    let keys: Tokens = x.iter().map(|x| linear(&layer.key, x)).collect();
    let values: Tokens = x.iter().map(|x| linear(&layer.value, x)).collect();
    let token = |t: usize| {
        let queries = linear(&layer.query, &x[t]);
        let mut heads = vec![];
        for h in 0..layer.query_heads {
            let g = h / group;
            let query = head(&queries, h, g, t, |norms| &norms.query);
            let key = |s: usize| head(&keys[s], g, g, s, |norms| &norms.key);
            let score = |s: usize| dot(&query, &key(s)) / (d as f64).sqrt();
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let values: Vec<&[f64]> = (0..=t).map(|s| &values[s][g * d..][..d]).collect();
            heads.extend(attend(&scores, &values));
        }
        linear(&layer.output, &heads)
    };
    (0..x.len()).map(token).collect()
}

/// What the layer caches of a token besides the rotated keys.
pub fn latent(layer: &LatentAttention, x: &[f64]) -> Vec<f64> {
    let mut c = linear(&layer.down, x);
    if let Some(latent_norm) = &layer.latent_norm {
        c = norm(latent_norm, &c);
    }
    plus(c, layer.latent_bias.as_deref())
}

/// The latent layer on its own latents.
pub fn latent_layer(layer: &LatentAttention, x: &Tokens) -> Tokens {
    latent_layer_on(layer, x, &x.iter().map(|x| latent(layer, x)).collect())
}

/// The latent layer on cached latents `c`.
pub fn latent_layer_on(layer: &LatentAttention, x: &Tokens, c: &Tokens) -> Tokens {
    let geometry = &layer.geometry;
    let (r, n, v) = (geometry.rope_dim, geometry.nope_dim, geometry.value_dim);
    let highest = layer.frequencies.as_slice().iter().max().map_or(0, |&highest| highest as usize);
    // Converted heads keep the width of their values, and with it the original's frequencies.
    let head_dim = v.max(2 * (highest + 1));
    let frequencies = theta_frequencies(THETA, head_dim);
    let rope = |all: &[f64], head: usize, rope_head: usize, position: usize| {
        let mut head = all[head * r..][..r].to_vec();
        for (j, &frequency) in layer.frequencies.head(rope_head).iter().enumerate() {
            turn(&mut head, layer.pairing.dims(j, r), frequencies[frequency as usize], position);
        }
        head
    };
    let k_rope: Tokens = x.iter().map(|x| linear(&layer.key_rope, x)).collect();
    let k_nope: Tokens = c.iter().map(|c| multiply(&layer.up_key, c)).collect();
    let values: Tokens = c.iter().map(|c| plus(multiply(&layer.up_value, c), layer.value_bias.as_deref())).collect();
    let token = |t: usize| {
        let inputs = match &layer.query_down {
            None => x[t].clone(),
            Some(stage) => norm(&stage.norm, &linear(&stage.down, &x[t])),
        };
        let (q_rope, q_nope) = (linear(&layer.query_rope, &inputs), linear(&layer.query_nope, &inputs));
        let mut heads = vec![];
        for h in 0..geometry.query_heads {
            let (g, rope_head) = (geometry.kv_head_of(h), geometry.rope_head_of(h));
            let (mut q_rope, mut q_nope) = (q_rope[h * r..][..r].to_vec(), q_nope[h * n..][..n].to_vec());
            if layer.head_norms.is_some() {
                let query = [q_rope, q_nope].concat();
                let query = head_norm(layer.head_norms.as_ref(), |norms| &norms.query[g * (r + n)..][..r + n], &query);
                (q_rope, q_nope) = (query[..r].to_vec(), query[r..].to_vec());
            }
            let turned = rope(&q_rope, 0, rope_head, t);
            let score = |s: usize| {
                let (mut k_rope, k_nope) = (k_rope[s][rope_head * r..][..r].to_vec(), &k_nope[s][g * n..][..n]);
                let mut factor = 1.0;
                if let Some(norms) = &layer.head_norms {
                    let squares = k_rope.iter().chain(k_nope).map(|x| x * x).sum::<f64>();
                    factor = 1.0 / (squares / (r + n) as f64 + f64::from(norms.epsilon)).sqrt();
                    k_rope.iter_mut().zip(&norms.key[g * r..]).for_each(|(x, &gain)| *x *= factor * f64::from(gain));
                }
                // One head by itself, with the frequencies of its own.
                layer.scale * (factor * dot(&q_nope, k_nope) + dot(&turned, &rope(&k_rope, 0, rope_head, s)))
            };
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let values: Vec<&[f64]> = (0..=t).map(|s| &values[s][g * v..][..v]).collect();
            heads.extend(attend(&scores, &values));
        }
        linear(&layer.output, &heads)
    };
    (0..x.len()).map(token).collect()
}

/// `||got - expected|| / ||expected||` over all tokens.
pub fn relative_error(got: &Tokens, expected: &Tokens) -> f64 {
    assert_eq!(got.len(), expected.len());
    let pairs = || got.iter().flatten().zip(expected.iter().flatten());
    let error: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    (error / pairs().map(|(_, b)| b * b).sum::<f64>()).sqrt()
}
