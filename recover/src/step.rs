//! One step's loss and gradients, block by block.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use latent_attention::cache::CacheFormat;

use crate::frame::variable;
use crate::ops::{divergence, hidden_error, inner};
use crate::original::Original;
use crate::student::Student;

/// What a step learns from.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Sequences of equal length, one after the other.
    pub tokens: Vec<u32>,
    /// Tokens per sequence.
    pub sequence: usize,
    /// Rows of `tokens` whose predictions are compared.
    pub positions: Vec<u32>,
}

/// What there is to lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The mean divergence of the student's predictions from the original's, in nats.
    pub divergence: f64,
    /// The relative square error of the hidden states, mean over layers and tokens.
    pub hidden: f64,
}

/// A block on the way back: what it read, a variable, and what it made of that.
struct Kept {
    input: Tensor,
    output: Tensor,
}

/// Gradients by the tensors they belong to.
#[derive(Default)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// Those of the given variables.
    ///
    /// # Errors
    /// None that input can cause.
    pub fn of(mut store: GradStore, variables: &[(String, Tensor)]) -> Result<Self> {
        let mut gradients = Self::default();
        gradients.add(&mut store, variables)?;
        Ok(gradients)
    }

    fn add(&mut self, store: &mut GradStore, variables: &[(String, Tensor)]) -> Result<()> {
        for (_, variable) in variables {
            let Some(gradient) = store.remove(variable) else { continue };
            let gradient = match self.0.remove(&variable.id()) {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            };
            self.0.insert(variable.id(), gradient.detach());
        }
        Ok(())
    }

    /// The gradient of a variable; `None` if the loss does not depend on it.
    #[must_use]
    pub fn get(&self, variable: &Tensor) -> Option<&Tensor> {
        self.0.get(&variable.id())
    }
}

/// The loss of a batch, divergence plus hidden-state error, and its gradients by the student's variables.
///
/// The graph of a block ends at its input, so the backward pass frees one block after the other. With `recompute`
/// (gradient checkpointing), only the blocks' inputs are kept and each graph is made when its turn comes, which costs one
/// more forward pass and gives the same bits.
///
/// # Errors
/// If the batch does not fit the models.
pub fn step(
    original: &Original,
    student: &Student,
    batch: &Batch,
    cache: Option<CacheFormat>,
    recompute: bool,
) -> Result<(Loss, Gradients)> {
    let (frame, variables) = (student.frame(), student.variables());
    let rows = Tensor::new(batch.positions.as_slice(), frame.device())?;
    let layers = frame.layers();
    let mut targets = Vec::with_capacity(layers);
    let last = original.forward(&batch.tokens, batch.sequence, |_, _, hidden| {
        targets.push(hidden.clone());
        Ok(())
    })?;
    let target = original.frame().final_norm(&last.index_select(&rows, 0)?)?;

    let embedded = frame.embed(&batch.tokens)?;
    let mut x = embedded.detach();
    let mut kept = Vec::with_capacity(layers);
    for layer in 0..layers {
        if recompute {
            kept.push(Kept { input: x.clone(), output: x.clone() });
            x = student.block(layer, &x, batch.sequence, cache)?.detach();
        } else {
            let input = variable(&x)?;
            let output = student.block(layer, &input, batch.sequence, cache)?;
            x = output.detach();
            kept.push(Kept { input, output });
        }
    }

    let mut gradients = Gradients::default();
    let mut backward = |loss: &Tensor, input: Option<&Tensor>| -> Result<Option<Tensor>> {
        let mut store = loss.backward()?;
        gradients.add(&mut store, &variables)?;
        input
            .map(|input| store.remove(input).map(|g| g.detach()).context("a block's input has no gradient"))
            .transpose()
    };
    let x = variable(&x)?;
    let predicted = frame.final_norm(&x.index_select(&rows, 0)?)?;
    let divergence = divergence((&predicted, frame.head()), (&target, original.frame().head()))?;
    let mut upstream = backward(&divergence, Some(&x))?.context("the last hidden states have no gradient")?;
    drop((x, predicted));

    let (share, mut hidden) = (1.0 / layers.max(1) as f64, 0.0);
    for (layer, Kept { input, output }) in kept.into_iter().enumerate().rev() {
        let (input, output) = if recompute {
            drop(output);
            let input = variable(&input)?;
            let output = student.block(layer, &input, batch.sequence, cache)?;
            (input, output)
        } else {
            (input, output)
        };
        let error = (hidden_error(&output, &targets[layer], batch.sequence)? * share)?;
        hidden += number(&error)?;
        let loss = (inner(&output, &upstream)? + error)?;
        drop(output);
        upstream = backward(&loss, Some(&input))?.context("a block's input has no gradient")?;
        targets.truncate(layer);
    }
    if embedded.track_op() {
        backward(&inner(&embedded, &upstream)?, None)?;
    }
    Ok((Loss { divergence: number(&divergence)?, hidden }, gradients))
}

/// The number that a scalar tensor holds.
fn number(tensor: &Tensor) -> Result<f64> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}
