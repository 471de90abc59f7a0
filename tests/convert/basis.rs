//! Changing the latent's coordinates changes what is cached, and nothing else.

use latent_attention::Geometry;
use latent_attention::convert::{Basis, Calibration, ConvertOptions, centre_latent, convert, rotate_latent};
use latent_attention::rope::{FrequencyIndex, Pairing};
use latent_attention::weights::{LatentAttention, Linear, Matrix, QueryDown, RmsNorm};

use crate::oracle::{Tokens, latent, latent_layer, latent_layer_on, relative_error, tokens};
use crate::samples::{
    BASES, GQA, METHODS, MHA, Shape, calibration, dense_layer, hidden_states, matrix, plain, rng, vector,
};

const SAME: f64 = 1e-5;

fn mean_latent(layer: &LatentAttention, x: &Tokens) -> Vec<f64> {
    let mut mean = vec![0.0; layer.geometry.latent_rank];
    for x in x {
        mean.iter_mut().zip(latent(layer, x)).for_each(|(mean, c)| *mean += c);
    }
    mean.iter().map(|sum| sum / x.len() as f64).collect()
}

/// A layer in DeepSeek's layout with everything the format allows: query rank, latent norm, all biases.
fn deepseek_layer(gain: Option<Vec<f32>>, latent_bias: bool) -> LatentAttention {
    let (hidden, query_rank, rank) = (20, 9, 12);
    let geometry = Geometry::deepseek(3, rank, 4, 6, 5).unwrap();
    let rng = &mut rng(21);
    let rms_norm = |gain| RmsNorm { gain, epsilon: 1e-5 };
    LatentAttention {
        geometry,
        query_down: Some(QueryDown {
            down: Linear::new(matrix(rng, query_rank, hidden)),
            norm: rms_norm(vector(rng, query_rank, 2.0)),
            with_unnormed: false,
        }),
        query_rope: Linear::new(matrix(rng, 3 * 4, query_rank)),
        query_nope: Linear { weight: matrix(rng, 3 * 6, query_rank), bias: Some(vector(rng, 18, 1.0)) },
        key_rope: Linear { weight: matrix(rng, 4, hidden), bias: Some(vector(rng, 4, 1.0)) },
        down: Linear { weight: matrix(rng, rank, hidden), bias: Some(vector(rng, rank, 1.0)) },
        latent_norm: gain.map(rms_norm),
        latent_bias: latent_bias.then(|| vector(rng, rank, 1.0)),
        up_key: matrix(rng, 3 * 6, rank),
        up_value: matrix(rng, 3 * 5, rank),
        value_bias: None,
        output: Linear::new(matrix(rng, hidden, 3 * 5)),
        frequencies: FrequencyIndex::all(1, 4),
        pairing: Pairing::Interleaved,
        scale: 0.3,
        head_norms: None,
    }
}

fn every_deepseek_layer() -> Vec<LatentAttention> {
    let ones = vec![1.0; 12];
    let uneven = vector(&mut rng(22), 12, 3.0);
    let mut some_zero = uneven.clone();
    (some_zero[2], some_zero[7]) = (0.0, -0.0);
    let gains = [None, Some(ones), Some(uneven), Some(some_zero)];
    gains.iter().flat_map(|gain| [false, true].map(|bias| deepseek_layer(gain.clone(), bias))).collect()
}

fn relative_change(changed: &LatentAttention, original: &LatentAttention) -> f64 {
    let x = tokens(&hidden_states(8, original.hidden(), 30), original.hidden());
    relative_error(&latent_layer(changed, &x), &latent_layer(original, &x))
}

#[test]
fn the_basis_of_a_conversion_does_not_change_its_outputs() {
    for shape in [GQA, MHA.biased()] {
        let layer = dense_layer(shape, 1);
        let calibration = calibration(&layer, 60, 2);
        for method in METHODS {
            for whiten in [false, true] {
                let options = plain(4, 10).with_factorization(method).with_whiten(whiten);
                let original = convert(&layer, &options, Some(&calibration)).unwrap();
                for basis in BASES {
                    let changed = convert(&layer, &options.clone().with_basis(basis), Some(&calibration)).unwrap();
                    let change = relative_change(&changed, &original);
                    assert!(change < SAME, "{change:e} with {method:?}, {basis:?}");
                }
            }
        }
    }
}

#[test]
fn a_centred_latent_has_mean_zero_on_the_calibration_text() {
    let layer = dense_layer(GQA.biased(), 1);
    let calibration = calibration(&layer, 60, 2);
    let x = tokens(&hidden_states(60, GQA.hidden, 2), GQA.hidden);
    for (basis, centred) in BASES.iter().zip([false, false, true, true]) {
        let converted = convert(&layer, &plain(4, 10).with_basis(*basis), Some(&calibration)).unwrap();
        assert_eq!(converted.latent_bias.is_some(), centred);
        let largest = mean_latent(&converted, &x).iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        assert_eq!(largest < 1e-6, centred, "{largest:e} in {basis:?}");
    }
}

#[test]
fn rotating_any_layer_keeps_its_outputs() {
    for layer in every_deepseek_layer() {
        let rotated = rotate_latent(&layer, 5).unwrap();
        rotated.validate().unwrap();
        assert!(relative_change(&rotated, &layer) < SAME, "{:?}", layer.latent_norm);
        assert_ne!(rotated.down.weight, layer.down.weight);
        assert!(rotated.latent_norm.is_none_or(|norm| norm.gain.iter().all(|&gain| gain == 1.0)));
    }
}

