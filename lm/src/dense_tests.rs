use super::*;
use latent_attention::convert::{Basis, ConvertOptions, RopeChoice, convert};
use latent_attention::weights::{HeadNorms, Linear, Matrix};

use crate::latent::LatentProducts;
use crate::noise::noise;

const HIDDEN: usize = 12;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const DIM: usize = 6;

fn linear(rows: usize, cols: usize, seed: u32, bias: bool) -> Linear {
    let mut next = noise(seed);
    let weight = Matrix::from_fn(rows, cols, |_, _| next() * 0.7);
    Linear { weight, bias: bias.then(|| (0..rows).map(|_| next()).collect()) }
}

fn layer(bias: bool) -> DenseAttention {
    DenseAttention {
        query_heads: HEADS,
        kv_heads: GROUPS,
        head_dim: DIM,
        query: linear(HEADS * DIM, HIDDEN, 1, bias),
        key: linear(GROUPS * DIM, HIDDEN, 2, bias),
        value: linear(GROUPS * DIM, HIDDEN, 3, bias),
        output: linear(HIDDEN, HEADS * DIM, 4, false),
        head_norms: None,
    }
}

fn bf16(x: f64) -> f64 {
    // Round to nearest even on the upper half of the f32 bits.
    let bits = (x as f32).to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    f64::from(f32::from_bits(rounded))
}

fn project(linear: &Linear, x: &[f32]) -> Vec<f64> {
    let row = |r: usize| -> f64 {
        let bias = linear.bias.as_ref().map_or(0.0, |b| f64::from(b[r]));
        linear.weight.row(r).iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>() + bias
    };
    (0..linear.weight.rows()).map(row).collect()
}

fn rotate(head: &mut [f64], position: usize, theta: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-2.0 * i as f64 / head.len() as f64);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * angle.cos() - b * angle.sin();
        head[i + half] = b * angle.cos() + a * angle.sin();
    }
}

