//! MHA and GQA in Llama's layout, which several families share.

use super::mla::{scale, scaled_outputs};
use super::{Attention, AttentionSizes, Frame, Layer, Layout, Name};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::load::config::{Factors, RotatedLayers};
use crate::load::fields::Fields;
use crate::load::rope_object::RotatedPart;
use crate::load::source::{linear, missing};
use crate::rope::Pairing;
use crate::weights::{DenseAttention, HeadNorms, Linear, Matrix};

/// Reads the number of KV heads (that of the query heads, where it is missing) and the size of a head.
pub(super) fn parse(_: &Name, config: Fields, frame: Frame) -> Result<AttentionSizes> {
    let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(frame.query_heads);
    sizes(config, frame, kv_heads)
}

/// The sizes with that many KV heads.
pub(super) fn sizes(config: Fields, frame: Frame, kv_heads: usize) -> Result<AttentionSizes> {
    let head_dim = head_dim(config, frame)?;
    Dense::plain(head_dim).sizes(frame, kv_heads)
}

/// `head_dim`, or without it the heads' share of the width.
pub(super) fn head_dim(config: Fields, Frame { hidden, query_heads }: Frame) -> Result<usize> {
    match config.optional_size("head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None if hidden.is_multiple_of(query_heads) => Ok(hidden / query_heads),
        None => Err(config.error(format!(
            "`hidden_size` {hidden} does not divide among `num_attention_heads` {query_heads}, and `head_dim` is missing"
        ))),
    }
}

/// Reads how much of a head is rotated, where `partial_rotary_factor` says so: in the object about rotation, or at the top.
pub(super) fn rotated_part(config: Fields, head_dim: usize, absent: f64) -> Result<RotatedPart> {
    let key = "partial_rotary_factor";
    let mut part = None;
    for name in ["rope_parameters", "rope_scaling"] {
        let nested = config.optional_object(name)?.map(|own| own.optional_positive(key)).transpose()?.flatten();
        part = part.or(nested);
    }
    let part = part.or(config.optional_positive(key)?).unwrap_or(absent);
    let dim = (part * head_dim as f64) as usize;
    if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
        let why = format!("`{key}` {part} of {head_dim} dimensions must be an even number of them, 2..={head_dim}");
        return Err(config.error(why));
    }
    Ok(RotatedPart { dim, of: head_dim })
}

/// `q_proj`, `k_proj`, `v_proj` and `o_proj`, or the first three in one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense {
    /// How much of each head is rotated: its first dimensions.
    pub rotated: RotatedPart,
    /// Which of these make a pair.
    pub pairing: Pairing,
    /// Whether the checkpoint has `qkv_proj` and `gate_up_proj`.
    pub fused: bool,
    /// Whether heads of queries and keys have norms, `q_norm` and `k_norm`.
    pub head_norms: bool,
    /// Factor on every score, besides `1/sqrt(head_dim)`.
    pub score_factor: f64,
    /// Factors around the layers.
    pub factors: Factors,
    /// Why what lies around the attention cannot be read, if so.
    pub block_refusal: Option<&'static str>,
}

impl Dense {
    /// As Llama has it.
    pub fn plain(head_dim: usize) -> Self {
        Self {
            rotated: RotatedPart { dim: head_dim, of: head_dim },
            pairing: Pairing::Half,
            fused: false,
            head_norms: false,
            score_factor: 1.0,
            factors: Factors::NONE,
            block_refusal: None,
        }
    }

    /// What the configuration says about the attention.
    pub fn sizes(self, frame: Frame, kv_heads: usize) -> Result<AttentionSizes> {
        let head_dim = self.rotated.of;
        Geometry::mha2mla(frame.query_heads, kv_heads, head_dim, head_dim, head_dim)?;
        Ok(AttentionSizes {
            kv_heads,
            head_dim,
            rotated: self.rotated,
            deepseek: None,
            rotated_layers: RotatedLayers::All,
            factors: self.factors,
            query_scaling: None,
            sparse_beyond: None,
            gated_output: false,
            layout: Box::new(self),
        })
    }

    /// The row of a head of queries or keys that stands at each place here. Pair `j` of a head is `(j, j + head_dim/2)`; pairs
    /// behind the rotated ones have frequency 0, and take the dimensions that are not rotated.
    fn order(&self) -> Vec<usize> {
        let RotatedPart { dim, of } = self.rotated;
        let mut order = vec![0; of];
        for pair in 0..of / 2 {
            let behind = 2 * pair;
            let rows = if pair < dim / 2 { self.pairing.dims(pair, dim) } else { (behind, behind + 1) };
            (order[pair], order[pair + of / 2]) = rows;
        }
        order
    }