#[test]
fn centring_any_layer_keeps_its_outputs_and_takes_the_mean_away() {
    for layer in every_deepseek_layer() {
        let x = tokens(&hidden_states(25, layer.hidden(), 31), layer.hidden());
        let centred = centre_latent(&layer, &mean_latent(&layer, &x)).unwrap();
        assert!(relative_change(&centred, &layer) < SAME);
        assert!(mean_latent(&centred, &x).iter().all(|mean| mean.abs() < 1e-6));

        let both = rotate_latent(&centred, 5).unwrap();
        assert!(relative_change(&both, &layer) < SAME);
    }
}

#[test]
fn a_centred_latent_with_a_norm_stays_centred_when_rotated() {
    let layer = deepseek_layer(Some(vector(&mut rng(22), 12, 3.0)), false);
    let x = tokens(&hidden_states(25, layer.hidden(), 31), layer.hidden());
    let centred = centre_latent(&layer, &mean_latent(&layer, &x)).unwrap();
    let rotated = rotate_latent(&centred, 5).unwrap();
    assert!(mean_latent(&rotated, &x).iter().all(|mean| mean.abs() < 1e-5));
}

#[test]
fn rotating_later_is_rotating_in_the_conversion() {
    let layer = dense_layer(GQA, 1);
    let in_conversion = convert(&layer, &plain(4, 10).with_basis(Basis::rotated(7)), None).unwrap();
    let later = rotate_latent(&convert(&layer, &plain(4, 10), None).unwrap(), 7).unwrap();
    for (a, b) in in_conversion.down.weight.data().iter().zip(later.down.weight.data()) {
        approx::assert_abs_diff_eq!(a, b, epsilon = 1e-6);
    }
}

#[test]
fn rotations_prefer_no_direction() {
    // With an identity as down-projection the rotated one is Q itself. Elements of a uniformly distributed 3 x 3
    // rotation have mean 0 and mean square 1/3.
    let mut layer = convert(&dense_layer(Shape { hidden: 3, ..GQA }, 1), &plain(4, 3), None).unwrap();
    layer.down.weight = Matrix::from_fn(3, 3, |row, col| f32::from(u8::from(row == col)));
    let seeds = 2000;
    let (mut means, mut squares) = ([0.0; 9], [0.0; 9]);
    for seed in 0..seeds {
        let rotated = rotate_latent(&layer, seed).unwrap();
        for (i, &q) in rotated.down.weight.data().iter().enumerate() {
            means[i] += f64::from(q) / seeds as f64;
            squares[i] += f64::from(q * q) / seeds as f64;
        }
    }
    // Four to five standard deviations of the two averages.
    assert!(means.iter().all(|mean| mean.abs() < 0.06), "{means:?}");
    assert!(squares.iter().all(|square| (square - 1.0 / 3.0).abs() < 0.03), "{squares:?}");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_seed_another_latent_of_the_same_function() {
    let layer = dense_layer(GQA.biased(), 1);
    let calibration = calibration(&layer, 60, 2);
    let with_seed = |seed| {
        let basis = Basis { seed, ..Basis::default().centred() };
        convert(&layer, &ConvertOptions::new(4, 10).with_basis(basis), Some(&calibration)).unwrap()
    };
    assert_eq!(with_seed(1), with_seed(1));
    let (one, other) = (with_seed(1), with_seed(2));
    assert_ne!(one.down, other.down);
    assert!(relative_change(&other, &one) < SAME);
}

/// Affine 4-bit codes with one scale for the whole latent of a token.
fn quantised(c: &[f64]) -> Vec<f64> {
    let min = c.iter().copied().fold(f64::INFINITY, f64::min);
    let max = c.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let step = (max - min) / 15.0;
    c.iter().map(|c| ((c - min) / step).round() * step + min).collect()
}

#[test]
fn a_rotated_and_centred_latent_quantises_better() {
    let shape = Shape { query_heads: 8, kv_heads: 4, head_dim: 16, hidden: 96, biased: false, normed: false };
    let mut layer = dense_layer(shape, 40);
    // Columns of different sizes make the singular vectors lean on single dimensions of the hidden state; those of
    // a plain random matrix would be a random rotation already.
    for linear in [&mut layer.key, &mut layer.value] {
        let weight = linear.weight.clone();
        linear.weight = Matrix::from_fn(weight.rows(), weight.cols(), |row, col| {
            weight.row(row)[col] * (-(col as f32) / 12.0).exp()
        });
    }
    // As in language models, few dimensions of the hidden state have large means and large powers.
    let mut states = vector(&mut rng(41), 64 * shape.hidden, 1.0);
    for token in states.chunks_exact_mut(shape.hidden) {
        token[3] = 4.0 * token[3] + 6.0;
        token[9] = 3.0 * token[9] - 8.0;
    }
    let mut calibration = Calibration::new(&layer).unwrap();
    calibration.observe(&layer, &states).unwrap();
    let x = tokens(&states, shape.hidden);
    let error = |basis| {
        let converted = convert(&layer, &plain(4, 64).with_basis(basis), Some(&calibration)).unwrap();
        let cached: Tokens = x.iter().map(|x| quantised(&latent(&converted, x))).collect();
        relative_error(&latent_layer_on(&converted, &x, &cached), &latent_layer(&converted, &x))
    };
    let (own, rotated, both) = (error(Basis::plain()), error(Basis::rotated(0)), error(Basis::default().centred()));
    assert!(rotated < own && both < rotated, "plain {own}, rotated {rotated}, rotated and centred {both}");
}
