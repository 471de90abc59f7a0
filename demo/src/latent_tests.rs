use super::*;
use latent_attention::convert::{Basis, ConvertOptions, RopeChoice, convert};
use latent_attention::device::Device;
use latent_attention::weights::{DenseAttention, Linear, Matrix};

use latent_attention_lm::dense::DenseSteps;

const HIDDEN: usize = 48;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const DIM: usize = 8;
/// More than one page, and not a whole number of them.
const TOKENS: usize = PAGE_SIZE + 7;

fn wave(rows: usize, cols: usize, seed: f32) -> Matrix {
    Matrix::from_fn(rows, cols, |r, c| ((r * cols + c) as f32 * 1.7 + seed).sin() * ((r + c) as f32 + seed).cos() * 0.3)
}

fn dense() -> DenseAttention {
    let bias = |linear: Linear, seed: f32| {
        let rows = linear.weight.rows();
        Linear { bias: Some((0..rows).map(|r| (r as f32 + seed).sin() * 0.2).collect()), ..linear }
    };
    DenseAttention {
        query_heads: HEADS,
        kv_heads: GROUPS,
        head_dim: DIM,
        query: bias(Linear::new(wave(HEADS * DIM, HIDDEN, 0.1)), 1.0),
        key: bias(Linear::new(wave(GROUPS * DIM, HIDDEN, 0.2)), 2.0),
        value: bias(Linear::new(wave(GROUPS * DIM, HIDDEN, 0.3)), 3.0),
        output: Linear::new(wave(HIDDEN, HEADS * DIM, 0.4)),
        head_norms: None,
    }
}

fn converted(rope_dim: usize, latent_rank: usize) -> LatentAttention {
    let options = ConvertOptions::new(rope_dim, latent_rank).with_rope(RopeChoice::High).with_basis(Basis::rotated(0));
    convert(&dense(), &options, None).unwrap()
}

fn input() -> Vec<f32> {
    (0..TOKENS * HIDDEN).map(|i| (i as f32 * 0.77).sin() + (i as f32 * 0.013).cos()).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn full_rank_and_full_rope_equal_the_original() {
    let (layer, x) = (dense(), input());
    let tables = RopeTables::from_theta(100.0, DIM, TOKENS);
    let expected = DenseSteps::new(&[layer], &tables).unwrap().forward(0, &x, 0..TOKENS).unwrap();
    let layers = [converted(DIM, GROUPS * DIM)];
    let mut steps = LatentSteps::new(&layers, &tables, CacheFormat::BF16, TOKENS, &Engine::Reference).unwrap();
    let got = steps.forward(0, &x, 0..TOKENS).unwrap();
    let size = expected.iter().fold(0.0f32, |size, v| size.max(v.abs()));
    // Both caches round to bf16, of different numbers.
    let difference = largest_difference(&got, &expected);
    assert!(difference < 0.01 * size, "{difference} of {size}");
    assert_eq!(steps.saturated(), 0);
}

#[test]
fn prefill_equals_token_by_token_in_every_format() {
    let x = input();
    let tables = RopeTables::from_theta(100.0, DIM, TOKENS);
    let layers = [converted(4, 12)];
    for format in [CacheFormat::BF16, CacheFormat::INT4] {
        let mut steps = LatentSteps::new(&layers, &tables, format, TOKENS, &Engine::Reference).unwrap();
        let whole = steps.forward(0, &x, 0..TOKENS).unwrap();
        steps.reset();
        let mut parts = steps.forward(0, &x[..5 * HIDDEN], 0..5).unwrap();
        for token in 5..TOKENS {
            parts.extend(steps.forward(0, &x[token * HIDDEN..][..HIDDEN], token..token + 1).unwrap());
        }
        let size = whole.iter().fold(0.0f32, |size, v| size.max(v.abs()));
        // For a single token the output projection is rounded to 8 bits, and candle sums the others in another order, so that a
        // code may fall to the other side.
        let difference = largest_difference(&whole, &parts);
        assert!(difference < 0.03 * size, "{format:?}: {difference} of {size}");
    }
}

#[test]
fn gaps_and_full_caches_are_errors() {
    let tables = RopeTables::from_theta(100.0, DIM, 4 * TOKENS);
    let layers = [converted(4, 12)];
    let mut steps = LatentSteps::new(&layers, &tables, CacheFormat::INT4, PAGE_SIZE, &Engine::Reference).unwrap();
    let x = input();
    assert!(steps.forward(0, &x[..HIDDEN], 1..2).is_err());
    assert!(steps.forward(0, &x, 0..TOKENS).is_err());
    assert!(steps.forward(1, &x[..HIDDEN], 0..1).is_err());
    assert!(steps.forward(0, &x[..HIDDEN], 0..1).is_ok());
}

#[test]
fn a_device_can_take_the_references_place() {
    let (layers, x) = ([converted(4, 12), converted(4, 12)], input());
    let tables = RopeTables::from_theta(100.0, DIM, TOKENS);
    let run = |engine: &Engine| {
        let mut steps = LatentSteps::new(&layers, &tables, CacheFormat::BF16, TOKENS, engine).unwrap();
        let mut out = steps.forward(1, &x[..40 * HIDDEN], 0..40).unwrap();
        out.extend(steps.forward(1, &x[40 * HIDDEN..], 40..TOKENS).unwrap());
        (out, steps.difference())
    };
    let (expected, none) = run(&Engine::Reference);
    assert_eq!(none, None);
    let size = expected.iter().fold(0.0f32, |size, v| size.max(v.abs()));
    let assert_close = |device: Device| {
        let (instead, alone) = run(&Engine::Device(device));
        let difference = largest_difference(&instead, &expected);
        assert!(difference > 0.0 && difference < 0.02 * size, "{difference} of {size}");
        assert_eq!(alone, None);
    };
    assert_close(Device::cpu().unwrap());
    #[cfg(feature = "simulator")]
    {
        if latent_attention::image::images().is_empty() {
            return; // Built without nvcc.
        }
        assert_close(Device::simulated());
        let (beside, difference) = run(&Engine::Sampled(Device::simulated()));
        // The sample is only looked at.
        assert_eq!(beside, expected);
        assert!(difference.is_some_and(|difference| difference > 0.0 && difference < 0.02), "{difference:?}");
    }
}