    /// Brings the rows of queries or keys into the order of this crate.
    fn ordered(&self, linear: Linear) -> Linear {
        let order = self.order();
        if order.iter().enumerate().all(|(i, &row)| i == row) {
            return linear;
        }
        let width = order.len();
        let row = |i: usize| i / width * width + order[i % width];
        let rows: Vec<usize> = (0..linear.weight.rows()).map(row).collect();
        linear.select_outputs(&rows)
    }

    /// Whether a row of heads, in the order of this crate, is turned.
    fn is_rotated(&self, row: usize) -> bool {
        let RotatedPart { dim, of } = self.rotated;
        row % of % (of / 2) < dim / 2
    }

    /// Multiplies the rotated rows of queries by a factor: those that stand in pairs with a frequency.
    fn scaled_rotated(&self, linear: Linear, factor: f64) -> Linear {
        if factor == 1.0 {
            return linear;
        }
        let Linear { weight, mut bias } = linear;
        let row_factor = |row: usize| if self.is_rotated(row) { factor } else { 1.0 };
        if let Some(bias) = &mut bias {
            bias.iter_mut().enumerate().for_each(|(row, x)| scale(std::slice::from_mut(x), row_factor(row)));
        }
        let scaled = |row: usize, col: usize| (f64::from(weight.row(row)[col]) * row_factor(row)) as f32;
        Linear { weight: Matrix::from_fn(weight.rows(), weight.cols(), scaled), bias }
    }
}

impl Layout for Dense {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        let (source, model) = (layer.source, layer.model);
        let query_rows = model.query_heads * model.head_dim;
        let kv_rows = model.kv_heads * model.head_dim;
        let projection = |name: &str, rows| {
            let module = layer.name(name);
            let projection = linear(source, &module, rows, model.hidden)?;
            if model.attention_bias && projection.bias.is_none() {
                return Err(missing(source, &format!("{module}.bias"), &format!("[{rows}]")));
            }
            Ok(projection)
        };
        let [query, key, value] = if self.fused {
            let all = projection("qkv_proj", query_rows + 2 * kv_rows)?;
            let part = |first: usize, rows: usize| all.select_outputs(&(first..first + rows).collect::<Vec<_>>());
            [part(0, query_rows), part(query_rows, kv_rows), part(query_rows + kv_rows, kv_rows)]
        } else {
            [projection("q_proj", query_rows)?, projection("k_proj", kv_rows)?, projection("v_proj", kv_rows)?]
        };
        // Behind a norm a factor on the projection would be lost: there it belongs to the gain.
        let (row_gain, norm_gain) = match (self.head_norms, model.query_gain(layer.index)) {
            (false, gain) => (gain, 1.0),
            (true, gain) => (1.0, gain),
        };
        let query = self.scaled_rotated(self.ordered(query), row_gain);
        let output = linear(source, &layer.name("o_proj"), model.hidden, query_rows)?;
        let norm = |name: &str| {
            let gain = source.read(&layer.name(name), &[model.head_dim])?;
            Ok::<_, crate::Error>(self.order().into_iter().map(|row| gain[row]).collect::<Vec<f32>>())
        };
        let head_norms = if self.head_norms {
            let (mut query, key) = (norm("q_norm.weight")?, norm("k_norm.weight")?);
            query.iter_mut().enumerate().filter(|(row, _)| self.is_rotated(*row)).for_each(|(_, x)| {
                scale(std::slice::from_mut(x), norm_gain);
            });
            scale(&mut query, self.score_factor);
            Some(HeadNorms { query, key, epsilon: model.norm_epsilon })
        } else {
            None
        };
        let attention = DenseAttention {
            query_heads: model.query_heads,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            query: if self.head_norms { query } else { scaled_outputs(query, self.score_factor) },
            key: self.ordered(key),
            value,
            output: scaled_outputs(output, self.factors.residual),
            head_norms,
        };
        attention.validate()?;
        Ok(Attention::Dense(attention))
    }

    fn fused_mlp(&self) -> bool {
        self.fused
    }

    fn block_refusal(&self) -> Option<&'static str> {
        self.block_refusal
    }
}
