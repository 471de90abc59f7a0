//! The converted model as it is trained: latent attention with the cache in the loop.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::{LatentAttention, Linear, Matrix};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::frame::{Frame, matrix, variable, vector};
use crate::ops::{Rotation, Stored, StoredPart, fake_quantise, latent_attention, linear, rotate};
use crate::weight::{Training, Weight};

/// Which weights are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Those of the attention, biases included.
    Attention,
    /// Low-rank additions to the matrices of the attention; everything else is frozen.
    LowRank {
        /// Rank of each addition.
        rank: usize,
    },
    /// All of the model.
    Everything,
}

impl Mode {
    fn attention(self) -> Training {
        match self {
            Self::Attention | Self::Everything => Training::Full,
            Self::LowRank { rank } => Training::LowRank(rank),
        }
    }
}

/// The biases of a layer, by name, in the order of [`BIASES`].
const BIASES: [&str; 7] =
    ["query_rope.bias", "query_nope.bias", "key_rope.bias", "down.bias", "latent_bias", "value_bias", "output.bias"];

/// One layer's attention.
struct Layer {
    geometry: Geometry,
    frequencies: FrequencyIndex,
    pairing: Pairing,
    scale: f64,
    hidden: usize,
    rotation: Rotation,
    /// What reads the hidden state: rotated and unrotated queries, rotated key, latent. A part without rows is absent.
    inputs: [Option<Weight>; 4],
    /// Key and value up-projection.
    ups: [Option<Weight>; 2],
    output: Weight,
    biases: [Option<Tensor>; 7],
    /// Which biases are there but have no numbers, as those of a part without rows.
    empty: [bool; 7],
}

