//! The root-mean-square norm.

use candle_core::{Result, Tensor, bail};

use super::node::{Value, by_type, common_type, constant, node2, with_numbers};
use super::primitives::{self, by_hand};
use super::real::{Real, for_rows, sum, sum_rows};

/// `x / sqrt(mean(x^2) + epsilon) * gain` for every row of `[tokens, width]`; `gain` is `[width]`.
///
/// # Errors
/// If the shapes or types do not fit.
pub fn rms_norm(x: &Tensor, gain: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (dtype, (_, width)) = (common_type("norm", &[x, gain])?, x.dims2()?);
    if gain.dims() != [width] {
        bail!("norm of {:?} with a gain of {:?}", x.dims(), gain.dims())
    }
    if !by_hand(x) {
        return primitives::rms_norm(x, gain, epsilon);
    }
    by_type!(dtype, run(&x.contiguous()?, &gain.contiguous()?, epsilon))
}

/// One divided by the root of the mean square.
#[inline(always)]
fn inverse<T: Real>(x: &[T], epsilon: f64) -> T {
    let mean = sum(x.len(), |i| x[i] * x[i]) / T::from_f64(x.len() as f64);
    T::one() / (mean + T::from_f64(epsilon)).sqrt()
}

fn run<T: Real>(x: &Tensor, gain: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let mut out = vec![T::zero(); tokens * width];
    with_numbers([x, gain], |[x, gain]: [&[T]; 2]| {
        for_rows(
            &mut out,
            width,
            #[inline(always)]
            |row, out| {
                let x = &x[row * width..][..width];
                let inverse = inverse(x, epsilon);
                for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
                    *out = *x * inverse * *gain;
                }
            },
        );
        Ok(())
    })?;
    node2("norm", [x, gain], Value::new(out, (tokens, width)), move |[x, gain], gradient| {
        let dx = x.track_op().then(|| by_input::<T>(x, gain, gradient, epsilon)).transpose()?;
        let dg = gain.track_op().then(|| by_gain::<T>(x, gradient, epsilon)).transpose()?;
        Ok([dx, dg])
    })
}

fn by_input<T: Real>(x: &Tensor, gain: &Tensor, gradient: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let mut out = vec![T::zero(); tokens * width];
    with_numbers([x, gain, gradient], |[x, gain, gradient]: [&[T]; 3]| {
        for_rows(
            &mut out,
            width,
            #[inline(always)]
            |row, out| {
                let (x, gradient) = (&x[row * width..][..width], &gradient[row * width..][..width]);
                let inverse = inverse(x, epsilon);
                let dot = sum(
                    width,
                    #[inline(always)]
                    |i| gradient[i] * gain[i] * x[i],
                );
                let shift = inverse * inverse * dot / T::from_f64(width as f64);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = inverse * (gradient[i] * gain[i] - x[i] * shift);
                }
            },
        );
        Ok(())
    })?;
    constant(Value::new(out, (tokens, width)))
}

fn by_gain<T: Real>(x: &Tensor, gradient: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    with_numbers([x, gradient], |[x, gradient]: [&[T]; 2]| {
        let sum = sum_rows(tokens, width, |row, sum: &mut [T]| {
            let (x, gradient) = (&x[row * width..][..width], &gradient[row * width..][..width]);
            let inverse = inverse(x, epsilon);
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += gradient[i] * x[i] * inverse;
            }
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
        check(&[random(1, &[4, 37]), random(2, &[37])], |a| rms_norm(&a[0], &a[1], 1e-3));
    }

    #[test]
    fn a_norm_is_what_it_says() {
        let out: Vec<f64> =
            rms_norm(&random(1, &[1, 7]), &random(2, &[7]), 0.5).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let x: Vec<f64> = random(1, &[7]).to_vec1().unwrap();
        let gain: Vec<f64> = random(2, &[7]).to_vec1().unwrap();
        let root = (x.iter().map(|x| x * x).sum::<f64>() / 7.0 + 0.5).sqrt();
        for i in 0..7 {
            assert!((out[i] - x[i] / root * gain[i]).abs() < 1e-14);
        }
    }
}
