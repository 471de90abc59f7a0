//! The attention of checkpoints that MHA2MLA's own code wrote, in the layouts of both its generations.

use std::path::{Path, PathBuf};

use super::kept_pairs::{Factored, Mha2mlaConfig, Naming};
use super::mla::scaled_outputs;
use super::{AnyLayout, Attention, Conversion, Layer, Layout};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::load::source::{linear, matrix, missing, optional_vector, rows_of};
use crate::rope::{FrequencyIndex, Pairing};
use crate::weights::{LatentAttention, Linear, Matrix};

/// The tensor in which [`save_mha2mla`](crate::load::save_mha2mla) keeps a layer's kept pairs: `[kv_heads, rope_dim/2]`.
pub(in crate::load) const FREQUENCY_INDEX: &str = "rope_frequency_index";

pub(super) const CONVERSION: Conversion = Conversion {
    keys: &["mha2mla", "RoPE", "SVD"],
    parse: |config, model| {
        let own = Mha2mlaConfig::parse(config, model)?;
        Ok(own.map(|own| Box::new(own) as AnyLayout))
    },
};

impl Layout for Mha2mlaConfig {
    fn attention(&self, layer: &Layer) -> Result<Attention> {
        latent_attention(self, layer).map(Attention::Latent)
    }

    fn ranks_file(&self, directory: &Path) -> Option<PathBuf> {
        self.ranks_file(directory)
    }
}

/// One layer that is being read, with what its configuration says.
struct Reader<'a> {
    layer: &'a Layer<'a>,
    own: &'a Mha2mlaConfig,
}

fn latent_attention(own: &Mha2mlaConfig, layer: &Layer) -> Result<LatentAttention> {
    let (reader, model) = (Reader { layer, own }, layer.model);
    let (heads, kv_heads, rope_dim) = (model.query_heads, model.kv_heads, own.rope_dim);
    let query = reader.linear("q_proj", heads * model.head_dim, model.hidden)?;
    let key_name = match own.naming {
        Naming::Main => "k_r_proj",
        Naming::Legacy => "W_k_r",
    };
    let key_rope = reader.linear(key_name, kv_heads * rope_dim, model.hidden)?;
    let (frequencies, query_rope, query_nope) = match own.naming {
        Naming::Main => {
            let frequencies = match reader.stored_frequencies()? {
                Some(stored) => stored,
                None => own.kept_pairs(layer.directory, layer.index, model)?,
            };
            let (rope, nope): (Vec<_>, Vec<_>) = (0..heads * model.head_dim).partition(|&row| row < heads * rope_dim);
            (frequencies, query.select_outputs(&rope), query.select_outputs(&nope))
        }
        Naming::Legacy => {
            let frequencies = own.kept_pairs(layer.directory, layer.index, model)?;
            let (rope, nope) = rows_by_rotation(&frequencies, heads, model.head_dim);
            (frequencies, query.select_outputs(&rope), query.select_outputs(&nope))
        }
    };
    // As in the layers that it was converted from: the factor on cosines and sines is in the rotated queries.
    let query_rope = scaled_outputs(query_rope, model.query_gain(layer.index));
    let latent = reader.latent()?;
    let geometry = Geometry {
        query_heads: heads,
        kv_heads,
        latent_rank: latent.down.weight.rows(),
        rope_heads: kv_heads,
        rope_dim,
        nope_dim: model.head_dim - rope_dim,
        value_dim: model.head_dim,
        key_norm: false,
    };
    let attention = LatentAttention {
        geometry,
        query_down: None,
        query_rope,
        query_nope,
        key_rope,
        down: latent.down,
        latent_norm: None,
        latent_bias: latent.bias,
        up_key: latent.up_key,
        up_value: latent.up_value.weight,
        value_bias: latent.up_value.bias,
        output: reader.linear("o_proj", model.hidden, heads * model.head_dim)?,
        frequencies,
        pairing: Pairing::Half,
        scale: model.score_scale,
        head_norms: None,
    };
    attention.validate()?;
    Ok(attention)
}

/// The low-rank part of a layer.
struct Latent {
    down: Linear,
    bias: Option<Vec<f32>>,
    up_key: Matrix,
    up_value: Linear,
}

