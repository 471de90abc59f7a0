//! Scales that a layer's function does not depend on, chosen so that one learning rate fits all of its matrices.
//!
//! An optimiser such as AdamW moves every number of a matrix by about the learning rate, whatever the size of the matrix.
//! A conversion is free to make a latent large and its up-projections small, or the other way round; then the same step is
//! large for the one and small for the other.

use latent_attention::weights::{LatentAttention, Linear, Matrix};

/// Scales the latent against its up-projections, and the rotated key against its queries pair by pair, so that the two
/// matrices on either side have the same root mean square. The layer computes the same up to rounding. Its cache holds
/// other numbers, but all of a latent alike, so that they quantise as they did.
#[must_use]
pub fn balance(mut layer: LatentAttention) -> LatentAttention {
    let up = [layer.up_key.data(), layer.up_value.data()].concat();
    if let Some(factor) = ratio(rms(up.iter()), rms(layer.down.weight.data().iter())) {
        let all = |_: usize| factor;
        scale(&mut layer.down, all);
        layer.latent_bias.iter_mut().flatten().for_each(|x| *x *= factor);
        for matrix in [&mut layer.up_key, &mut layer.up_value] {
            *matrix = scaled(matrix, |_| 1.0 / factor);
        }
    }
    let g = layer.geometry;
    let pairs = g.rope_dim / 2;
    let mut factors = vec![1.0; g.rope_width()];
    for rope_head in 0..g.rope_heads {
        for pair in 0..pairs {
            let dims: [usize; 2] = layer.pairing.dims(pair, g.rope_dim).into();
            let keys = dims.map(|dim| rope_head * g.rope_dim + dim);
            let heads = (0..g.query_heads).filter(|&head| g.rope_head_of(head) == rope_head);
            let rows = heads.flat_map(|head| dims.map(|dim| head * g.rope_dim + dim));
            let queries = rms(rows.flat_map(|row| layer.query_rope.weight.row(row)));
            let key = rms(keys.iter().flat_map(|&row| layer.key_rope.weight.row(row)));
            if let Some(factor) = ratio(queries, key) {
                keys.iter().for_each(|&row| factors[row] = factor);
            }
        }
    }
    scale(&mut layer.key_rope, |row| factors[row]);
    let key_of = |row: usize| g.rope_head_of(row / g.rope_dim) * g.rope_dim + row % g.rope_dim;
    scale(&mut layer.query_rope, |row| 1.0 / factors[key_of(row)]);
    layer
}

/// The factor that makes the second of two sizes as large as the first becomes when divided by it; `None` where one of
/// them is zero or none.
fn ratio(first: f64, second: f64) -> Option<f32> {
    let factor = (first / second).sqrt() as f32;
    (factor.is_finite() && factor > 0.0).then_some(factor)
}

fn rms<'a>(numbers: impl Iterator<Item = &'a f32>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0u64), |(sum, count), x| (sum + f64::from(*x) * f64::from(*x), count + 1));
    (sum / count as f64).sqrt()
}

/// Row `r` times `factor(r)`, bias included.
fn scale(linear: &mut Linear, factor: impl Fn(usize) -> f32) {
    linear.weight = scaled(&linear.weight, &factor);
    linear.bias.iter_mut().flatten().enumerate().for_each(|(row, x)| *x *= factor(row));
}

fn scaled(matrix: &Matrix, factor: impl Fn(usize) -> f32) -> Matrix {
    Matrix::from_fn(matrix.rows(), matrix.cols(), |row, col| matrix.row(row)[col] * factor(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::student::Mode;
    use crate::tiny;

    #[test]
    fn a_balanced_layer_computes_the_same() {
        for layers in [tiny::converted(true, 4, 10), tiny::shared_key(true), tiny::converted(false, 0, 10)] {
            let lopsided: Vec<LatentAttention> = layers
                .iter()
                .cloned()
                .map(|mut layer| {
                    scale(&mut layer.down, |_| 100.0);
                    layer.latent_bias.iter_mut().flatten().for_each(|x| *x *= 100.0);
                    layer.up_key = scaled(&layer.up_key, |_| 0.01);
                    layer.up_value = scaled(&layer.up_value, |_| 0.01);
                    layer
                })
                .collect();
            let balanced: Vec<LatentAttention> = lopsided.into_iter().map(balance).collect();
            let tokens = tiny::text(20, 5);
            let hidden = |layers: &[LatentAttention]| -> Vec<f32> {
                let hidden = tiny::student(layers, Mode::Attention).forward(&tokens, 20, None).unwrap();
                hidden.flatten_all().unwrap().to_vec1().unwrap()
            };
            for (a, b) in hidden(&layers).iter().zip(hidden(&balanced)) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            for layer in &balanced {
                let up = rms([layer.up_key.data(), layer.up_value.data()].concat().iter());
                let down = rms(layer.down.weight.data().iter());
                assert!((up / down - 1.0).abs() < 1e-5, "{up} {down}");
            }
        }
    }
}
