//! Every step against a small computation that is as plain as can be.

use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::balance::{Balance, sensitivity};
use super::components::Component;
use super::decoders::Decoders;
use super::latent::Fitted;
use super::moments::Moments;
use super::original::{Original, project};
use super::regression::{Features, Turns};
use super::samples::Samples;
use super::{Sampling, Survey};
use crate::convert::linalg::product;
use crate::rope::theta_frequencies;
use crate::weights::{DenseAttention, Linear, Matrix};

pub const HEADS: usize = 4;
pub const GROUPS: usize = 2;
pub const DIM: usize = 6;
pub const HIDDEN: usize = 14;
const TOKENS: usize = 20;
const SEQUENCES: usize = 5;

fn vector(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

pub fn layer() -> DenseAttention {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let mut linear = |rows: usize, cols: usize, biased: bool| Linear {
        weight: Matrix::new(rows, cols, vector(rng, rows * cols)).unwrap(),
        bias: biased.then(|| vector(rng, rows)),
    };
    DenseAttention {
        query_heads: HEADS,
        kv_heads: GROUPS,
        head_dim: DIM,
        query: linear(HEADS * DIM, HIDDEN, true),
        key: linear(GROUPS * DIM, HIDDEN, true),
        value: linear(GROUPS * DIM, HIDDEN, true),
        output: linear(HIDDEN, HEADS * DIM, false),
        head_norms: None,
    }
}

pub fn text() -> Vec<Vec<f32>> {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    (0..SEQUENCES).map(|_| vector(rng, TOKENS * HIDDEN)).collect()
}

pub fn frequencies() -> Vec<f32> {
    theta_frequencies(100.0, DIM)
}

fn original() -> Original {
    Original::new(&layer(), &frequencies()).unwrap()
}

pub fn survey(inputs: &[Vec<f32>]) -> Survey {
    Survey::new(&layer(), &frequencies(), &inputs, &Sampling::default()).unwrap()
}

pub fn close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{what}: {got} instead of {expected}");
}

/// The scores of one head's query at `position` for all keys up to it, after softmax, and the values, from the weights.
fn attention(layer: &DenseAttention, x: &[f32], head: usize, position: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let outputs = |linear: &Linear, token: usize, rows: std::ops::Range<usize>| -> Vec<f64> {
        let input = &x[token * HIDDEN..][..HIDDEN];
        let dot = |row: usize| -> f64 {
            let bias = f64::from(linear.bias.as_ref().unwrap()[row]);
            linear.weight.row(row).iter().zip(input).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>() + bias
        };
        rows.map(dot).collect()
    };
    let turned = |mut head: Vec<f64>, position: usize| {
        for (pair, &frequency) in frequencies().iter().enumerate() {
            let (sin, cos) = (position as f64 * f64::from(frequency)).sin_cos();
            let (a, b) = (head[pair], head[pair + DIM / 2]);
            (head[pair], head[pair + DIM / 2]) = (a * cos - b * sin, a * sin + b * cos);
        }
        head
    };
    let group = head / (HEADS / GROUPS) * DIM;
    let query = turned(outputs(&layer.query, position, head * DIM..(head + 1) * DIM), position);
    let scores: Vec<f64> = (0..=position)
        .map(|token| {
            let key = turned(outputs(&layer.key, token, group..group + DIM), token);
            query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>() / (DIM as f64).sqrt()
        })
        .collect();
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    let weights = scores.iter().map(|score| score.exp() / sum).collect();
    (weights, (0..=position).map(|token| outputs(&layer.value, token, group..group + DIM)).collect())
}

/// What a head adds to the layer's output when it attends by `weights`.
fn output(layer: &DenseAttention, head: usize, weights: &[f64], values: &[Vec<f64>]) -> Vec<f64> {
    let head_output: Vec<f64> = (0..DIM).map(|i| weights.iter().zip(values).map(|(p, v)| p * v[i]).sum()).collect();
    let row = |row: usize| {
        let weights = &layer.output.weight.row(row)[head * DIM..][..DIM];
        weights.iter().zip(&head_output).map(|(&w, o)| f64::from(w) * o).sum()
    };
    (0..HIDDEN).map(row).collect()
}

