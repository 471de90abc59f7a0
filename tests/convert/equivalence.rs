//! At full rank the converted layer is the original one, up to the rotations that were given up.

use latent_attention::convert::{ConvertOptions, RopeChoice, convert};
use latent_attention::weights::{DenseAttention, LatentAttention};
use proptest::prelude::*;

use crate::oracle::{dense, latent_layer, relative_error, tokens};
use crate::samples::{BASES, GQA, METHODS, MHA, Shape, calibration, dense_layer, fixed_cases, hidden_states};

/// Weights are rounded to f32 once, activations are f64: the error is a few units of f32.
const F32_ROUNDING: f64 = 2e-6;

fn error_against_partial_rope(layer: &DenseAttention, converted: &LatentAttention) -> f64 {
    let x = tokens(&hidden_states(7, layer.hidden(), 90), layer.hidden());
    let kept = |kv_head: usize, pair: usize| converted.frequencies.head(kv_head).contains(&(pair as u32));
    relative_error(&latent_layer(converted, &x), &dense(layer, &x, kept))
}

fn check_every_option(shape: Shape, rope_dim: usize, choices: &[RopeChoice]) {
    let layer = dense_layer(shape, 1);
    let calibration = calibration(&layer, 60, 2);
    for method in METHODS {
        for whiten in [false, true] {
            // Keys that are normalised cannot be shifted.
            for basis in BASES.into_iter().filter(|basis| !(shape.normed && basis.centre)) {
                for &rope in choices {
                    let options = ConvertOptions::new(rope_dim, shape.full_rank(rope_dim, method))
                        .with_rope(rope)
                        .with_factorization(method)
                        .with_whiten(whiten)
                        .with_basis(basis);
                    let converted = convert(&layer, &options, Some(&calibration)).unwrap();
                    converted.validate().unwrap();
                    let error = error_against_partial_rope(&layer, &converted);
                    assert!(error < F32_ROUNDING, "{error:e} with {options:?} on {shape:?}");
                }
            }
        }
    }
}

const EVERY_CHOICE: [RopeChoice; 5] = [
    RopeChoice::High,
    RopeChoice::Low,
    RopeChoice::Uniform { start: 0 },
    RopeChoice::Uniform { start: 1 },
    RopeChoice::TwoNorm,
];

#[test]
fn full_rank_equals_partial_rope_with_grouped_queries() {
    check_every_option(GQA, 4, &EVERY_CHOICE);
}

#[test]
fn full_rank_equals_partial_rope_without_groups() {
    check_every_option(MHA, 4, &EVERY_CHOICE);
}

#[test]
fn full_rank_equals_partial_rope_with_biases() {
    check_every_option(GQA.biased(), 4, &EVERY_CHOICE);
    check_every_option(MHA.biased(), 4, &EVERY_CHOICE);
}

/// Norms over whole heads, of which a part is rotated: the factors of keys are of both parts together.
#[test]
fn full_rank_equals_partial_rope_with_norms_over_heads() {
    check_every_option(GQA.normed(), 4, &EVERY_CHOICE);
    check_every_option(MHA.normed(), 4, &EVERY_CHOICE);
    check_every_option(GQA.normed(), 8, &[RopeChoice::High]);
    check_every_option(GQA.normed(), 0, &[RopeChoice::High]);
}

#[test]
fn full_rank_equals_attention_without_positions_at_rope_dim_0() {
    check_every_option(GQA.biased(), 0, &[RopeChoice::High, RopeChoice::Low, RopeChoice::TwoNorm]);
}

#[test]
fn full_rank_equals_the_original_attention_at_rope_dim_head_dim() {
    for shape in [GQA, MHA, GQA.biased(), MHA.biased()] {
        let every_pair = [RopeChoice::High, RopeChoice::Low, RopeChoice::Uniform { start: 0 }, RopeChoice::TwoNorm];
        check_every_option(shape, shape.head_dim, &every_pair);
        let layer = dense_layer(shape, 1);
        let options = ConvertOptions::new(shape.head_dim, shape.full_rank(shape.head_dim, METHODS[0]));
        let converted = convert(&layer, &options, Some(&calibration(&layer, 60, 2))).unwrap();
        let x = tokens(&hidden_states(9, shape.hidden, 91), shape.hidden);
        let error = relative_error(&latent_layer(&converted, &x), &dense(&layer, &x, |_, _| true));
        assert!(error < F32_ROUNDING, "{error:e} on {shape:?}");
    }
}

#[test]
fn whitening_is_exact_at_full_rank_with_fewer_tokens_than_hidden_dimensions() {
    let layer = dense_layer(GQA, 1);
    let calibration = calibration(&layer, 5, 2);
    for method in METHODS {
        let options = ConvertOptions::new(4, GQA.full_rank(4, method)).with_factorization(method).with_whiten(true);
        let converted = convert(&layer, &options, Some(&calibration)).unwrap();
        let error = error_against_partial_rope(&layer, &converted);
        assert!(error < F32_ROUNDING, "{error:e} with {method:?}");
    }
}

proptest! {
    #![proptest_config(fixed_cases(64))]

    #[test]
    fn full_rank_equals_partial_rope_on_any_shape(
        (kv_heads, group, half) in (1usize..4, 1usize..4, 1usize..9),
        hidden in 1usize..40,
        pairs in 0usize..9,
        (biased, whiten, split) in any::<(bool, bool, bool)>(),
        basis in 0usize..4,
        choice in 0usize..3,
        seed in any::<u64>(),
    ) {
        let shape = Shape { query_heads: kv_heads * group, kv_heads, head_dim: 2 * half, hidden, biased, normed: false };
        let rope_dim = 2 * pairs.min(half);
        let method = METHODS[usize::from(split)];
        let layer = dense_layer(shape, seed);
        let options = ConvertOptions::new(rope_dim, shape.full_rank(rope_dim, method))
            .with_rope([RopeChoice::High, RopeChoice::Low, RopeChoice::TwoNorm][choice])
            .with_factorization(method)
            .with_whiten(whiten)
            .with_basis(BASES[basis]);
        let converted = convert(&layer, &options, Some(&calibration(&layer, 30, seed))).unwrap();
        let error = error_against_partial_rope(&layer, &converted);
        prop_assert!(error < 1e-5, "{:e} with {:?} on {:?}", error, options, shape);
    }
}
