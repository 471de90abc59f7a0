use faer::Mat;

use super::regression::centred_inputs;
use super::tests::{DIM, GROUPS, HEADS, HIDDEN, close, frequencies, layer, survey, text};
use super::{Sampling, Survey};
use crate::convert::linalg::{mirror, product};
use crate::weights::Matrix;

#[test]
fn the_latents_projection_is_orthonormal_on_the_inputs_and_has_an_inverse() {
    let inputs = text();
    let survey = survey(&inputs);
    let rank = 5;
    let chosen = survey.choose(&inputs, 4, rank).unwrap();
    let fitted = &chosen.fitted;
    let (moment, key_inputs) = input_moment(&survey, &inputs);
    let identity = product(fitted.down.as_ref(), product(moment.as_ref(), fitted.down.transpose()).as_ref());
    for row in 0..rank {
        for col in 0..rank {
            close(identity[(row, col)], if row == col { 1.0 } else { 0.0 }, "A C A^T");
        }
    }
    assert!((0..HIDDEN).all(|col| key_inputs.col_as_slice(col).iter().all(|x| x.is_finite())));
}

#[test]
fn directions_that_no_key_and_no_value_reads_are_worth_nothing() {
    let (mut layer, inputs) = (layer(), text());
    // Of every KV head two rows of keys and two of values: 8 directions of 14.
    for linear in [&mut layer.key, &mut layer.value] {
        let kept = |row: usize, col: usize| if row % DIM < 2 { linear.weight.row(row)[col] } else { 0.0 };
        linear.weight = Matrix::from_fn(GROUPS * DIM, HIDDEN, kept);
    }
    let survey = Survey::new(&layer, &frequencies(), &inputs.as_slice(), &Sampling::default()).unwrap();
    let worths = |rank| survey.choose(&inputs.as_slice(), 2, rank).unwrap().worths();
    let all = worths(HIDDEN);
    assert!(all.len() == HIDDEN && all[..8].iter().all(|worth| *worth > 1e-6 * all[0]), "{all:?}");
    assert!(all[8..].iter().all(|worth| worth.abs() < 1e-12 * all[0]), "{all:?}");
    for (few, all) in worths(3).into_iter().zip(all) {
        close(few, all, "a direction of a smaller latent");
    }
}

#[test]
fn a_direction_is_worth_what_the_output_loses_without_it() {
    let inputs = text();
    let survey = survey(&inputs);
    let rank = 6;
    let chosen = survey.choose(&inputs, 4, rank).unwrap();
    let (fitted, original, moments) = (&chosen.fitted, &survey.original, &survey.moments);
    let (moment, mut key_inputs) = input_moment(&survey, &inputs);
    key_inputs *= faer::Scale(1.0 / (moments.sampled_queries() * HEADS) as f64);
    for (direction, worth) in chosen.worths().iter().enumerate() {
        let row = fitted.down.row(direction);
        let column: Vec<f64> = (0..HIDDEN).map(|i| (0..HIDDEN).map(|j| moment[(i, j)] * row[j]).sum()).collect();
        let read = |inputs: &Mat<f64>| -> f64 {
            (0..HIDDEN)
                .flat_map(|i| (0..HIDDEN).map(move |j| (i, j)))
                .map(|(i, j)| row[i] * inputs[(i, j)] * row[j])
                .sum()
        };
        let mut lost = 0.0;
        for head in 0..HEADS {
            let times = |weights: faer::MatRef<'_, f64>, x: &[f64]| -> Vec<f64> {
                (0..weights.nrows()).map(|i| x.iter().enumerate().map(|(j, x)| weights[(i, j)] * x).sum()).collect()
            };
            let square = |matrix: &Mat<f64>, x: &[f64]| -> f64 {
                times(matrix.as_ref(), x).iter().zip(x).map(|(a, b)| a * b).sum()
            };
            let group = original.kv_head_of(head);
            // What the head's key and value make of the direction: the decoder of a latent of this rank, undone.
            let key: Vec<f64> = (0..DIM).map(|i| fitted.keys[head][(4 + direction, i)]).collect();
            lost += original.scale * original.scale * square(&moments.queries[head], &key) * read(&key_inputs);
            let value = times(original.head_rows(&original.value, group), &column);
            let root = times(original.output_roots[head].as_ref(), &value);
            lost += root.iter().map(|x| x * x).sum::<f64>() * read(&moments.averages);
        }
        close(*worth, lost, "the worth of a direction");
    }
}

/// The second moment of the inputs that step 4 takes, and the sampled keys' part of it, not divided by their number:
/// summed up token by token.
fn input_moment(survey: &Survey, inputs: &[Vec<f32>]) -> (Mat<f64>, Mat<f64>) {
    let original = &survey.original;
    let mut keys = Mat::<f64>::zeros(HIDDEN, HIDDEN);
    for (index, samples) in survey.moments.samples.iter().enumerate() {
        let sequence = original.sequence(&inputs, index).unwrap();
        let mut covariance = centred_inputs(original, &sequence, samples);
        mirror(&mut covariance);
        let mut plain = Mat::<f64>::zeros(HIDDEN, HIDDEN);
        for head in 0..HEADS {
            for query in 0..samples.positions.len() {
                let (weight, sampled) = samples.of(head, query);
                let count = sampled.len() as f64;
                let mean: Vec<f64> = (0..HIDDEN)
                    .map(|i| sampled.iter().map(|&t| sequence.inputs[(i, t as usize)]).sum::<f64>() / count)
                    .collect();
                for &token in sampled {
                    for i in 0..HIDDEN {
                        for j in 0..HIDDEN {
                            let (a, b) = (sequence.inputs[(i, token as usize)], sequence.inputs[(j, token as usize)]);
                            plain[(i, j)] += weight / count * (a - mean[i]) * (b - mean[j]);
                        }
                    }
                }
            }
        }
        for i in 0..HIDDEN {
            for j in 0..HIDDEN {
                close(covariance[(i, j)], plain[(i, j)], "covariance of the sampled keys' inputs");
            }
        }
        keys += &plain;
    }
    let trace = |matrix: &Mat<f64>| (0..HIDDEN).map(|i| matrix[(i, i)]).sum::<f64>();
    let (of_keys, of_values) = (trace(&keys), trace(&survey.moments.averages));
    let mut moment = Mat::from_fn(HIDDEN, HIDDEN, |i, j| {
        0.5 * keys[(i, j)] / of_keys + 0.5 * survey.moments.averages[(i, j)] / of_values
    });
    let mean = trace(&moment) / HIDDEN as f64;
    for i in 0..HIDDEN {
        moment[(i, i)] += survey.sampling.ridge * mean;
    }
    (moment, keys)
}
