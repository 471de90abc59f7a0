//! A latent layer's attention over one sequence: by its documentation, without a cache, and through the reference's.

use latent_attention::cache::{CacheFormat, LatentFormat, PageTable, RopeFormat, Sequences};
use latent_attention::load::{GateInput, ModelConfig, OutputGate};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::{RopeTables, rotate_head};
use latent_attention::weights::{LatentAttention, Linear, Matrix, RmsNorm};

use super::Tokens;

pub fn multiply(matrix: &Matrix, x: &[f64]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
    (0..matrix.rows()).map(|row| dot(matrix.row(row))).collect()
}

pub fn linear(linear: &Linear, x: &[f64]) -> Vec<f64> {
    plus(multiply(&linear.weight, x), linear.bias.as_deref())
}

fn plus(y: Vec<f64>, bias: Option<&[f32]>) -> Vec<f64> {
    match bias {
        None => y,
        Some(bias) => y.iter().zip(bias).map(|(y, &b)| y + f64::from(b)).collect(),
    }
}

pub fn norm(norm: &RmsNorm, x: &[f64]) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let factor = 1.0 / (mean_square + f64::from(norm.epsilon)).sqrt();
    x.iter().zip(&norm.gain).map(|(x, &gain)| x * factor * f64::from(gain)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What the query projections read.
fn query_inputs(layer: &LatentAttention, x: &[f64]) -> Vec<f64> {
    let Some(stage) = &layer.query_down else { return x.to_vec() };
    let down = linear(&stage.down, x);
    let mut inputs = norm(&stage.norm, &down);
    if stage.with_unnormed {
        inputs.extend(down);
    }
    inputs
}

/// The rotated and the unrotated query rows of one token.
fn queries(layer: &LatentAttention, config: &ModelConfig, x: &[f64], position: usize) -> (Vec<f64>, Vec<f64>) {
    let inputs = query_inputs(layer, x);
    let factor = config.query_scaling.map_or(1.0, |scaling| scaling.factor(position));
    let query = |map: &Linear| linear(map, &inputs).into_iter().map(|x| x * factor).collect();
    (query(&layer.query_rope), query(&layer.query_nope))
}

fn rotated(layer: &LatentAttention, tables: &RopeTables, part: &[f64], rope_head: usize, position: usize) -> Vec<f64> {
    let mut head: Vec<f32> = part.iter().map(|&x| x as f32).collect();
    rotate_head(&mut head, layer.frequencies.head(rope_head), layer.pairing, tables, position);
    head.into_iter().map(f64::from).collect()
}

/// Both parts of a query head behind their norm.
fn normed_query(layer: &LatentAttention, kv_head: usize, rope: &[f64], nope: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let Some(norms) = &layer.head_norms else { return (rope.to_vec(), nope.to_vec()) };
    let width = rope.len() + nope.len();
    let gain = norms.query[kv_head * width..][..width].to_vec();
    let mut head = norm(&RmsNorm { gain, epsilon: norms.epsilon }, &[rope, nope].concat());
    let nope = head.split_off(rope.len());
    (head, nope)
}

/// What normalises a key.
fn key_factor(layer: &LatentAttention, rope: &[f64], nope: &[f64]) -> f64 {
    layer.head_norms.as_ref().map_or(1.0, |norms| {
        let squares = rope.iter().chain(nope).map(|x| x * x).sum::<f64>();
        1.0 / (squares / (rope.len() + nope.len()) as f64 + f64::from(norms.epsilon)).sqrt()
    })
}

/// A layer's attention and the gates on its output.
pub struct Gated {
    pub attention: LatentAttention,
    pub gate: Option<OutputGate>,
}

impl Gated {
    /// The output projection of what the heads yield for the input `x`, which its gates come before.
    fn output(&self, mut heads: Vec<f64>, x: &[f64]) -> Vec<f64> {
        if let Some(gate) = &self.gate {
            let factors = match gate.input {
                GateInput::Hidden => linear(&gate.map, x),
                GateInput::Query => linear(&gate.map, &query_inputs(&self.attention, x)),
                other => panic!("{other:?}"),
            };
            // One for each head, or for each value.
            let width = heads.len() / factors.len();
            for (values, factor) in heads.chunks_exact_mut(width).zip(factors) {
                values.iter_mut().for_each(|value| *value /= 1.0 + (-factor).exp());
            }
        }
        linear(&self.attention.output, &heads)
    }
}

/// As the documentation of `LatentAttention` has it, in f64.
pub fn direct(gated: &Gated, config: &ModelConfig, tables: &RopeTables, x: &Tokens, positions: &[usize]) -> Tokens {
    let layer = &gated.attention;
    let g = &layer.geometry;
    let (r, n, v) = (g.rope_dim, g.nope_dim, g.value_dim);
    let latents: Tokens = x
        .iter()
        .map(|x| {
            let down = linear(&layer.down, x);
            let normed = layer.latent_norm.as_ref().map_or_else(|| down.clone(), |gain| norm(gain, &down));
            plus(normed, layer.latent_bias.as_deref())
        })
        .collect();
    let keys: Tokens = latents.iter().map(|c| multiply(&layer.up_key, c)).collect();
    let values: Tokens =
        latents.iter().map(|c| plus(multiply(&layer.up_value, c), layer.value_bias.as_deref())).collect();
    let raw_keys: Tokens = x.iter().map(|x| linear(&layer.key_rope, x)).collect();
    // Of normalised keys each KV head has a rotated part of its own.
    let factor = |s: usize, head: usize| key_factor(layer, &raw_keys[s][head * r..][..r], &keys[s][head * n..][..n]);
    let rope_keys: Tokens = (0..x.len())
        .map(|s| {
            let head = |head: usize| {
                let mut key = raw_keys[s][head * r..][..r].to_vec();
                if let Some(norms) = &layer.head_norms {
                    let (gain, factor) = (&norms.key[head * r..], factor(s, head));
                    key.iter_mut().zip(gain).for_each(|(x, &gain)| *x *= factor * f64::from(gain));
                }
                rotated(layer, tables, &key, head, positions[s])
            };
            (0..g.rope_heads).flat_map(head).collect()
        })
        .collect();
    let factors: Tokens = (0..x.len())
        .map(|s| (0..if g.key_norm { g.kv_heads } else { 0 }).map(|head| factor(s, head)).collect())
        .collect();
    let token = |t: usize| {
        let (q_rope, q_nope) = queries(layer, config, &x[t], positions[t]);
        let mut heads = vec![];
        for h in 0..g.query_heads {
            let (kv_head, rope_head) = (g.kv_head_of(h), g.rope_head_of(h));
            let (q_rope, q_nope) = normed_query(layer, kv_head, &q_rope[h * r..][..r], &q_nope[h * n..][..n]);
            let turned = rotated(layer, tables, &q_rope, rope_head, positions[t]);
            let score = |s: usize| {
                let factor = factors[s].get(kv_head).copied().unwrap_or(1.0);
                let nope = factor * dot(&q_nope, &keys[s][kv_head * n..][..n]);
                layer.scale * (nope + dot(&turned, &rope_keys[s][rope_head * r..][..r]))
            };
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            let value =
                |d: usize| weights.iter().zip(&values).map(|(w, value)| w / total * value[kv_head * v + d]).sum();
            heads.extend((0..v).map(value).collect::<Vec<f64>>());
        }
        gated.output(heads, &x[t])
    };
    (0..x.len()).map(token).collect()
}

/// By `ReferenceLayer`, through a cache of bf16.
pub fn cached(gated: &Gated, config: &ModelConfig, tables: &RopeTables, x: &Tokens, positions: &[usize]) -> Tokens {
    let layer = &gated.attention;
    let reference = ReferenceLayer::new(layer.clone()).unwrap();
    let format = CacheFormat::new(LatentFormat::Bf16, RopeFormat::Bf16);
    let mut cache = reference.new_cache(format, 16, 1).unwrap();
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32);
    let (q_rope, q_nope): (Tokens, Tokens) =
        x.iter().zip(positions).map(|(x, &position)| queries(layer, config, x, position)).unzip();
    let flat = |values: Tokens| values.into_iter().flat_map(narrow).collect::<Vec<f32>>();
    let project = |map: &Linear| flat(x.iter().map(|x| linear(map, x)).collect());
    let tokens = x.len();
    let output = reference
        .step(
            &ReferenceInputs {
                q_rope: &flat(q_rope),
                q_nope: &flat(q_nope),
                k_rope: &project(&layer.key_rope),
                c_kv: &project(&layer.down),
                positions: &positions.iter().map(|&position| position as i32).collect::<Vec<_>>(),
                slots: &(0..tokens as i64).collect::<Vec<_>>(),
            },
            &Sequences {
                query_starts: &[0, tokens as i32],
                seq_lens: &[tokens as i32],
                pages: PageTable::Dense { table: &[0], max_pages: 1 },
            },
            tables,
            &mut cache,
        )
        .unwrap();
    let width = layer.geometry.query_heads * layer.geometry.value_dim;
    let heads = output.out.chunks_exact(width).map(|token| token.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    heads.zip(x).map(|(heads, x)| gated.output(heads, x)).collect()
}
