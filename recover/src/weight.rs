//! A weight of the student: frozen, trained itself, or by a low-rank addition (LoRA, arXiv 2106.09685).

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::frame::variable;

/// How a weight takes part in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    /// Not at all.
    Frozen,
    /// All of its numbers.
    Full,
    /// It stays, and the product of two matrices of this rank is added.
    LowRank(usize),
}

/// `up down`, added to a weight.
struct Addition {
    /// `[rank, inputs]`.
    down: Tensor,
    /// `[outputs, rank]`.
    up: Tensor,
}

/// A matrix `[outputs, inputs]`.
pub struct Weight {
    name: &'static str,
    base: Tensor,
    addition: Option<Addition>,
}

impl Weight {
    /// A weight that begins as `base`. Of a low-rank addition, `down` is drawn from `random`, uniformly in
    /// `+-1/sqrt(inputs)`, and `up` is zero, so that the weight is `base` at first. A rank beyond that of the matrix is cut
    /// to it.
    ///
    /// # Errors
    /// If the rank is 0.
    pub fn new(name: &'static str, base: Tensor, training: Training, random: &mut ChaCha8Rng) -> Result<Self> {
        let (outputs, inputs) = base.dims2()?;
        match training {
            Training::Frozen => Ok(Self { name, base, addition: None }),
            Training::Full => Ok(Self { name, base: variable(&base)?, addition: None }),
            Training::LowRank(rank) => {
                ensure!(rank > 0, "the rank of an addition must be at least 1");
                let rank = rank.min(outputs).min(inputs);
                let bound = 1.0 / (inputs as f32).sqrt();
                let numbers: Vec<f32> = (0..rank * inputs).map(|_| random.random_range(-bound..bound)).collect();
                let down = variable(&Tensor::from_vec(numbers, (rank, inputs), base.device())?)?;
                let up = variable(&Tensor::zeros((outputs, rank), base.dtype(), base.device())?)?;
                Ok(Self { name, base, addition: Some(Addition { down, up }) })
            }
        }
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        self.base.device()
    }

    /// The matrix that the student multiplies by.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn effective(&self) -> Result<Tensor> {
        Ok(match &self.addition {
            None => self.base.clone(),
            Some(addition) => (&self.base + addition.up.matmul(&addition.down)?)?,
        })
    }

    /// Its tensors by name.
    pub fn visit(&self, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&format!("{}.weight", self.name), &self.base);
        if let Some(Addition { down, up }) = &self.addition {
            f(&format!("{}.lora_down", self.name), down);
            f(&format!("{}.lora_up", self.name), up);
        }
    }
}
