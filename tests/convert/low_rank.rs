//! How good the factorisations are below full rank.

use latent_attention::convert::{Calibration, ConvertOptions, Factorization, convert};
use latent_attention::weights::{DenseAttention, LatentAttention, Matrix};
use proptest::prelude::*;

use crate::oracle::{Tokens, multiply, tokens};
use crate::samples::{BASES, GQA, METHODS, MHA, Shape, calibration, dense_layer, fixed_cases, hidden_states, plain};

const ROPE_DIM: usize = 4;

/// `W` (unrotated key rows, then value rows) and what the converted layer has in its place, as f64 rows.
fn original_and_product(layer: &DenseAttention, converted: &LatentAttention) -> (Tokens, Tokens) {
    let d = layer.head_dim;
    // `plain` keeps the highest frequencies: pairs 0 and 1.
    let unrotated = (0..layer.kv_heads * d).filter(|row| row % (d / 2) >= ROPE_DIM / 2);
    let rows = |matrix: &Matrix| tokens(matrix.data(), matrix.cols());
    let mut original = rows(&layer.key.weight.select_rows(&unrotated.collect::<Vec<_>>()));
    original.extend(rows(&layer.value.weight));

    let down = &converted.down.weight;
    let column_of_down = |col: usize| -> Vec<f64> { (0..down.rows()).map(|i| f64::from(down.row(i)[col])).collect() };
    let columns: Tokens = (0..down.cols()).map(column_of_down).collect();
    let mut product = vec![];
    for up in [&converted.up_key, &converted.up_value] {
        let by_column: Tokens = columns.iter().map(|column| multiply(up, column)).collect();
        product.extend((0..up.rows()).map(|row| by_column.iter().map(|column| column[row]).collect()));
    }
    (original, product)
}

/// `||W - W'||_F^2`.
fn squared_error(layer: &DenseAttention, converted: &LatentAttention) -> f64 {
    let (original, product) = original_and_product(layer, converted);
    assert_eq!(original.len(), product.len());
    original.iter().flatten().zip(product.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum()
}

/// `mean ||(W - W') x||^2` over the tokens `x`.
fn squared_error_on(layer: &DenseAttention, converted: &LatentAttention, x: &Tokens) -> f64 {
    let (original, product) = original_and_product(layer, converted);
    let error = |x: &Vec<f64>| -> f64 {
        let row = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).zip(x).map(|((a, b), x)| (a - b) * x).sum::<f64>();
        original.iter().zip(&product).map(|rows| row(rows).powi(2)).sum()
    };
    x.iter().map(error).sum::<f64>() / x.len() as f64
}

/// The squared singular values, descending, by one-sided Jacobi rotations of the rows.
fn squared_singular_values(mut rows: Tokens) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    for _sweep in 0..40 {
        for i in 0..rows.len() {
            for j in i + 1..rows.len() {
                let (a, b, c) = (dot(&rows[i], &rows[i]), dot(&rows[j], &rows[j]), dot(&rows[i], &rows[j]));
                if c.abs() <= 1e-15 * (a * b).sqrt() {
                    continue;
                }
                let zeta = (b - a) / (2.0 * c);
                let tan = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cos = 1.0 / tan.hypot(1.0);
                let (x, y) = (rows[i].clone(), rows[j].clone());
                rows[i] = x.iter().zip(&y).map(|(x, y)| cos * (x - tan * y)).collect();
                rows[j] = x.iter().zip(&y).map(|(x, y)| cos * (tan * x + y)).collect();
            }
        }
    }
    let mut values: Vec<f64> = rows.iter().map(|row| dot(row, row)).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Largest deviation of `rows rows^T` from the identity.
fn distance_from_orthonormal(rows: &Matrix, range: std::ops::Range<usize>) -> f64 {
    let rows = rows.select_rows(&range.collect::<Vec<_>>());
    let mut largest: f64 = 0.0;
    for i in 0..rows.rows() {
        let row: Vec<f64> = rows.row(i).iter().map(|&x| f64::from(x)).collect();
        for (j, dot) in multiply(&rows, &row).into_iter().enumerate() {
            largest = largest.max((dot - f64::from(u8::from(i == j))).abs());
        }
    }
    largest
}

#[test]
fn joint_error_is_the_tail_of_the_singular_values() {
    for shape in [GQA, MHA] {
        let layer = dense_layer(shape, 11);
        let full = shape.full_rank(ROPE_DIM, Factorization::Joint);
        let at_full_rank = convert(&layer, &plain(ROPE_DIM, full), None).unwrap();
        let squares = squared_singular_values(original_and_product(&layer, &at_full_rank).0);
        for rank in 1..full {
            let converted = convert(&layer, &plain(ROPE_DIM, rank), None).unwrap();
            let tail: f64 = squares[rank..].iter().sum();
            approx::assert_relative_eq!(squared_error(&layer, &converted), tail, max_relative = 1e-6, epsilon = 1e-10);
        }
    }
}

#[test]
fn split_gives_half_of_the_latent_to_the_keys_and_the_odd_one_to_the_values() {
    let layer = dense_layer(GQA, 11);
    let converted = convert(&layer, &plain(ROPE_DIM, 9).with_factorization(Factorization::Split), None).unwrap();
    check_blocks(&converted, 4);
}

