//! AdamW (arXiv 1711.05101) with its state in plain tensors, so that it can be saved.

use anyhow::{Context, Result, ensure};
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor, Var, bail};
use rayon::prelude::*;

use crate::ops::by_hand;
use crate::step::Gradients;

/// Numbers that one thread works on at a time.
const CHUNK: usize = 1 << 16;

/// How weights move.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub epsilon: f64,
    /// Share of a matrix that is taken from it in each step, times the learning rate. Vectors do not decay.
    pub weight_decay: f64,
    /// Gradients whose norm, over all of them, is larger are scaled down to it.
    pub clip: f64,
}

impl Default for AdamWOptions {
    /// Moments of 0.9 and 0.95, no decay, gradients clipped at a norm of 1.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0, clip: 1.0 }
    }
}

/// The optimiser's state: two moments for each trained tensor.
pub struct AdamW {
    options: AdamWOptions,
    moments: Vec<[Tensor; 2]>,
}

impl AdamW {
    /// A state of zeros.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(options: AdamWOptions, variables: &[(String, Tensor)]) -> Result<Self> {
        let zeros =
            |(_, variable): &(String, Tensor)| Ok([variable.zeros_like()?.detach(), variable.zeros_like()?.detach()]);
        Ok(Self { options, moments: variables.iter().map(zeros).collect::<Result<_>>()? })
    }

    /// The two moments of each variable, in the order of variables.
    #[must_use]
    pub fn moments(&self) -> &[[Tensor; 2]] {
        &self.moments
    }

    /// Takes over the moments of a checkpoint.
    ///
    /// # Errors
    /// If there are not as many, or their shapes differ.
    pub fn restore(&mut self, moments: Vec<[Tensor; 2]>) -> Result<()> {
        let fits = moments.len() == self.moments.len()
            && moments.iter().flatten().zip(self.moments.iter().flatten()).all(|(new, old)| new.dims() == old.dims());
        ensure!(fits, "the optimiser's state has another shape");
        self.moments = moments;
        Ok(())
    }

    /// One step, number `step` from 0, at the given learning rate.
    ///
    /// # Errors
    /// If a gradient has another shape than its variable. What is not finite is for the caller to refuse before.
    pub fn step(
        &mut self,
        variables: &[(String, Tensor)],
        gradients: &Gradients,
        norm: f64,
        rate: f64,
        step: u64,
    ) -> Result<()> {
        let o = self.options;
        ensure!(variables.len() == self.moments.len(), "the optimiser was made for other variables");
        let factor = if norm > o.clip { o.clip / norm } else { 1.0 };
        let exponent = i32::try_from(step + 1).context("too many steps")?;
        let corrections = [o.beta1, o.beta2].map(|beta| 1.0 - beta.powi(exponent));
        for ((name, variable), moments) in variables.iter().zip(&mut self.moments) {
            let zeros;
            let gradient = match gradients.get(variable) {
                Some(gradient) => gradient.contiguous()?,
                None => {
                    zeros = variable.zeros_like()?.detach();
                    zeros
                }
            };
            let averages =
                [Average { beta: o.beta1, factor, square: false }, Average { beta: o.beta2, factor, square: true }];
            let decay = if variable.rank() > 1 { rate * o.weight_decay } else { 0.0 };
            let update = Update {
                decay: (1.0 - decay) as f32,
                rate: (rate / corrections[0]) as f32,
                correction: (1.0 / corrections[1]) as f32,
                epsilon: o.epsilon as f32,
            };
            let moved = if by_hand(variable) {
                in_place(variable, &gradient, moments, &averages, &update)
            } else {
                by_candle(variable, &gradient, moments, &averages, &update)
            };
            moved.with_context(|| format!("updating {name}"))?;
        }
        Ok(())
    }
}

fn in_place(
    variable: &Tensor,
    gradient: &Tensor,
    moments: &[Tensor; 2],
    averages: &[Average; 2],
    update: &Update,
) -> candle_core::Result<()> {
    for (moment, average) in moments.iter().zip(averages) {
        moment.inplace_op2(gradient, average)?;
    }
    variable.inplace_op3(&moments[0], &moments[1], update)
}