impl Reader<'_> {
    fn name(&self, name: &str) -> String {
        self.layer.name(name)
    }

    fn has(&self, name: &str) -> bool {
        self.layer.source.shape(&self.name(&format!("{name}.weight"))).is_some()
    }

    fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        linear(self.layer.source, &self.name(name), rows, cols)
    }

    /// The kept pairs, if the checkpoint is one of ours.
    fn stored_frequencies(&self) -> Result<Option<FrequencyIndex>> {
        let name = self.name(FREQUENCY_INDEX);
        if self.layer.source.shape(&name).is_none() {
            return Ok(None);
        }
        let (kv_heads, pairs) = (self.layer.model.kv_heads, self.own.rope_dim / 2);
        let indices = self.layer.source.read_integers(&name, &[kv_heads, pairs])?;
        let bound = self.layer.model.head_dim / 2;
        let checked = |index: i64| match u32::try_from(index) {
            Ok(index) if (index as usize) < bound => Ok(index),
            _ => Err(Error::Index { what: format!("`{name}`"), got: index, bound: format!("0..{bound}") }),
        };
        let indices = indices.into_iter().map(checked).collect::<Result<Vec<u32>>>()?;
        FrequencyIndex::new(kv_heads, indices).map(Some)
    }

    fn latent(&self) -> Result<Latent> {
        let [joint, down_k, down_v, up_k, up_v] = match self.own.naming {
            Naming::Main => ["kv_proj.down_kv", "kv_proj.down_k", "kv_proj.down_v", "kv_proj.up_k", "kv_proj.up_v"],
            // A joint checkpoint of the old code keeps the shared down-projection under the key's name.
            Naming::Legacy => ["W_down_k", "W_down_k", "W_down_v", "W_up_k", "W_up_v"],
        };
        let hidden = self.layer.model.hidden;
        match self.own.factored {
            Factored::AsStored => {}
            Factored::KeysAlone => {
                let (key, up_key) = self.factored_key(down_k, up_k)?;
                let (value, up_value) = whole_value(self.up_value(up_v, hidden)?);
                return Ok(join(&key, &value, &up_key, &up_value));
            }
            Factored::ValuesAlone => {
                let (key, up_key) = whole_key(self.up_key(up_k, hidden)?);
                let (value, up_value) = self.factored_value(down_v, up_v)?;
                return Ok(join(&key, &value, &up_key, &up_value));
            }
            Factored::Neither => return Ok(neither(self.up_key(up_k, hidden)?, self.up_value(up_v, hidden)?)),
        }
        if !self.has(down_v) {
            return self.joint(joint, up_k, up_v);
        }
        if !self.has(down_k) {
            let expected = "a down-projection of the key beside that of the value";
            return Err(missing(self.layer.source, &self.name(&format!("{down_k}.weight")), expected));
        }
        let ((key, up_key), (value, up_value)) = (self.factored_key(down_k, up_k)?, self.factored_value(down_v, up_v)?);
        Ok(join(&key, &value, &up_key, &up_value))
    }

    /// A latent of keys, and the keys from it.
    fn factored_key(&self, down: &str, up: &str) -> Result<(Linear, Matrix)> {
        let down = self.down(down)?;
        let up = self.up_key(up, down.weight.rows())?;
        Ok((down, up))
    }

    /// A latent of values, and the values from it.
    fn factored_value(&self, down: &str, up: &str) -> Result<(Linear, Linear)> {
        let down = self.down(down)?;
        let up = self.up_value(up, down.weight.rows())?;
        Ok((down, up))
    }

    fn joint(&self, down: &str, up_k: &str, up_v: &str) -> Result<Latent> {
        let mut down = self.down(down)?;
        let rank = down.weight.rows();
        let up_key = self.up_key(up_k, rank)?;
        let up_value = self.up_value(up_v, rank)?;
        // Main never biases the joint down-projection, so a bias there is the centring that our own `save` writes.
        let bias = match self.own.naming {
            Naming::Main => down.bias.take(),
            Naming::Legacy => None,
        };
        Ok(Latent { down, bias, up_key, up_value })
    }

    /// `[rank, hidden]`, the rank as configured or else as found.
    fn down(&self, name: &str) -> Result<Linear> {
        let rank = match self.own.low_rank {
            Some(per_head) => per_head * self.layer.model.kv_heads,
            None => rows_of(self.layer.source, &self.name(&format!("{name}.weight")), self.layer.model.hidden)?,
        };
        self.linear(name, rank, self.layer.model.hidden)
    }

    /// A bias of the key up-projection is left out: it adds `q . b` to all scores of a query alike, and softmax
    /// does not see that.
    fn up_key(&self, name: &str, rank: usize) -> Result<Matrix> {
        let rows = self.layer.model.kv_heads * (self.layer.model.head_dim - self.own.rope_dim);
        let bias = self.name(&format!("{name}.bias"));
        optional_vector(self.layer.source, &bias, rows)?;
        matrix(self.layer.source, &self.name(&format!("{name}.weight")), rows, rank)
    }

    fn up_value(&self, name: &str, rank: usize) -> Result<Linear> {
        self.linear(name, self.layer.model.kv_heads * self.layer.model.head_dim, rank)
    }
}

