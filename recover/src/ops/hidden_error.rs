//! How far hidden states are from those of the original.

use candle_core::{Result, Tensor, bail};

use super::node::{Value, by_type, common_type, constant, node1, with_numbers};
use super::primitives::{self, by_hand};
use super::real::{Real, for_rows, sum};

/// The mean over tokens of `|x - target|^2 / |target|^2`, both `[tokens, hidden]`. The first token of each sequence of
/// `sequence` is left out: it is the same in every text, and its hidden state, on which attention rests when nothing else
/// fits, is larger by orders of magnitude. `target` is a constant.
///
/// # Errors
/// If the shapes differ or are no whole number of sequences of at least two tokens.
pub fn hidden_error(x: &Tensor, target: &Tensor, sequence: usize) -> Result<Tensor> {
    let dtype = common_type("hidden error", &[x, target])?;
    if x.dims() != target.dims() || x.rank() != 2 || sequence < 2 || x.dim(0)? % sequence != 0 {
        bail!("hidden error of {:?} and {:?} in sequences of {sequence}", x.dims(), target.dims())
    }
    if !by_hand(x) {
        return primitives::hidden_error(x, target, sequence);
    }
    by_type!(dtype, run(&x.contiguous()?, target.detach().contiguous()?, sequence))
}

/// What a token's square error is multiplied by.
#[inline(always)]
fn weight<T: Real>(target: &[T], count: usize) -> T {
    let norm = sum(
        target.len(),
        #[inline(always)]
        |i| target[i] * target[i],
    );
    // A hidden state of zeros has no relative error.
    if norm > T::zero() { T::one() / (norm * T::from_f64(count as f64)) } else { T::zero() }
}

fn run<T: Real>(x: &Tensor, target: Tensor, sequence: usize) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let count = tokens - tokens / sequence;
    let mut errors = vec![T::zero(); tokens];
    with_numbers([x, &target], |[x, target]: [&[T]; 2]| {
        for_rows(
            &mut errors,
            1,
            #[inline(always)]
            |row, out| {
                if row % sequence == 0 {
                    return;
                }
                let (x, target) = (&x[row * width..][..width], &target[row * width..][..width]);
                let square = sum(
                    width,
                    #[inline(always)]
                    |i| (x[i] - target[i]) * (x[i] - target[i]),
                );
                out[0] = square * weight(target, count);
            },
        );
        Ok(())
    })?;
    let total: f64 = errors.iter().map(|error| error.to_f64()).sum();
    node1("hidden error", x, Value::new(vec![T::from_f64(total)], ()), move |[x], gradient| {
        Ok([Some(backward::<T>(x, &target, gradient, sequence)?)])
    })
}

fn backward<T: Real>(x: &Tensor, target: &Tensor, gradient: &Tensor, sequence: usize) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let count = tokens - tokens / sequence;
    let factor = T::from_f64(2.0) * gradient.to_scalar::<T>()?;
    let mut out = vec![T::zero(); tokens * width];
    with_numbers([x, target], |[x, target]: [&[T]; 2]| {
        for_rows(
            &mut out,
            width,
            #[inline(always)]
            |row, out| {
                if row % sequence == 0 {
                    return;
                }
                let (x, target) = (&x[row * width..][..width], &target[row * width..][..width]);
                let factor = factor * weight(target, count);
                for ((out, x), target) in out.iter_mut().zip(x).zip(target) {
                    *out = factor * (*x - *target);
                }
            },
        );
        Ok(())
    })?;
    constant(Value::new(out, (tokens, width)))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let target = random(2, &[6, 5]);
        check(&[random(1, &[6, 5])], |x| hidden_error(&x[0], &target, 3));
    }

    #[test]
    fn it_is_relative_and_leaves_the_first_token_out() {
        let target = random(2, &[4, 5]);
        let error = |x: &Tensor| hidden_error(x, &target, 4).unwrap().to_scalar::<f64>().unwrap();
        assert!((error(&(&target * 1.5).unwrap()) - 0.25).abs() < 1e-14);
        let changed = Tensor::cat(&[&random(3, &[1, 5]), &target.narrow(0, 1, 3).unwrap()], 0).unwrap();
        assert_eq!(error(&changed), 0.0);
        assert!(hidden_error(&target, &target, 3).is_err() && hidden_error(&target, &target, 1).is_err());
    }
}
