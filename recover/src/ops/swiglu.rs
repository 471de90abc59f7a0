//! The gated activation of Llama's MLP.

use candle_core::{Result, Tensor, bail};

use super::node::{Value, by_type, common_type, constant, node1, with_numbers};
use super::primitives::{self, by_hand};
use super::real::{Real, for_rows};

/// `silu(gate) * up`: `[tokens, 2 width]`, gates first, to `[tokens, width]`.
///
/// # Errors
/// If the width is odd, or the type is neither f32 nor f64.
pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    let (dtype, (_, width)) = (common_type("swiglu", &[x])?, x.dims2()?);
    if width % 2 != 0 {
        bail!("swiglu of an odd width, {width}")
    }
    if !by_hand(x) {
        return primitives::swiglu(x);
    }
    by_type!(dtype, run(&x.contiguous()?))
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

fn run<T: Real>(x: &Tensor) -> Result<Tensor> {
    let (tokens, both) = x.dims2()?;
    let width = both / 2;
    let mut out = vec![T::zero(); tokens * width];
    with_numbers([x], |[x]: [&[T]; 1]| {
        for_rows(
            &mut out,
            width,
            #[inline(always)]
            |row, out| {
                let (gate, up) = x[row * both..][..both].split_at(width);
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = *gate * sigmoid(*gate) * *up;
                }
            },
        );
        Ok(())
    })?;
    node1("swiglu", x, Value::new(out, (tokens, width)), |[x], gradient| Ok([Some(backward::<T>(x, gradient)?)]))
}

fn backward<T: Real>(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (tokens, both) = x.dims2()?;
    let width = both / 2;
    let mut out = vec![T::zero(); tokens * both];
    with_numbers([x, gradient], |[x, gradient]: [&[T]; 2]| {
        for_rows(
            &mut out,
            both,
            #[inline(always)]
            |row, out| {
                let (gate, up) = x[row * both..][..both].split_at(width);
                let (by_gate, by_up) = out.split_at_mut(width);
                let gradient = &gradient[row * width..][..width];
                for i in 0..width {
                    let s = sigmoid(gate[i]);
                    by_gate[i] = gradient[i] * up[i] * s * (T::one() + gate[i] * (T::one() - s));
                    by_up[i] = gradient[i] * gate[i] * s;
                }
            },
        );
        Ok(())
    })?;
    constant(Value::new(out, (tokens, both)))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        check(&[(random(1, &[3, 14]) * 3.0).unwrap()], |x| swiglu(&x[0]));
        assert!(swiglu(&random(1, &[3, 5])).is_err());
    }
}
