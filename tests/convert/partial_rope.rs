//! Which pairs keep their rotation, and where their rows go.

use latent_attention::Error;
use latent_attention::convert::{Basis, Calibration, ConvertOptions, RopeChoice, convert};
use latent_attention::rope::{Pairing, PartialRope};
use latent_attention::weights::{LatentAttention, Linear, Matrix};

use crate::oracle::{linear, tokens};
use crate::samples::{GQA, Shape, calibration, dense_layer, hidden_states, plain};

const HEAD_16: Shape = Shape { query_heads: 4, kv_heads: 2, head_dim: 16, hidden: 32, biased: true, normed: false };

/// Converts a layer whose query and key rows hold their own index, so that the result tells where each went.
fn convert_labelled(rope: RopeChoice, rope_dim: usize) -> LatentAttention {
    let label = |rows: usize| Linear {
        weight: Matrix::from_fn(rows, HEAD_16.hidden, |row, _| row as f32),
        bias: Some((0..rows).map(|row| row as f32 + 0.5).collect()),
    };
    let mut layer = dense_layer(HEAD_16, 1);
    layer.query = label(64);
    layer.key = label(32);
    let calibration = calibration(&dense_layer(HEAD_16, 1), 20, 2);
    convert(&layer, &plain(rope_dim, 8).with_rope(rope), Some(&calibration)).unwrap()
}

/// The labels of the rows of head `head`; weight and bias must agree.
fn labels(linear: &Linear, head: usize, dims: usize) -> Vec<usize> {
    let label = |row: usize| {
        let label = linear.weight.row(row)[0];
        assert_eq!(linear.bias.as_ref().unwrap()[row], label + 0.5);
        label as usize
    };
    (head * dims..(head + 1) * dims).map(label).collect()
}

/// Checks all heads against the order of the dimensions in one head.
fn check_rows(converted: &LatentAttention, rope: &[usize], nope: &[usize], frequencies: &[u32]) {
    let shifted = |dims: &[usize], head: usize| -> Vec<usize> { dims.iter().map(|dim| head * 16 + dim).collect() };
    for head in 0..4 {
        assert_eq!(labels(&converted.query_rope, head, rope.len()), shifted(rope, head));
        assert_eq!(labels(&converted.query_nope, head, nope.len()), shifted(nope, head));
    }
    for head in 0..2 {
        assert_eq!(labels(&converted.key_rope, head, rope.len()), shifted(rope, head));
        assert_eq!(converted.frequencies.head(head), frequencies);
    }
    assert_eq!(converted.pairing, Pairing::Half);
    assert_eq!(converted.scale, 0.25);
}

#[test]
fn high_keeps_the_first_pairs() {
    let nope = [2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15];
    check_rows(&convert_labelled(RopeChoice::High, 4), &[0, 1, 8, 9], &nope, &[0, 1]);
}

#[test]
fn low_keeps_the_last_pairs() {
    let nope = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13];
    check_rows(&convert_labelled(RopeChoice::Low, 4), &[6, 7, 14, 15], &nope, &[6, 7]);
}

#[test]
fn uniform_keeps_every_nth_pair_from_start() {
    let nope = [0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15];
    check_rows(&convert_labelled(RopeChoice::Uniform { start: 1 }, 4), &[1, 5, 9, 13], &nope, &[1, 5]);
    let nope = [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15];
    check_rows(&convert_labelled(RopeChoice::Uniform { start: 0 }, 4), &[0, 4, 8, 12], &nope, &[0, 4]);
}

#[test]
fn every_pair_in_order_when_all_are_kept_and_none_when_none_is() {
    let all: Vec<usize> = (0..16).collect();
    for rope in [RopeChoice::High, RopeChoice::Low, RopeChoice::Uniform { start: 0 }, RopeChoice::TwoNorm] {
        check_rows(&convert_labelled(rope, 16), &all, &[], &[0, 1, 2, 3, 4, 5, 6, 7]);
    }
    for rope in [RopeChoice::High, RopeChoice::Low, RopeChoice::TwoNorm] {
        check_rows(&convert_labelled(rope, 0), &[], &all, &[]);
    }
}

#[test]
fn select_keeps_the_largest_scores_in_ascending_order_and_the_smaller_pair_on_a_tie() {
    let scores = [0.1, 5.0, 0.2, 7.0, 1.0, 1.0, 1.0, 0.5];
    let kept = PartialRope::TwoNorm { scores: &scores }.select(2, 8, 4).unwrap();
    assert_eq!((kept.head(0), kept.head(1)), (&[1, 3][..], &[0, 1][..]));
}