#[test]
fn split_gives_what_the_keys_cannot_use_to_the_values_and_the_reverse() {
    // Keys of 2 heads with 2 unrotated dimensions have rank 4, values 16.
    let layer = dense_layer(GQA, 11);
    let split = |rope_dim, rank| {
        convert(&layer, &plain(rope_dim, rank).with_factorization(Factorization::Split), None).unwrap()
    };
    check_blocks(&split(6, 14), 4);
    check_blocks(&split(8, 10), 0);
    // A hidden state of 24 gives keys of 16 rows and values of 16 rows the same rank.
    check_blocks(&split(0, 31), 15);
}

/// The first `key_rank` latents belong to the keys alone, the others to the values alone.
fn check_blocks(converted: &LatentAttention, key_rank: usize) {
    let is_zero = |row: &[f32]| row.iter().all(|&x| x == 0.0);
    for row in 0..converted.up_key.rows() {
        assert!(is_zero(&converted.up_key.row(row)[key_rank..]) && !is_zero(&converted.up_key.row(row)[..key_rank]));
    }
    for row in 0..converted.up_value.rows() {
        assert!(is_zero(&converted.up_value.row(row)[..key_rank]));
        assert!(!is_zero(&converted.up_value.row(row)[key_rank..]));
    }
    assert!(distance_from_orthonormal(&converted.down.weight, 0..key_rank) < 1e-6);
    assert!(distance_from_orthonormal(&converted.down.weight, key_rank..converted.down.weight.rows()) < 1e-6);
}

#[test]
fn whitened_joint_error_on_the_inputs_is_the_tail_of_the_singular_values_of_the_outputs() {
    let layer = dense_layer(GQA, 12);
    let x = hidden_states(50, GQA.hidden, 13);
    let mut calibration = Calibration::new(&layer).unwrap();
    calibration.observe(&layer, &x).unwrap();
    let x = tokens(&x, GQA.hidden);
    let rows = original_and_product(&layer, &convert(&layer, &plain(ROPE_DIM, 8), None).unwrap()).0;
    let outputs: Tokens =
        x.iter().map(|x| rows.iter().map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()).collect();
    let squares = squared_singular_values(outputs);
    for rank in [1, 5, 12, 20] {
        let converted = convert(&layer, &plain(ROPE_DIM, rank).with_whiten(true), Some(&calibration)).unwrap();
        let tail = squares[rank..].iter().sum::<f64>() / x.len() as f64;
        approx::assert_relative_eq!(squared_error_on(&layer, &converted, &x), tail, max_relative = 1e-3);
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1usize..4, 1usize..3, 4usize..8, 4usize..40).prop_map(|(kv_heads, group, half, hidden)| Shape {
        query_heads: kv_heads * group,
        kv_heads,
        head_dim: 2 * half,
        hidden,
        biased: false,
        normed: false,
    })
}

proptest! {
    #![proptest_config(fixed_cases(64))]

    #[test]
    fn joint_is_never_worse_than_split(shape in shapes(), share in 0.0f64..1.0, seed in any::<u64>()) {
        let layer = dense_layer(shape, seed);
        let rank = 1 + (share * (shape.full_rank(ROPE_DIM, Factorization::Joint) - 1) as f64) as usize;
        let error = |method| {
            let options = plain(ROPE_DIM, rank).with_factorization(method);
            squared_error(&layer, &convert(&layer, &options, None).unwrap())
        };
        let (joint, split) = (error(Factorization::Joint), error(Factorization::Split));
        prop_assert!(joint <= split * (1.0 + 1e-6) + 1e-10, "joint {} split {} at rank {}", joint, split, rank);
    }

    #[test]
    fn whitening_is_never_worse_on_the_inputs_it_has_seen(
        shape in shapes(),
        share in 0.0f64..1.0,
        token_count in 1usize..60,
        split in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let method = METHODS[usize::from(split)];
        let rank = 1 + (share * (shape.full_rank(ROPE_DIM, method) - 1) as f64) as usize;
        let layer = dense_layer(shape, seed);
        let states = hidden_states(token_count, shape.hidden, seed);
        let mut calibration = Calibration::new(&layer).unwrap();
        calibration.observe(&layer, &states).unwrap();
        let x = tokens(&states, shape.hidden);
        let plain = plain(ROPE_DIM, rank).with_factorization(method);
        let unwhitened = convert(&layer, &plain, None).unwrap();
        let whitened = convert(&layer, &plain.with_whiten(true), Some(&calibration)).unwrap();
        let (with, without) = (squared_error_on(&layer, &whitened, &x), squared_error_on(&layer, &unwhitened, &x));
        // The minimised function has a ridge of 1e-6 of the inputs' mean power on top.
        let power = x.iter().flatten().map(|x| x * x).sum::<f64>() / (x.len() * shape.hidden) as f64;
        let ridge = 1e-6 * power * squared_error(&layer, &unwhitened);
        prop_assert!(with <= without * (1.0 + 1e-6) + ridge + 1e-10, "{} against {} at rank {}", with, without, rank);
    }

    #[test]
    fn rows_of_a_joint_down_projection_are_orthonormal(
        shape in shapes(),
        share in 0.0f64..1.0,
        whiten in any::<bool>(),
        basis in 0usize..4,
        seed in any::<u64>(),
    ) {
        let rank = 1 + (share * (shape.full_rank(ROPE_DIM, Factorization::Joint) - 1) as f64) as usize;
        let layer = dense_layer(shape, seed);
        let options = ConvertOptions::new(ROPE_DIM, rank).with_whiten(whiten).with_basis(BASES[basis]);
        let converted = convert(&layer, &options, Some(&calibration(&layer, 30, seed))).unwrap();
        let distance = distance_from_orthonormal(&converted.down.weight, 0..rank);
        prop_assert!(distance < 1e-6, "{:e} at rank {}", distance, rank);
    }
}