/// Keys and values without a latent. The hidden state is one, if it is smaller than both together.
fn neither(up_key: Matrix, up_value: Linear) -> Latent {
    let hidden = up_key.cols();
    if up_key.rows() + up_value.weight.rows() > hidden {
        return Latent { down: Linear::new(identity(hidden)), bias: None, up_key, up_value };
    }
    let ((key, up_key), (value, up_value)) = (whole_key(up_key), whole_value(up_value));
    join(&key, &value, &up_key, &up_value)
}

/// Unrotated keys without a latent.
fn whole_key(keys: Matrix) -> (Linear, Matrix) {
    let (down, up) = whole(keys);
    (Linear::new(down), up)
}

/// Values without a latent. A bias is added behind it.
fn whole_value(Linear { weight, bias }: Linear) -> (Linear, Linear) {
    let (down, up) = whole(weight);
    (Linear::new(down), Linear { weight: up, bias })
}

/// What stands in for the latent of a projection that has none: its outputs, or its inputs if these are fewer.
fn whole(projection: Matrix) -> (Matrix, Matrix) {
    let (rows, cols) = (projection.rows(), projection.cols());
    if rows <= cols { (projection, identity(rows)) } else { (identity(cols), projection) }
}

fn identity(size: usize) -> Matrix {
    Matrix::from_fn(size, size, |row, col| if row == col { 1.0 } else { 0.0 })
}

/// A separate latent for key and value is one latent, `[key part | value part]`, of which each up-projection reads
/// its own part.
fn join(key: &Linear, value: &Linear, up_key: &Matrix, up_value: &Linear) -> Latent {
    let (key_rank, value_rank) = (key.weight.rows(), value.weight.rows());
    let rank = key_rank + value_rank;
    let zeros = |n| vec![0.0; n];
    let bias = (key.bias.is_some() || value.bias.is_some()).then(|| {
        let part = |linear: &Linear, rank| linear.bias.clone().unwrap_or_else(|| zeros(rank));
        [part(key, key_rank), part(value, value_rank)].concat()
    });
    let down = Matrix::from_fn(rank, key.weight.cols(), |row, col| match row.checked_sub(key_rank) {
        None => key.weight.row(row)[col],
        Some(row) => value.weight.row(row)[col],
    });
    let key_part = |row: usize, col: usize| if col < key_rank { up_key.row(row)[col] } else { 0.0 };
    let value_part = |row: usize, col: usize| match col.checked_sub(key_rank) {
        None => 0.0,
        Some(col) => up_value.weight.row(row)[col],
    };
    Latent {
        down: Linear { weight: down, bias },
        bias: None,
        up_key: Matrix::from_fn(up_key.rows(), rank, key_part),
        up_value: Linear {
            weight: Matrix::from_fn(up_value.weight.rows(), rank, value_part),
            bias: up_value.bias.clone(),
        },
    }
}

/// The rotated and the unrotated rows of all query heads. Inside a head the rotated ones are the first dimensions
/// of the kept pairs, then the second ones; the others keep their order.
fn rows_by_rotation(kept: &FrequencyIndex, heads: usize, head_dim: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut rope, mut nope) = (Vec::new(), Vec::new());
    let group = heads / kept.rope_heads();
    for head in 0..heads {
        let pairs = kept.head(head / group);
        let first = head * head_dim;
        let second = first + head_dim / 2;
        rope.extend(pairs.iter().map(|&pair| first + pair as usize));
        rope.extend(pairs.iter().map(|&pair| second + pair as usize));
        let is_kept = |dim: usize| pairs.contains(&((dim % (head_dim / 2)) as u32));
        nope.extend((0..head_dim).filter(|&dim| !is_kept(dim)).map(|dim| first + dim));
    }
    (rope, nope)
}