impl Layer {
    fn new(
        weights: &LatentAttention,
        tables: &Arc<RopeTables>,
        training: Training,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Result<Self> {
        weights.validate()?;
        ensure!(weights.query_down.is_none(), "a low-rank query (`query_down`) cannot be trained here");
        ensure!(weights.latent_norm.is_none(), "a norm on the latent (`latent_norm`) cannot be trained here");
        ensure!(weights.head_norms.is_none(), "norms over heads (`head_norms`) cannot be trained here");
        let g = weights.geometry;
        let key_start = g.query_heads * (g.rope_dim + g.nope_dim);
        let queries =
            (0..g.query_heads).map(|head| (head * g.rope_dim, weights.frequencies.head(g.rope_head_of(head))));
        let keys = (0..g.rope_heads).map(|head| (key_start + head * g.rope_dim, weights.frequencies.head(head)));
        let rotation = Rotation::new(tables.clone(), queries.chain(keys), g.rope_dim, weights.pairing)?;
        let mut weight = |name, from: &Matrix| -> Result<Option<Weight>> {
            match from.rows() {
                0 => Ok(None),
                _ => Weight::new(name, matrix(from.clone(), device)?, training, random).map(Some),
            }
        };
        let inputs = [
            weight("query_rope", &weights.query_rope.weight)?,
            weight("query_nope", &weights.query_nope.weight)?,
            weight("key_rope", &weights.key_rope.weight)?,
            weight("down", &weights.down.weight)?,
        ];
        let ups = [weight("up_key", &weights.up_key)?, weight("up_value", &weights.up_value)?];
        let output = weight("output", &weights.output.weight)?.context("the output projection has no rows")?;
        let given = [
            &weights.query_rope.bias,
            &weights.query_nope.bias,
            &weights.key_rope.bias,
            &weights.down.bias,
            &weights.latent_bias,
            &weights.value_bias,
            &weights.output.bias,
        ];
        let mut biases = [const { None }; 7];
        for (bias, given) in biases.iter_mut().zip(given) {
            let numbers = given.clone().filter(|bias| !bias.is_empty()).map(|bias| vector(bias, device)).transpose()?;
            *bias = match training {
                Training::Full => numbers.as_ref().map(variable).transpose()?,
                Training::Frozen | Training::LowRank(_) => numbers,
            };
        }
        let empty = given.map(|bias| bias.as_ref().is_some_and(Vec::is_empty));
        Ok(Self {
            geometry: g,
            frequencies: weights.frequencies.clone(),
            pairing: weights.pairing,
            scale: weights.scale,
            hidden: weights.hidden(),
            rotation,
            inputs,
            ups,
            output,
            biases,
            empty,
        })
    }

    /// Rows of the four inputs.
    fn input_rows(&self) -> [usize; 4] {
        let g = &self.geometry;
        [g.query_heads * g.rope_dim, g.query_heads * g.nope_dim, g.rope_width(), g.latent_rank]
    }

    /// The biases of the inputs one after the other, that of the latent included; `None` if there is none.
    fn input_bias(&self) -> Result<Option<Tensor>> {
        if self.biases[..5].iter().all(Option::is_none) {
            return Ok(None);
        }
        let rows = self.input_rows();
        let mut parts = Vec::new();
        for (bias, rows) in self.biases.iter().zip(rows).filter(|(_, rows)| *rows > 0) {
            parts.push(match bias {
                Some(bias) => bias.clone(),
                None => Tensor::zeros(rows, DType::F32, self.output.device())?,
            });
        }
        if let (Some(latent), Some(last)) = (&self.biases[4], parts.last_mut()) {
            *last = (&*last + latent)?;
        }
        Ok(Some(Tensor::cat(&parts, 0)?))
    }

    /// What of a projected token goes through the cache, and in which format.
    fn stored(&self, format: CacheFormat) -> Arc<[StoredPart]> {
        let [q_rope, q_nope, k_rope, latent] = self.input_rows();
        let start = q_rope + q_nope;
        let rope = StoredPart { columns: start..start + k_rope, stored: Stored::rope(format) };
        let latent =
            StoredPart { columns: rope.columns.end..rope.columns.end + latent, stored: Stored::latent(format) };
        [rope, latent].into()
    }

    fn forward(&self, x: &Tensor, sequence: usize, cache: Option<CacheFormat>) -> Result<Tensor> {
        let inputs = joint(&self.inputs)?;
        let mut projected = linear(x, &inputs, self.input_bias()?.as_ref())?;
        projected = rotate(&projected, &self.rotation, sequence)?;
        if let Some(format) = cache {
            projected = fake_quantise(&projected, &self.stored(format))?;
        }
        let mut heads = latent_attention(&projected, &joint(&self.ups)?, &self.geometry, self.scale, sequence)?;
        if let Some(bias) = &self.biases[5] {
            // The weights of a token's attention sum to one, so a constant on every value is one on the result.
            let g = &self.geometry;
            let groups: Vec<u32> = (0..g.query_heads).map(|head| g.kv_head_of(head) as u32).collect();
            let bias =
                bias.reshape((g.kv_heads, g.value_dim))?.index_select(&Tensor::new(groups, bias.device())?, 0)?;
            heads = heads.broadcast_add(&bias.flatten_all()?)?;
        }
        Ok(linear(&heads, &self.output.effective()?, self.biases[6].as_ref())?)
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &Tensor)) {
        for weight in self.inputs.iter().chain(&self.ups).flatten().chain([&self.output]) {
            weight.visit(f);
        }
        for (name, bias) in BIASES.iter().zip(&self.biases) {
            if let Some(bias) = bias {
                f(name, bias);
            }
        }
    }

    fn to_latent(&self) -> Result<LatentAttention> {
        let g = self.geometry;
        let matrix = |weight: Option<&Weight>, cols: usize| -> Result<Matrix> {
            let Some(weight) = weight else { return Ok(Matrix::new(0, cols, Vec::new())?) };
            let weight = weight.effective()?;
            let (rows, cols) = weight.dims2()?;
            Ok(Matrix::new(rows, cols, weight.flatten_all()?.to_vec1()?)?)
        };
        let bias = |index: usize| match (&self.biases[index], self.empty[index]) {
            (Some(bias), _) => bias.to_vec1().map(Some),
            (None, empty) => Ok(empty.then(Vec::new)),
        };
        let input = |index: usize| -> Result<Linear> {
            Ok(Linear { weight: matrix(self.inputs[index].as_ref(), self.hidden)?, bias: bias(index)? })
        };
        Ok(LatentAttention {
            geometry: g,
            query_down: None,
            query_rope: input(0)?,
            query_nope: input(1)?,
            key_rope: input(2)?,
            down: input(3)?,
            latent_norm: None,
            latent_bias: bias(4)?,
            up_key: matrix(self.ups[0].as_ref(), g.latent_rank)?,
            up_value: matrix(self.ups[1].as_ref(), g.latent_rank)?,
            value_bias: bias(5)?,
            output: Linear { weight: matrix(Some(&self.output), g.query_heads * g.value_dim)?, bias: bias(6)? },
            frequencies: self.frequencies.clone(),
            pairing: self.pairing,
            scale: self.scale,
            head_norms: None,
        })
    }
}