#[test]
fn select_says_what_is_wrong() {
    let text = |rule: PartialRope<'_>, rope_dim| rule.select(2, 16, rope_dim).unwrap_err().to_string();
    assert_eq!(text(PartialRope::High, 3), "geometry: rope_dim must be even and at most head_dim = 16, got 3");
    assert_eq!(text(PartialRope::Low, 18), "geometry: rope_dim must be even and at most head_dim = 16, got 18");
    let uniform = |start, rope_dim| text(PartialRope::Uniform { start }, rope_dim);
    assert!(uniform(0, 6).contains("3 kept pairs must divide 8 pairs"), "{}", uniform(0, 6));
    assert!(uniform(4, 4).contains("uniform partial RoPE from pair 4"), "{}", uniform(4, 4));
    assert!(uniform(0, 0).contains("0 kept pairs"), "{}", uniform(0, 0));
    let few = text(PartialRope::TwoNorm { scores: &[1.0; 15] }, 4);
    assert_eq!(few, "2-norm scores: expected [kv heads 2, pairs 8] = 16 elements, got 15 elements");
    let scores: Vec<f32> = (0..16).map(|i| if i == 9 { f32::NAN } else { 1.0 }).collect();
    assert!(matches!(PartialRope::TwoNorm { scores: &scores }.select(2, 16, 4), Err(Error::Config { .. })));
}

#[test]
fn two_norm_scores_equal_their_definition_over_several_observations() {
    let layer = dense_layer(HEAD_16, 5);
    let states = hidden_states(30, 32, 6);
    let mut calibration = Calibration::new(&layer).unwrap();
    for part in [&states[..7 * 32], &[], &states[7 * 32..]] {
        calibration.observe(&layer, part).unwrap();
    }
    assert_eq!(calibration.tokens(), 30);

    let x = tokens(&states, 32);
    let mean_norm = |projection: &Linear, head: usize, pair: usize| {
        let norm = |x: &Vec<f64>| {
            let y = linear(projection, x);
            (y[head * 16 + pair].powi(2) + y[head * 16 + pair + 8].powi(2)).sqrt()
        };
        x.iter().map(norm).sum::<f64>() / 30.0
    };
    let scores = calibration.two_norm_scores();
    assert_eq!(scores.len(), 16);
    for (i, &score) in scores.iter().enumerate() {
        let (g, pair) = (i / 8, i % 8);
        let key = mean_norm(&layer.key, g, pair);
        let expected: f64 = (2 * g..2 * g + 2).map(|h| mean_norm(&layer.query, h, pair) * key).sum();
        approx::assert_relative_eq!(f64::from(score), expected, max_relative = 1e-6);
    }
    for (i, mean) in calibration.mean().iter().enumerate() {
        approx::assert_relative_eq!(*mean, x.iter().map(|x| x[i]).sum::<f64>() / 30.0, max_relative = 1e-12);
    }
}

#[test]
fn two_norm_finds_planted_pairs_of_each_kv_head() {
    let mut layer = dense_layer(HEAD_16, 7);
    let planted = [[2u32, 5], [0, 7]];
    let louder = |linear: &Linear, dim_is_planted: &dyn Fn(usize) -> bool| Linear {
        weight: Matrix::from_fn(linear.weight.rows(), 32, |row, col| {
            linear.weight.row(row)[col] * if dim_is_planted(row) { 10.0 } else { 1.0 }
        }),
        bias: linear.bias.clone(),
    };
    let is_planted = |kv_head: usize, row: usize| planted[kv_head].contains(&((row % 8) as u32));
    layer.key = louder(&layer.key, &|row| is_planted(row / 16, row));
    layer.query = louder(&layer.query, &|row| is_planted(row / 32, row));
    let options = ConvertOptions::new(4, 8).with_basis(Basis::plain());
    let converted = convert(&layer, &options, Some(&calibration(&layer, 40, 8))).unwrap();
    assert_eq!(converted.frequencies.as_slice(), planted.concat());
}

#[test]
fn value_bias_is_kept_and_the_unrotated_key_bias_dropped() {
    let layer = dense_layer(GQA.biased(), 1);
    let converted = convert(&layer, &plain(4, 10), None).unwrap();
    assert_eq!(converted.value_bias, layer.value.bias);
    assert_eq!(converted.output, layer.output);
    assert_eq!((converted.down.bias, converted.latent_bias), (None, None));
}
