//! The inner product with a constant: what makes a given tensor the gradient of another.

use candle_core::{Result, Tensor, bail};

use super::node::{Value, by_type, common_type, node1, with_numbers};
use super::primitives::{self, by_hand};
use super::real::Real;

/// `sum(x * weights)`, a scalar whose gradient by `x` is `weights`, which are constant.
///
/// # Errors
/// If the shapes or types differ.
pub fn inner(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let dtype = common_type("inner product", &[x, weights])?;
    if x.dims() != weights.dims() {
        bail!("inner product of {:?} and {:?}", x.dims(), weights.dims())
    }
    if !by_hand(x) {
        return primitives::inner(x, weights);
    }
    by_type!(dtype, run(&x.contiguous()?, weights.detach().contiguous()?))
}

fn run<T: Real>(x: &Tensor, weights: Tensor) -> Result<Tensor> {
    let total = with_numbers([x, &weights], |[x, weights]: [&[T]; 2]| {
        Ok(x.iter().zip(weights).map(|(x, w)| x.to_f64() * w.to_f64()).sum::<f64>())
    })?;
    node1("inner product", x, Value::new(vec![T::from_f64(total)], ()), move |_, gradient| {
        Ok([Some(weights.broadcast_mul(gradient)?)])
    })
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, random};
    use super::*;

    #[test]
    fn gradients_are_the_weights() {
        let weights = random(2, &[3, 4]);
        check(&[random(1, &[3, 4])], |x| inner(&x[0], &weights));
        assert!(inner(&random(1, &[3, 4]), &random(1, &[4, 3])).is_err());
    }
}