#[test]
fn the_cost_of_a_score_is_the_square_of_the_outputs_derivative_over_the_attention() {
    let (layer, original, inputs) = (layer(), original(), text());
    let sequence = original.sequence(&inputs, 1).unwrap();
    let read = original.keys_and_values(&sequence);
    let samples = Samples::draw(&original, &sequence, &read, 1, &Sampling::default());
    for (query, &position) in samples.positions.iter().enumerate() {
        for head in 0..HEADS {
            let (weights, values) = attention(&layer, &inputs[1], head, position);
            let base = output(&layer, head, &weights, &values);
            let cost = |token: usize| -> f64 {
                // A step of the score multiplies its weight by exp(step) and divides all by their new sum.
                let step = 1e-6;
                let mut moved = weights.clone();
                moved[token] *= f64::exp(step);
                let sum: f64 = moved.iter().sum();
                moved.iter_mut().for_each(|weight| *weight /= sum);
                let moved = output(&layer, head, &moved, &values);
                let square: f64 = moved.iter().zip(&base).map(|(a, b)| ((a - b) / step).powi(2)).sum();
                square / weights[token]
            };
            let total: f64 = (0..=position).map(cost).sum();
            let (weight, keys) = samples.of(head, query);
            assert!((weight - total).abs() < 1e-4 * total, "{weight} {total}");
            assert!(keys.iter().all(|&key| key as usize <= position));
        }
    }
}

#[test]
fn keys_are_drawn_in_proportion_to_their_cost() {
    let (layer, original, inputs) = (layer(), original(), text());
    let sequence = original.sequence(&inputs, 0).unwrap();
    let read = original.keys_and_values(&sequence);
    let sampling = Sampling { keys: 2000, ..Sampling::default() };
    let samples = Samples::draw(&original, &sequence, &read, 0, &sampling);
    let (query, head) = (samples.positions.len() - 1, 2);
    let position = samples.positions[query];
    let (weights, values) = attention(&layer, &inputs[0], head, position);
    let mean: Vec<f64> = (0..DIM).map(|i| weights.iter().zip(&values).map(|(p, v)| p * v[i]).sum()).collect();
    let costs: Vec<f64> = (0..=position)
        .map(|token| {
            let difference: Vec<f64> = values[token].iter().zip(&mean).map(|(v, m)| v - m).collect();
            let moved = output(&layer, head, &[1.0], &[difference]);
            weights[token] * moved.iter().map(|x| x * x).sum::<f64>()
        })
        .collect();
    let total: f64 = costs.iter().sum();
    let (weight, keys) = samples.of(head, query);
    close(weight, total, "weight of the query");
    for (token, cost) in costs.iter().enumerate() {
        let drawn = keys.iter().filter(|&&key| key as usize == token).count() as f64;
        // One draw from each of 2000 equal parts: a token's number is off by its two ends at most.
        assert!((drawn - 2000.0 * cost / total).abs() <= 2.0, "{drawn} of token {token}, {cost} of {total}");
    }
}

#[test]
fn all_components_together_are_the_keys() {
    let inputs = text();
    let survey = survey(&inputs);
    let components = &survey.components;
    let all: Vec<Component> = survey.ranked.clone();
    assert_eq!(all.len(), GROUPS * DIM / 2);
    for pair in 0..DIM / 2 {
        for from in 0..GROUPS {
            for to in 0..GROUPS {
                let of_pair = all.iter().filter(|component| component.pair == pair);
                let share: f64 = of_pair.map(|&c| components.encode(c, from) * components.decode(c, to)).sum();
                close(share, if from == to { 1.0 } else { 0.0 }, "coefficient");
            }
        }
    }
}

