//! DeepSeek's latent attention, which several families share: its sizes, and how its layers lie in the files.

use super::{Attention, AttentionSizes, Frame, Layer, Layout, Routing, check_width};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::load::config::{DeepSeekDims, Factors, RotatedLayers};
use crate::load::fields::Fields;
use crate::load::rope_object::RotatedPart;
use crate::load::source::{linear, matrix};
use crate::rope::{FrequencyIndex, Pairing};
use crate::weights::{LatentAttention, Linear, Matrix, QueryDown, RmsNorm};

/// Epsilon of the norms over the latents of queries and of keys and values. DeepSeek's own code and transformers build
/// both without naming one, so that they have their class's default whatever `rms_norm_eps` says.
const LATENT_NORM_EPSILON: f32 = 1e-6;

/// The layers of a model, all alike. Factors are 1 in most families.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mla {
    pub dims: DeepSeekDims,
    /// On queries that come from a latent of their own.
    pub query_factor: f64,
    /// On the latent behind its norm.
    pub latent_factor: f64,
    /// On what the layer adds to the residual stream.
    pub output_factor: f64,
    /// What the output projection is called.
    pub output: &'static str,
    /// Modules that are not needed here.
    pub unneeded: &'static [&'static str],
    /// How tokens choose among experts; `None` in families without any.
    pub routing: Option<Routing>,
    /// Modules of a layer beside its attention that are not needed here.
    pub unneeded_beside: &'static [&'static str],
}

impl Mla {
    /// Reads the sizes, under DeepSeek's keys. `value_dim` is for configurations without `v_head_dim`.
    pub fn parse(config: Fields, frame: Frame, pairing: Pairing, value_dim: Option<usize>) -> Result<Self> {
        let value_dim = match (config.optional_size("v_head_dim")?, value_dim) {
            (Some(value_dim), _) | (None, Some(value_dim)) => value_dim,
            (None, None) => config.size("v_head_dim")?,
        };
        let geometry = Geometry::deepseek(
            frame.query_heads,
            config.size("kv_lora_rank")?,
            config.count("qk_rope_head_dim")?,
            config.count("qk_nope_head_dim")?,
            value_dim,
        )?;
        check_width(config, frame.query_heads, geometry.value_dim)?;
        let dims = DeepSeekDims { geometry, query_rank: config.optional_size("q_lora_rank")?, pairing };
        Ok(Self {
            dims,
            query_factor: 1.0,
            latent_factor: 1.0,
            output_factor: 1.0,
            output: "o_proj",
            unneeded: &[],
            routing: None,
            unneeded_beside: &[],
        })
    }

    /// What the configuration says about the attention, whose layers `layout` reads.
    pub fn sizes(&self, layout: impl Layout + 'static) -> AttentionSizes {
        let geometry = self.dims.geometry;
        AttentionSizes {
            kv_heads: geometry.query_heads,
            head_dim: geometry.rope_dim + geometry.nope_dim,
            rotated: RotatedPart { dim: geometry.rope_dim, of: geometry.rope_dim },
            deepseek: Some(self.dims),
            rotated_layers: RotatedLayers::All,
            factors: Factors::NONE,
            query_scaling: None,
            sparse_beyond: None,
            gated_output: false,
            layout: Box::new(layout),
        }
    }

    /// A layer whose queries are projected from the hidden state, or from a latent of their own.
    pub fn latent_attention(&self, layer: &Layer) -> Result<LatentAttention> {
        let g = self.dims.geometry;
        let rows = g.query_heads * (g.nope_dim + g.rope_dim);
        match self.dims.query_rank {
            None => {
                let query = linear(layer.source, &layer.name("q_proj"), rows, layer.model.hidden)?;
                self.with_query(layer, None, &query)
            }
            Some(rank) => {
                let stage = self.query_down(layer, rank)?;
                let query = linear(layer.source, &layer.name("q_b_proj"), rows, rank)?;
                self.with_query(layer, Some(stage), &query)
            }
        }
    }

    /// The stage in front of the query projection.
    pub fn query_down(&self, layer: &Layer, rank: usize) -> Result<QueryDown> {
        let down = linear(layer.source, &layer.name("q_a_proj"), rank, layer.model.hidden)?;
        let norm = latent_norm(layer, "q_a_layernorm.weight", rank, self.query_factor)?;
        Ok(QueryDown { down, norm, with_unnormed: false })
    }

