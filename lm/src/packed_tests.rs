use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::noise::noise;

/// Sums of 576 products that differ in their order alone: half an ulp of f32 (2^-24) for each of the steps that a number
/// passes, relative to the sum of the products' sizes.
const BOUND: f64 = 1e-5;

fn random(rows: usize, cols: usize) -> Vec<f32> {
    let mut noise = noise(7);
    (0..rows * cols).map(|i| noise() * (1.0 + (i / 100 % 5) as f32)).collect()
}

fn vector(cols: usize) -> Vec<f32> {
    let mut noise = noise(11);
    (0..cols).map(|_| noise() + 0.25).collect()
}

fn check(name: &str, got: &[f32], weights: &[f32], x: &[f32], bound: f64) {
    assert_eq!(got.len(), weights.len() / x.len());
    for (row, (got, weights)) in got.iter().zip(weights.chunks_exact(x.len())).enumerate() {
        let products = || weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
        let (want, size): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
        let error = (f64::from(*got) - want).abs() / size;
        assert!(error < bound, "{name}, row {row}: {got} is not {want}, by {error:e}");
    }
}

/// A matrix as candle quantises it, and the numbers that candle dequantises of it.
fn quantized(format: BlockFormat, rows: usize, cols: usize) -> (QuantizedMatrix, Vec<f32>) {
    let dtype = match format {
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_1 => GgmlDType::Q4_1,
        _ => GgmlDType::Q8_0,
    };
    let numbers = Tensor::from_vec(random(rows, cols), (rows, cols), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&numbers, dtype).unwrap();
    let bytes = tensor.data().unwrap().to_vec();
    let numbers = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (QuantizedMatrix { format, rows, cols, bytes }, numbers)
}

#[test]
fn products_are_those_of_the_dequantised_matrix() {
    for format in [BlockFormat::Q4_0, BlockFormat::Q4_1, BlockFormat::Q8_0] {
        // Tiles that are not full, and matrices of more than one task.
        for (rows, cols) in [(1, 32), (15, 64), (16, 96), (17, 576), (300, 576)] {
            let (matrix, numbers) = quantized(format, rows, cols);
            let packed = Packed::of_blocks(&matrix).unwrap().unwrap();
            assert_eq!(packed.shape(), (rows, cols));
            let x = vector(cols);
            let products = Packed::apply(&[&packed], &x);
            check(&format!("{format:?} [{rows}, {cols}]"), &products[0], &numbers, &x, BOUND);
        }
    }
}

#[test]
fn several_matrices_at_once_are_each_by_itself_whatever_the_threads() {
    let matrices = [(BlockFormat::Q4_1, 700), (BlockFormat::Q8_0, 33), (BlockFormat::Q4_0, 16)];
    let packed = matrices.map(|(format, rows)| Packed::of_blocks(&quantized(format, rows, 576).0).unwrap().unwrap());
    let x = vector(576);
    let alone: Vec<_> = packed.iter().map(|matrix| Packed::apply(&[matrix], &x).remove(0)).collect();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool.install(|| Packed::apply(&packed.iter().collect::<Vec<_>>(), &x));
        assert_eq!(together, alone);
    }
}

#[test]
fn rounding_costs_half_a_code_a_number() {
    let (rows, cols) = (40, 576);
    let numbers = random(rows, cols);
    let packed = Packed::rounded(&Matrix::new(rows, cols, numbers.clone()).unwrap()).unwrap();
    // Unit vectors give the numbers back.
    for column in (0..cols).step_by(7) {
        let mut x = vec![0.0; cols];
        x[column] = 1.0;
        let got = Packed::apply(&[&packed], &x).remove(0);
        for (row, got) in got.iter().enumerate() {
            let group = &numbers[row * cols + column / GROUP * GROUP..][..GROUP];
            let largest = group.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            // Half a step of 127, and what the scale loses as an f16 (2^-11).
            let bound = largest * (0.5 / 127.0 + 1.0 / 2048.0);
            let want = numbers[row * cols + column];
            assert!((got - want).abs() <= bound, "{got} is not {want} within {bound}");
        }
    }
}

#[test]
fn what_codes_cannot_hold_is_left_dense() {
    let of = |cols, value: f32| Packed::rounded(&Matrix::from_fn(2, cols, |_, col| if col == 3 { value } else { 1.0 }));
    assert!(of(64, 1.0).is_some());
    for (cols, value) in [(40, 1.0), (64, f32::NAN), (64, f32::INFINITY), (64, 1e9)] {
        assert!(of(cols, value).is_none(), "{cols} columns, {value}");
    }
    let zero = Packed::rounded(&Matrix::from_fn(2, 32, |_, _| 0.0)).unwrap();
    assert_eq!(Packed::apply(&[&zero], &[1.0; 32]), [[0.0; 2]]);
}

#[test]
fn damaged_blocks_are_refused() {
    let (mut matrix, _) = quantized(BlockFormat::Q4_1, 2, 64);
    matrix.bytes[0..2].copy_from_slice(&f16::INFINITY.to_bits().to_le_bytes());
    let message = Packed::of_blocks(&matrix).unwrap_err().to_string();
    assert!(message.contains("row 0") && message.contains("not finite"), "{message}");
    matrix.bytes.pop();
    let message = Packed::of_blocks(&matrix).unwrap_err().to_string();
    assert_eq!(message, "79 bytes do not make 2 rows of 64 numbers in Q4_1");
}

#[test]
fn every_finite_half_is_widened_exactly() {
    for bits in 0..=u16::MAX {
        let half = f16::from_bits(bits);
        if half.is_finite() {
            assert_eq!(widened(bits).to_bits(), half.to_f32().to_bits(), "{bits:#06x}");
        }
    }
}