#[test]
fn components_are_ranked_by_what_least_squares_leave_of_their_scores() {
    let (original, inputs) = (original(), text());
    let survey = survey(&inputs);
    let half = DIM / 2;
    let lost = |component: Component| -> f64 {
        let mut lost = 0.0;
        for head in 0..HEADS {
            let group = original.kv_head_of(head);
            // Weighted, centred scores and the two parts of their unrotated products, over all samples.
            let (mut rows, mut scores) = (Vec::new(), Vec::new());
            for (index, samples) in survey.moments.samples.iter().enumerate() {
                let sequence = original.sequence(&inputs, index).unwrap();
                for (query, &position) in samples.positions.iter().enumerate() {
                    let (weight, keys) = samples.of(head, query);
                    let factor = (weight / keys.len() as f64).sqrt();
                    let at = |part: usize| samples.queries[(head * DIM + component.pair + part * half, query)];
                    let of_key: Vec<[f64; 3]> = keys
                        .iter()
                        .map(|&key| {
                            let token = key as usize;
                            let part = |part: usize| -> f64 {
                                let row = |g: usize| sequence.key[(g * DIM + component.pair + part * half, token)];
                                (0..GROUPS).map(|g| survey.components.encode(component, g) * row(g)).sum::<f64>()
                                    * survey.components.decode(component, group)
                            };
                            let (a, b) = (at(0) * part(0) + at(1) * part(1), at(0) * part(1) - at(1) * part(0));
                            let angle = (position - token) as f64 * original.frequencies[component.pair];
                            [a * angle.cos() + b * angle.sin(), a, b]
                        })
                        .collect();
                    let mean = |i: usize| of_key.iter().map(|x| x[i]).sum::<f64>() / of_key.len() as f64;
                    let means = [mean(0), mean(1), mean(2)];
                    for [y, a, b] in of_key {
                        scores.push(factor * (y - means[0]));
                        rows.push([factor * (a - means[1]), factor * (b - means[2])]);
                    }
                }
            }
            lost += residual(&rows, &scores);
        }
        lost
    };
    let losses: Vec<f64> = survey.ranked.iter().map(|&component| lost(component)).collect();
    assert!(losses.is_sorted_by(|a, b| a >= b), "{losses:?}");
    assert!(losses[0] > 2.0 * losses[losses.len() - 1], "nothing to rank in {losses:?}");
}

/// Sum of squares left of `y` after the best fit of two features, by Gram and Schmidt.
fn residual(rows: &[[f64; 2]], y: &[f64]) -> f64 {
    let mut left = y.to_vec();
    let first: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    let mut second: Vec<f64> = rows.iter().map(|row| row[1]).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let remove = |from: &mut [f64], direction: &[f64]| {
        let share = dot(from, direction) / dot(direction, direction);
        from.iter_mut().zip(direction).for_each(|(from, along)| *from -= share * along);
    };
    remove(&mut second, &first);
    remove(&mut left, &first);
    remove(&mut left, &second);
    dot(&left, &left)
}

#[test]
fn what_heads_average_is_the_mean_of_the_inputs_by_their_attention() {
    let (layer, inputs) = (layer(), text());
    let sampling = Sampling { averages: TOKENS, ..Sampling::default() };
    let moments = Moments::gather(&original(), &inputs, &sampling).unwrap();
    let (mut plain, mut count) = (Mat::<f64>::zeros(HIDDEN, HIDDEN), 0.0);
    for x in &inputs {
        for head in 0..HEADS {
            for position in 8..TOKENS {
                let (weights, _) = attention(&layer, x, head, position);
                let average = |i: usize| -> f64 {
                    weights.iter().enumerate().map(|(t, p)| p * f64::from(x[t * HIDDEN + i])).sum()
                };
                let average: Vec<f64> = (0..HIDDEN).map(average).collect();
                plain += Mat::from_fn(HIDDEN, HIDDEN, |i, j| average[i] * average[j]);
                count += 1.0;
            }
        }
    }
    for i in 0..HIDDEN {
        for j in 0..HIDDEN {
            close(moments.averages[(i, j)], plain[(i, j)] / count, "moment of the averages");
        }
    }
}