/// The rows of those matrices that are there, one after the other.
fn joint(weights: &[Option<Weight>]) -> Result<Tensor> {
    let parts = weights.iter().flatten().map(Weight::effective).collect::<Result<Vec<_>>>()?;
    match parts.as_slice() {
        [] => bail!("no matrix has rows"),
        [one] => Ok(one.clone()),
        parts => Ok(Tensor::cat(parts, 0)?),
    }
}

/// A model with latent attention, some of whose weights are variables.
pub struct Student {
    frame: Frame,
    layers: Vec<Layer>,
}

impl Student {
    /// A model of the original's frame and converted layers, on the frame's device. `tables` holds the model's own
    /// frequencies; `seed` draws what a low-rank addition begins with.
    ///
    /// # Errors
    /// If a layer is inconsistent, does not fit the frame or the tables, or has a part that is not trained here: a
    /// low-rank query or a norm on the latent. The message names the layer.
    pub fn new(
        frame: &Frame,
        layers: &[LatentAttention],
        tables: &Arc<RopeTables>,
        mode: Mode,
        seed: u64,
    ) -> Result<Self> {
        ensure!(layers.len() == frame.layers(), "{} attention layers in {} blocks", layers.len(), frame.layers());
        let (mut random, hidden) = (ChaCha8Rng::seed_from_u64(seed), frame.hidden()?);
        let mut layer = |(index, weights): (usize, &LatentAttention)| {
            ensure!(
                weights.hidden() == hidden,
                "layer {index} reads {} numbers, the model's hidden states have {hidden}",
                weights.hidden()
            );
            let layer = Layer::new(weights, tables, mode.attention(), &mut random, frame.device());
            layer.with_context(|| format!("attention of layer {index}"))
        };
        let layers = layers.iter().enumerate().map(&mut layer).collect::<Result<_>>()?;
        let frame = match mode {
            Mode::Everything => frame.trainable()?,
            Mode::Attention | Mode::LowRank { .. } => frame.clone(),
        };
        Ok(Self { frame, layers })
    }

    /// Everything but attention.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Hidden states `[tokens, hidden]` after a layer from those before it. With a `cache`, latents and rotated keys are
    /// what it gives back of them.
    ///
    /// # Errors
    /// If there is no such layer, or the tokens are no whole number of sequences.
    pub fn block(&self, layer: usize, x: &Tensor, sequence: usize, cache: Option<CacheFormat>) -> Result<Tensor> {
        let attention = self.layers.get(layer).with_context(|| format!("layer {layer} of {}", self.layers.len()))?;
        let attended = attention.forward(&self.frame.attention_input(layer, x)?, sequence, cache)?;
        self.frame.finish_block(layer, x, &attended)
    }

    /// Hidden states after the last layer, before the last norm, without gradients.
    ///
    /// # Errors
    /// If a token lies outside of the vocabulary, or the tokens are no whole number of sequences.
    pub fn forward(&self, tokens: &[u32], sequence: usize, cache: Option<CacheFormat>) -> Result<Tensor> {
        let mut x = self.frame.embed(tokens)?.detach();
        for layer in 0..self.layers.len() {
            x = self.block(layer, &x, sequence, cache)?.detach();
        }
        Ok(x)
    }

    /// All tensors by name, trained or not, in a fixed order.
    pub fn visit(&self, f: &mut dyn FnMut(&str, &Tensor)) {
        for (index, layer) in self.layers.iter().enumerate() {
            layer.visit(&mut |name, tensor| f(&format!("layers.{index}.attention.{name}"), tensor));
        }
        self.frame.visit(f);
    }

    /// The trained tensors by name, in a fixed order.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Tensor)> {
        let mut variables = Vec::new();
        self.visit(&mut |name, tensor| {
            if tensor.is_variable() {
                variables.push((name.to_owned(), tensor.clone()));
            }
        });
        variables
    }

    /// The attention as it is now, low-rank additions added.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn to_layers(&self) -> Result<Vec<LatentAttention>> {
        self.layers.iter().map(Layer::to_latent).collect()
    }
}

#[cfg(test)]
#[path = "student_tests.rs"]
mod tests;
