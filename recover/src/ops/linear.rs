//! Linear maps, of frozen or of trainable weights.

use candle_core::{Result, Tensor, bail};

use super::node::{Gradients, Value, by_type, common_type, constant, node2, node3, with_numbers};
use super::primitives::{self, by_hand};
use super::product::{Cores, View, product};
use super::real::{Real, sum_rows};

/// `x w^T + bias`: `[tokens, inputs]` by `[outputs, inputs]` and `[outputs]` to `[tokens, outputs]`.
///
/// On the CPU, gradients are computed of those arguments that lead to a variable, and of no other: a frozen weight costs one
/// product in the backward pass, not two.
///
/// # Errors
/// If the shapes or types do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (dtype, (_, inputs), (outputs, expected)) =
        (common_type("linear map", &[&[x, weight], bias.as_slice()].concat())?, x.dims2()?, weight.dims2()?);
    if inputs != expected || bias.is_some_and(|bias| bias.dims() != [outputs]) {
        let bias = bias.map(Tensor::dims);
        bail!("linear map of {:?} by {:?} with bias {bias:?}", x.dims(), weight.dims())
    }
    if !by_hand(x) {
        return primitives::linear(x, weight, bias);
    }
    let bias = bias.map(Tensor::contiguous).transpose()?;
    by_type!(dtype, run(&x.contiguous()?, &weight.contiguous()?, bias.as_ref()))
}

fn run<T: Real>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((tokens, inputs), outputs) = (x.dims2()?, weight.dim(0)?);
    let mut out = match bias {
        Some(bias) => with_numbers([bias], |[bias]: [&[T]; 1]| Ok(bias.repeat(tokens)))?,
        None => vec![T::zero(); tokens * outputs],
    };
    with_numbers([x, weight], |[x, weight]| {
        let (x, weight) = (View::new(x, inputs), View::new(weight, inputs));
        product(x, weight.t(), &mut out, outputs, bias.is_some(), Cores::All);
        Ok(())
    })?;
    let value = Value::new(out, (tokens, outputs));
    match bias {
        None => node2("linear map", [x, weight], value, |[x, weight], gradient| factors(x, weight, gradient)),
        Some(bias) => node3("linear map", [x, weight, bias], value, |[x, weight, bias], gradient| {
            let [dx, dw] = factors(x, weight, gradient)?;
            let db = bias.track_op().then(|| columns::<T>(gradient)).transpose()?;
            Ok([dx, dw, db])
        }),
    }
}

/// The gradients of input and weight.
fn factors(x: &Tensor, weight: &Tensor, gradient: &Tensor) -> Result<Gradients<2>> {
    let dx = x.track_op().then(|| gradient.matmul(&weight.detach())).transpose()?;
    let dw = weight.track_op().then(|| gradient.t()?.matmul(&x.detach())).transpose()?;
    Ok([dx, dw])
}

/// Sums over tokens.
fn columns<T: Real>(gradient: &Tensor) -> Result<Tensor> {
    let (tokens, width) = gradient.dims2()?;
    with_numbers([gradient], |[gradient]: [&[T]; 1]| {
        let sum = sum_rows(tokens, width, |row, sum: &mut [T]| {
            sum.iter_mut().zip(&gradient[row * width..]).for_each(|(sum, g)| *sum += *g);
        });
        constant(Value::new(sum, width))
    })
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let (x, w, b) = (random(1, &[5, 4]), random(2, &[3, 4]), random(3, &[3]));
        check(&[x.clone(), w.clone()], |a| linear(&a[0], &a[1], None));
        check(&[x.clone(), w.clone(), b.clone()], |a| linear(&a[0], &a[1], Some(&a[2])));
        let got: Vec<Vec<f64>> = linear(&x, &w, Some(&b)).unwrap().to_vec2().unwrap();
        let expected: Vec<Vec<f64>> = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap().to_vec2().unwrap();
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert!((got - expected).abs() < 1e-14);
        }
    }

    #[test]
    fn shapes_are_checked() {
        let error = linear(&random(1, &[5, 4]), &random(2, &[3, 5]), None).unwrap_err().to_string();
        assert!(error.contains("[5, 4]") && error.contains("[3, 5]"), "{error}");
        assert!(linear(&random(1, &[5, 4]), &random(2, &[3, 4]), Some(&random(1, &[4]))).is_err());
    }
}
