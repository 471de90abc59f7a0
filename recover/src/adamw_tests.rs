use super::*;
use candle_core::Device;

use crate::frame::{variable, vector};
use crate::ops::primitives_tests::by_candle;

fn numbers_of(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn steps_are_those_of_the_paper() {
    five_steps();
    by_candle(five_steps);
}

fn five_steps() {
    let options = AdamWOptions { weight_decay: 0.1, clip: 2.0, ..AdamWOptions::default() };
    let matrix = vector(vec![1.0, -2.0], &Device::Cpu).unwrap().reshape((1, 2)).unwrap();
    let variables = vec![
        ("matrix".to_owned(), variable(&matrix).unwrap()),
        ("vector".to_owned(), variable(&vector(vec![3.0], &Device::Cpu).unwrap()).unwrap()),
    ];
    let mut optimiser = AdamW::new(options, &variables).unwrap();
    let (mut w, mut m, mut v) = ([1.0f64, -2.0, 3.0], [0.0f64; 3], [0.0f64; 3]);
    for step in 0..5u64 {
        // The gradient of half the square of each weight is the weight.
        let half = |i: usize| variables[i].1.sqr().unwrap().sum_all().unwrap().affine(0.5, 0.0).unwrap();
        let loss = (half(0) + half(1)).unwrap();
        let gradients = Gradients::of(loss.backward().unwrap(), &variables).unwrap();
        let norm = norm(&variables, &gradients).unwrap();
        let expected = w.iter().map(|w| w * w).sum::<f64>().sqrt();
        assert!((norm - expected).abs() < 1e-5, "{norm} {expected}");
        optimiser.step(&variables, &gradients, norm, 0.1, step).unwrap();
        let factor = (2.0 / expected).min(1.0);
        for i in 0..3 {
            let g = w[i] * factor;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let exponent = step as i32 + 1;
            let (m, v) = (m[i] / (1.0 - 0.9f64.powi(exponent)), v[i] / (1.0 - 0.95f64.powi(exponent)));
            let decay = if i < 2 { 0.01 } else { 0.0 };
            w[i] = w[i] * (1.0 - decay) - 0.1 * m / (v.sqrt() + 1e-8);
        }
        let got = [numbers_of(&variables[0].1), numbers_of(&variables[1].1)].concat();
        for (got, expected) in got.iter().zip(w) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "step {step}: {got}, not {expected}");
        }
    }
}

#[test]
fn the_rate_goes_up_and_then_down() {
    let rate = |step| schedule(step, 40, 8, 0.05);
    assert!((rate(0) - 0.125).abs() < 1e-12);
    assert!((1..7).all(|step| rate(step) > rate(step - 1)));
    assert!((9..40).all(|step| rate(step) < rate(step - 1)));
    assert!(rate(39) > 0.05 && rate(39) < 0.06);
}

#[test]
fn a_state_of_another_shape_is_refused() {
    let variables = |n: usize| vec![("v".to_owned(), variable(&vector(vec![0.0; n], &Device::Cpu).unwrap()).unwrap())];
    let mut optimiser = AdamW::new(AdamWOptions::default(), &variables(2)).unwrap();
    let other = AdamW::new(AdamWOptions::default(), &variables(3)).unwrap();
    assert!(optimiser.restore(other.moments).is_err() && optimiser.restore(Vec::new()).is_err());
}