/// The same by candle's operations, on any device.
fn by_candle(
    variable: &Tensor,
    gradient: &Tensor,
    moments: &mut [Tensor; 2],
    averages: &[Average; 2],
    update: &Update,
) -> candle_core::Result<()> {
    for (moment, average) in moments.iter_mut().zip(averages) {
        let gradient = (gradient * average.factor)?;
        let gradient = if average.square { gradient.sqr()? } else { gradient };
        *moment = ((&*moment * average.beta)? + (gradient * (1.0 - average.beta))?)?;
    }
    let [first, second] = &*moments;
    let root = ((second * f64::from(update.correction))?.sqrt()? + f64::from(update.epsilon))?;
    let step = (first / root)? * f64::from(update.rate);
    Var::from_tensor(variable)?.set(&((variable.detach() * f64::from(update.decay))? - step)?)
}

/// The norm of all gradients together.
///
/// # Errors
/// If a gradient does not hold f32.
pub fn norm(variables: &[(String, Tensor)], gradients: &Gradients) -> Result<f64> {
    let mut total = 0.0;
    for gradient in variables.iter().filter_map(|(_, variable)| gradients.get(variable)) {
        let numbers: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
        let square = |chunk: &[f32]| chunk.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        // Collected before they are summed, so that the order does not depend on the cores.
        let parts: Vec<f64> = numbers.par_chunks(CHUNK).map(square).collect();
        total += parts.iter().sum::<f64>();
    }
    Ok(total.sqrt())
}

/// The learning rate as a share of its peak: up for `warmup` steps, then down along a cosine to `floor`.
#[must_use]
pub fn schedule(step: u64, steps: u64, warmup: u64, floor: f64) -> f64 {
    let up = (step + 1) as f64 / warmup.max(1) as f64;
    let cosine = 0.5 + 0.5 * (std::f64::consts::PI * step as f64 / steps.max(1) as f64).cos();
    up.min(1.0) * (floor + (1.0 - floor) * cosine)
}

/// The numbers of tensors that hold f32 one after the other.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("the optimiser takes contiguous f32"),
    }
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&mut data[start..end]),
        _ => bail!("the optimiser takes contiguous f32"),
    }
}

/// `mean = beta mean + (1 - beta) g`, of gradients `g` times a factor, or of their squares.
struct Average {
    beta: f64,
    factor: f64,
    square: bool,
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "moving average"
    }

    fn cpu_fwd(&self, mean: &mut CpuStorage, l1: &Layout, g: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
        let (mean, g) = (numbers_mut(mean, l1)?, numbers(g, l2)?);
        if mean.len() != g.len() {
            bail!("{} gradients of {} numbers", g.len(), mean.len())
        }
        let (beta, rest, factor, square) =
            (self.beta as f32, (1.0 - self.beta) as f32, self.factor as f32, self.square);
        mean.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(|(mean, g)| {
            for (mean, g) in mean.iter_mut().zip(g) {
                let g = g * factor;
                *mean = beta * *mean + rest * if square { g * g } else { g };
            }
        });
        Ok(())
    }
}

/// Moves the weights by the moments.
struct Update {
    decay: f32,
    rate: f32,
    correction: f32,
    epsilon: f32,
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "AdamW"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        l1: &Layout,
        first: &CpuStorage,
        l2: &Layout,
        second: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<()> {
        let (weights, first, second) = (numbers_mut(weights, l1)?, numbers(first, l2)?, numbers(second, l3)?);
        let moments = first.par_chunks(CHUNK).zip(second.par_chunks(CHUNK));
        weights.par_chunks_mut(CHUNK).zip(moments).for_each(|(weights, (first, second))| {
            for ((weight, first), second) in weights.iter_mut().zip(first).zip(second) {
                let step = self.rate * first / ((second * self.correction).sqrt() + self.epsilon);
                *weight = *weight * self.decay - step;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
#[path = "adamw_tests.rs"]
mod tests;