#[test]
fn decoders_cannot_be_improved_by_any_small_change() {
    let inputs = text();
    let survey = survey(&inputs);
    let chosen = survey.choose(&inputs, 4, 5).unwrap();
    let sampling = Sampling { ridge: 1e-9, ..survey.sampling };
    let decoders = Decoders::fit(&survey.original, &chosen.fitted, &inputs, &sampling).unwrap();
    let head = 3;
    let best = key_error(&survey, &chosen.fitted, &inputs, head, &decoders.keys[head]);
    let rng = &mut ChaCha8Rng::seed_from_u64(8);
    for _ in 0..20 {
        let change = Mat::from_fn(9, DIM, |_, _| 1e-2 * rng.random_range(-1.0..1.0));
        let moved = key_error(&survey, &chosen.fitted, &inputs, head, &(&decoders.keys[head] + &change));
        assert!(moved > best, "{moved} {best}");
    }
}

/// The weighted square error of one head's keys, pair by pair of sampled query and key.
fn key_error(survey: &Survey, fitted: &Fitted, inputs: &[Vec<f32>], head: usize, decoder: &Mat<f64>) -> f64 {
    let original = &survey.original;
    let mut error = 0.0;
    for (index, samples) in survey.moments.samples.iter().enumerate() {
        let sequence = original.sequence(&inputs, index).unwrap();
        let rotated = project(&fitted.key_rope, sequence.inputs.as_ref());
        let latent = product(fitted.down.as_ref(), sequence.inputs.as_ref());
        let turns = Turns::new(&original.frequencies, TOKENS);
        let features = Features { rotated: rotated.as_ref(), pairs: &fitted.pairs, plain: latent.as_ref() };
        let (gram, cross) = features.products(original, &sequence, samples, head, &turns);
        // |Y - D^T Z|^2 = |Y|^2 - 2 tr D^T Z Y^T + tr D^T Z Z^T D, without its constant part.
        let seen = product(gram.as_ref(), decoder.as_ref());
        for row in 0..decoder.nrows() {
            for col in 0..DIM {
                error += decoder[(row, col)] * (seen[(row, col)] - 2.0 * cross[(row, col)]);
            }
        }
    }
    error
}

#[test]
fn features_and_targets_are_turned_back_and_centred_over_each_query() {
    let (original, inputs) = (original(), text());
    let survey = survey(&inputs);
    let chosen = survey.choose(&inputs, 4, 5).unwrap();
    let (sequence, samples) = (original.sequence(&inputs, 2).unwrap(), &survey.moments.samples[2]);
    let rotated = project(&chosen.fitted.key_rope, sequence.inputs.as_ref());
    let pairs = &chosen.fitted.pairs;
    let none = Mat::zeros(0, TOKENS);
    let features = Features { rotated: rotated.as_ref(), pairs, plain: none.as_ref() };
    let head = 1;
    let (gram, cross) =
        features.products(&original, &sequence, samples, head, &Turns::new(&original.frequencies, TOKENS));
    let (mut plain, mut plain_cross) = (Mat::<f64>::zeros(4, 4), Mat::<f64>::zeros(4, DIM));
    for (query, &position) in samples.positions.iter().enumerate() {
        let (weight, keys) = samples.of(head, query);
        let turned = |a: f64, b: f64, token: usize, pair: usize| {
            // The key is rotated at its own position, and the query's rotation is undone.
            let frequency = original.frequencies[pair];
            let (sin, cos) = (token as f64 * frequency - position as f64 * frequency).sin_cos();
            [a * cos - b * sin, a * sin + b * cos]
        };
        let columns: Vec<(Vec<f64>, Vec<f64>)> = keys
            .iter()
            .map(|&key| {
                let token = key as usize;
                let (mut feature, mut target) = (vec![0.0; 4], vec![0.0; DIM]);
                for (j, &pair) in pairs.iter().enumerate() {
                    [feature[j], feature[j + 2]] = turned(rotated[(j, token)], rotated[(j + 2, token)], token, pair);
                }
                for pair in 0..DIM / 2 {
                    let (a, b) = (sequence.key[(pair, token)], sequence.key[(pair + DIM / 2, token)]);
                    [target[pair], target[pair + DIM / 2]] = turned(a, b, token, pair);
                }
                (feature, target)
            })
            .collect();
        let count = columns.len() as f64;
        for i in 0..4 {
            let mean = columns.iter().map(|c| c.0[i]).sum::<f64>() / count;
            for (feature, target) in &columns {
                (0..4).for_each(|j| plain[(i, j)] += weight / count * (feature[i] - mean) * feature[j]);
                (0..DIM).for_each(|j| plain_cross[(i, j)] += weight / count * (feature[i] - mean) * target[j]);
            }
        }
    }
    for i in 0..4 {
        (0..4).for_each(|j| close(gram[(i, j)], plain[(i, j)], "features"));
        (0..DIM).for_each(|j| close(cross[(i, j)], plain_cross[(i, j)], "targets"));
    }
}