/// Attention written out, in f64, one query and one key at a time.
fn naive(layer: &DenseAttention, x: &[f32], theta: f64) -> Vec<f64> {
    let per_token = |linear: &Linear, rotated: bool, rounded: bool| -> Vec<Vec<f64>> {
        let token = |(position, row): (usize, &[f32])| {
            let mut y = project(linear, row);
            if rotated {
                y.chunks_exact_mut(DIM).for_each(|head| rotate(head, position, theta));
            }
            if rounded { y.into_iter().map(bf16).collect() } else { y }
        };
        x.chunks_exact(HIDDEN).enumerate().map(token).collect()
    };
    let (q, k, v) =
        (per_token(&layer.query, true, false), per_token(&layer.key, true, true), per_token(&layer.value, false, true));
    let mut out = Vec::new();
    for (t, q) in q.iter().enumerate() {
        let mut heads = vec![0.0f32; HEADS * DIM];
        for h in 0..HEADS {
            let group = h / (HEADS / GROUPS);
            let dot = |s: usize| -> f64 { (0..DIM).map(|i| q[h * DIM + i] * k[s][group * DIM + i]).sum() };
            let weights: Vec<f64> = (0..=t).map(|s| (dot(s) / (DIM as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..DIM {
                let sum: f64 = (0..=t).map(|s| weights[s] * v[s][group * DIM + i]).sum();
                heads[h * DIM + i] = (sum / total) as f32;
            }
        }
        out.extend(project(&layer.output, &heads));
    }
    out
}

fn input(tokens: usize) -> Vec<f32> {
    let mut next = noise(9);
    (0..tokens * HIDDEN).map(|_| next()).collect()
}

/// K and V are rounded to bf16 from f32 here and from f64 in the naive version, so single numbers may fall to the
/// other side: one step of bf16 is 2^-8 of a number.
const TOLERANCE: f64 = 8e-3;

#[test]
fn equals_attention_written_out() {
    for bias in [false, true] {
        let (layer, x) = (layer(bias), input(11));
        let tables = RopeTables::from_theta(100.0, DIM, 16);
        let mut steps = DenseSteps::new(std::slice::from_ref(&layer), &tables).unwrap();
        let got = steps.forward(0, &x, 0..11).unwrap();
        let expected = naive(&layer, &x, 100.0);
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut got.iter().zip(&expected).map(|(&g, e)| f64::from(g) - e));
        let relative = error / norm(&mut expected.iter().copied());
        assert!(relative < TOLERANCE / 4.0, "bias {bias}: relative error {relative}");
        for (i, (&g, e)) in got.iter().zip(&expected).enumerate() {
            assert!((f64::from(g) - e).abs() < TOLERANCE * e.abs().max(1.0), "bias {bias}, element {i}: {g} and {e}");
        }
    }
}

#[test]
fn prefill_equals_token_by_token_and_reset_forgets() {
    let x = input(9);
    let tables = RopeTables::from_theta(100.0, DIM, 16);
    let mut steps = DenseSteps::new(&[layer(true)], &tables).unwrap();
    let whole = steps.forward(0, &x, 0..9).unwrap();
    for cut in [1, 4, 8] {
        steps.reset();
        let mut parts = steps.forward(0, &x[..cut * HIDDEN], 0..cut).unwrap();
        for token in cut..9 {
            parts.extend(steps.forward(0, &x[token * HIDDEN..][..HIDDEN], token..token + 1).unwrap());
        }
        for (i, (a, b)) in whole.iter().zip(&parts).enumerate() {
            assert!((a - b).abs() < 1e-4, "cut at {cut}, element {i}: {a} and {b}");
        }
    }
}

#[test]
fn gaps_and_the_end_of_the_tables_are_errors() {
    let tables = RopeTables::from_theta(100.0, DIM, 4);
    let mut steps = DenseSteps::new(&[layer(false)], &tables).unwrap();
    assert!(steps.forward(0, &input(1), 1..2).is_err());
    assert!(steps.forward(0, &input(5), 0..5).is_err());
    assert!(steps.forward(1, &input(1), 0..1).is_err());
    let short = RopeTables::from_theta(100.0, DIM - 2, 4);
    assert!(DenseSteps::new(&[layer(false)], &short).is_err());
}

/// Without rotation a conversion at full rank is the original, however many dimensions it would rotate.
#[test]
fn norms_over_heads_are_the_same_before_and_after_a_conversion() {
    let gain = |seed| (0..DIM).scan(noise(seed), |next, _| Some(1.0 + 0.5 * next())).collect();
    let norms = HeadNorms { query: gain(5), key: gain(6), epsilon: 1e-6 };
    let dense = DenseAttention { head_norms: Some(norms), ..layer(false) };
    let tables = RopeTables::from_frequencies(&[0.0; DIM / 2], 8);
    let (x, keep): (_, Rounding) = (input(7), |_| {});
    let steps = |attention: &mut dyn AttentionStep| {
        let first = attention.forward(0, &x[..5 * HIDDEN], 0..5).unwrap();
        [first, attention.forward(0, &x[5 * HIDDEN..], 5..7).unwrap()].concat()
    };
    let mut original = DenseSteps::with_rounding(std::slice::from_ref(&dense), &tables, keep).unwrap();
    let expected = steps(&mut original);
    let plain = steps(&mut DenseSteps::with_rounding(&[layer(false)], &tables, keep).unwrap());
    assert!(expected.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 0.01), "the norms change what is attended to");
    for rope_dim in [0, 2, DIM] {
        let options = ConvertOptions::new(rope_dim, HIDDEN).with_rope(RopeChoice::High).with_basis(Basis::rotated(7));
        let converted = convert(&dense, &options, None).unwrap();
        let got = steps(&mut LatentProducts::new(&[converted], &tables, None).unwrap());
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-4, "{rope_dim} rotated: {got}, expected {expected}");
        }
    }
}