    /// A query head's rows are its unrotated ones, then its rotated ones; a head's rows of `kv_b_proj` are those of
    /// the key, then those of the value; `kv_a_proj_with_mqa` yields the latent, then the shared rotated key.
    pub fn with_query(&self, layer: &Layer, query_down: Option<QueryDown>, query: &Linear) -> Result<LatentAttention> {
        let (g, source, model) = (self.dims.geometry, layer.source, layer.model);
        let named = |name: &str| layer.name(name);
        let (query_nope, query_rope) = split_heads(query, g.query_heads, g.nope_dim);
        // Scores are products of a rotated query and a rotated key. A factor on every cosine and sine multiplies both,
        // so its square on the query does the same and leaves the tables plain.
        let query_rope = scaled_outputs(query_rope, model.query_gain(layer.index));

        let kv = linear(source, &named("kv_a_proj_with_mqa"), g.latent_rank + g.rope_dim, model.hidden)?;
        let (down, key_rope) = split_heads(&kv, 1, g.latent_rank);
        let up = matrix(source, &named("kv_b_proj.weight"), g.kv_heads * (g.nope_dim + g.value_dim), g.latent_rank)?;
        let (up_key, up_value) = split_heads(&Linear::new(up), g.kv_heads, g.nope_dim);
        let output = linear(source, &named(self.output), model.hidden, g.query_heads * g.value_dim)?;
        let attention = LatentAttention {
            geometry: g,
            query_down,
            query_rope,
            query_nope,
            key_rope,
            down,
            latent_norm: Some(latent_norm(layer, "kv_a_layernorm.weight", g.latent_rank, self.latent_factor)?),
            latent_bias: None,
            up_key: up_key.weight,
            up_value: up_value.weight,
            value_bias: None,
            output: scaled_outputs(output, self.output_factor),
            frequencies: FrequencyIndex::all(g.rope_heads, g.rope_dim),
            pairing: self.dims.pairing,
            scale: model.score_scale,
            head_norms: None,
        };
        attention.validate()?;
        Ok(attention)
    }
}

impl Layout for Mla {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        self.latent_attention(layer).map(Attention::Latent)
    }

    fn unneeded(&self) -> &'static [&'static str] {
        self.unneeded
    }

    fn routing(&self) -> Option<Routing> {
        self.routing
    }

    fn unneeded_beside(&self) -> &'static [&'static str] {
        self.unneeded_beside
    }
}

/// The norm over a latent, with a factor on what it yields.
fn latent_norm(layer: &Layer, name: &str, len: usize, factor: f64) -> Result<RmsNorm> {
    let mut gain = layer.source.read(&layer.name(name), &[len])?;
    scale(&mut gain, factor);
    Ok(RmsNorm { gain, epsilon: LATENT_NORM_EPSILON })
}

/// Splits the rows of each head after its first `first` ones.
pub(super) fn split_heads(linear: &Linear, heads: usize, first: usize) -> (Linear, Linear) {
    let per_head = linear.weight.rows() / heads;
    let (before, after): (Vec<usize>, Vec<usize>) =
        (0..linear.weight.rows()).partition(|row| row % per_head.max(1) < first);
    (linear.select_outputs(&before), linear.select_outputs(&after))
}

/// Every number times `factor`.
pub(in crate::load) fn scale(numbers: &mut [f32], factor: f64) {
    if factor != 1.0 {
        numbers.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
}

/// The map whose outputs are those of `linear` times `factor`.
pub(in crate::load) fn scaled_outputs(linear: Linear, factor: f64) -> Linear {
    let Linear { weight, mut bias } = linear;
    if let Some(bias) = &mut bias {
        scale(bias, factor);
    }
    Linear { weight: scaled_matrix(weight, factor), bias }
}

/// The matrix times `factor`.
pub(in crate::load) fn scaled_matrix(matrix: Matrix, factor: f64) -> Matrix {
    if factor == 1.0 {
        return matrix;
    }
    let (rows, cols) = (matrix.rows(), matrix.cols());
    Matrix::from_fn(rows, cols, |row, col| (f64::from(matrix.row(row)[col]) * factor) as f32)
}
