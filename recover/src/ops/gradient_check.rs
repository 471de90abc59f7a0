//! Gradients against finite differences, for the operations' tests.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::inner::inner;

/// Numbers in -1..1 that look random: the fractional parts of a chaotic sequence.
pub fn noise(seed: u32, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 23) - 1.0
    };
    (0..count).map(next).collect()
}

/// A tensor of [`noise`], f64.
pub fn random(seed: u32, shape: &[usize]) -> Tensor {
    Tensor::from_vec(noise(seed, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// Checks the gradients of `f` at `arguments`, f64 all, by central differences: those of all arguments together, and those
/// of each alone while the others are constants.
pub fn check(arguments: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let value = f(arguments).unwrap();
    assert!(!value.track_op(), "constants make a constant");
    assert_eq!(value.dtype(), DType::F64);
    let weights = random(99, value.dims());
    let loss = |arguments: &[Tensor]| -> f64 {
        let product = (f(arguments).unwrap() * &weights).unwrap();
        product.sum_all().unwrap().to_scalar().unwrap()
    };
    let numerical = |which: usize| -> Vec<f64> {
        let numbers: Vec<f64> = arguments[which].flatten_all().unwrap().to_vec1().unwrap();
        let at = |i: usize, step: f64| {
            let mut moved = numbers.clone();
            moved[i] += step;
            let mut arguments = arguments.to_vec();
            arguments[which] = Tensor::from_vec(moved, arguments[which].shape(), &Device::Cpu).unwrap();
            loss(&arguments)
        };
        (0..numbers.len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP)).collect()
    };
    let numerical: Vec<Vec<f64>> = (0..arguments.len()).map(numerical).collect();
    let everything: Vec<usize> = (0..arguments.len()).collect();
    let alone = (0..arguments.len()).map(|i| vec![i]);
    for variables in alone.chain([everything]) {
        let variable =
            |i: usize| variables.contains(&i).then(|| Var::from_tensor(&arguments[i].copy().unwrap()).unwrap());
        let held: Vec<Option<Var>> = (0..arguments.len()).map(variable).collect();
        let mixed: Vec<Tensor> = held
            .iter()
            .zip(arguments)
            .map(|(var, constant)| var.as_ref().map_or_else(|| constant.clone(), |var| var.as_tensor().clone()))
            .collect();
        let result = f(&mixed).unwrap();
        let same: Vec<f64> = result.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(same, value.flatten_all().unwrap().to_vec1::<f64>().unwrap(), "the same value with a graph");
        let gradients = inner(&result, &weights).unwrap().backward().unwrap();
        for (i, var) in held.iter().enumerate() {
            let Some(var) = var else {
                assert!(gradients.get(&mixed[i]).is_none(), "a constant has no gradient");
                continue;
            };
            let got: Vec<f64> = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let scale = numerical[i].iter().fold(1.0, |scale: f64, g| scale.max(g.abs()));
            for (j, (got, expected)) in got.iter().zip(&numerical[i]).enumerate() {
                let error = (got - expected).abs();
                assert!(error < 1e-7 * scale, "argument {i}, element {j}: {got}, by differences {expected}");
            }
        }
    }
}