#[test]
fn the_balance_has_an_inverse_and_makes_length_times_error_smallest() {
    let inputs = text();
    let survey = survey(&inputs);
    let chosen = survey.choose(&inputs, 4, 5).unwrap();
    let (original, fitted, moments) = (&survey.original, &chosen.fitted, &survey.moments);
    let decoders = Decoders::fit(original, fitted, &inputs, &survey.sampling).unwrap();
    let balance = Balance::new(original, fitted, &decoders, moments, &inputs, &Sampling::default()).unwrap();
    let identity = product(balance.latent.as_ref(), balance.inverse.as_ref());
    for row in 0..5 {
        for col in 0..5 {
            close(identity[(row, col)], if row == col { 1.0 } else { 0.0 }, "S S^-1");
        }
    }
    let (mut latents, mut value_squares) = (Mat::<f64>::zeros(5, 5), Mat::<f64>::zeros(GROUPS * DIM, GROUPS * DIM));
    for index in 0..SEQUENCES {
        let sequence = original.sequence(&inputs, index).unwrap();
        let latent = product(fitted.down.as_ref(), sequence.inputs.as_ref());
        latents += product(latent.as_ref(), latent.transpose());
        let value = product(original.value.as_ref(), sequence.inputs.as_ref());
        value_squares += product(value.as_ref(), value.transpose()) * faer::Scale(1.0 / moments.tokens as f64);
    }
    let sensitivity = sensitivity(original, fitted, &decoders, moments, &value_squares);
    let cost = |to: &Mat<f64>, back: &Mat<f64>| {
        let length = product(to.as_ref(), product(latents.as_ref(), to.transpose()).as_ref());
        let error = product(back.transpose(), product(sensitivity.as_ref(), back.as_ref()).as_ref());
        let trace = |matrix: &Mat<f64>| (0..5).map(|i| matrix[(i, i)]).sum::<f64>();
        trace(&length) * trace(&error)
    };
    let best = cost(&balance.latent, &balance.inverse);
    let plain = Mat::<f64>::identity(5, 5);
    assert!(best < cost(&plain, &plain));
    let rng = &mut ChaCha8Rng::seed_from_u64(9);
    for _ in 0..20 {
        // To first order (1 + E)^-1 is 1 - E; a few more terms make it exact enough.
        let change = Mat::from_fn(5, 5, |_, _| 0.02 * rng.random_range(-1.0..1.0));
        let square = product(change.as_ref(), change.as_ref());
        let inverse = &plain - &change + &square - product(square.as_ref(), change.as_ref());
        let moved = product((&plain + &change).as_ref(), balance.latent.as_ref());
        let back = product(balance.inverse.as_ref(), inverse.as_ref());
        assert!(cost(&moved, &back) > best * (1.0 - 1e-6), "{} {best}", cost(&moved, &back));
    }
}

#[test]
fn samples_counted_by_tokens_are_as_many_whatever_a_text_is_cut_into() {
    let mut sampling = Sampling::default();
    assert_eq!([sampling.of_sequence(16, 40), sampling.of_sequence(16, 4000)], [16, 16]);
    sampling.per = Some(512);
    assert_eq!([1, 256, 512, 4096].map(|tokens| sampling.of_sequence(16, tokens)), [1, 8, 16, 128]);
    sampling.per = Some(0);
    assert!(sampling.check().unwrap_err().to_string().contains("Sampling::per"));
}
