//! MHA2MLA's configuration: which layout a converted checkpoint has and which pairs of a head stay rotated.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::load::config::ModelConfig;
use crate::load::fields::Fields;
use crate::load::safetensors::SafetensorsSource;
use crate::load::source::TensorSource;
use crate::rope::{FrequencyIndex, PartialRope};

/// What the configuration of a converted checkpoint says.
#[derive(Clone, Debug)]
pub(super) struct Mha2mlaConfig {
    pub naming: Naming,
    /// Rotated dimensions per head.
    pub rope_dim: usize,
    /// Latent dimensions per KV head; `None` leaves it to the tensors.
    pub low_rank: Option<usize>,
    pub kept: Kept,
    pub factored: Factored,
}

/// Which projections of a layer have a latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factored {
    /// Those of which the checkpoint has a down-projection: one for both, or one for each.
    AsStored,
    /// The keys'; values are projected from the hidden state directly.
    KeysAlone,
    /// The values'; keys are projected from the hidden state directly.
    ValuesAlone,
    /// None.
    Neither,
}

/// The two generations of MHA2MLA's code name and order tensors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// `kv_proj.*`, query rows sorted into rotated and unrotated ones.
    Main,
    /// `W_*`, query rows as in the original model.
    Legacy,
}

/// Where the kept pairs come from.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// The same in every layer.
    Everywhere(FrequencyIndex),
    /// The 2-norm strategy: in a file of ranks or scores, which the configuration names.
    Ranked(Option<String>),
}

impl Mha2mlaConfig {
    /// Reads `mha2mla` (main) or `RoPE` and `SVD` (legacy); `None` if the model is not a converted one.
    pub fn parse(config: Fields, model: &ModelConfig) -> Result<Option<Self>> {
        if let Some(own) = config.optional_object("mha2mla")? {
            return if own.flag("is_baseline")? { Ok(None) } else { Self::main(own, model).map(Some) };
        }
        match (config.optional_object("RoPE")?, config.optional_object("SVD")?) {
            (Some(rope), Some(svd)) => Self::legacy(rope, svd, model).map(Some),
            _ => Ok(None),
        }
    }

    fn main(own: Fields, model: &ModelConfig) -> Result<Self> {
        let factored = match own.optional_text("svd_init_method")? {
            None | Some("joint" | "split") => Factored::AsStored,
            Some("only_key") => Factored::KeysAlone,
            Some("only_value") => Factored::ValuesAlone,
            Some("none") => Factored::Neither,
            Some(other) => {
                let known = "known are joint, split, only_key, only_value and none";
                return Err(unknown(own, &format!("svd_init_method `{other}`"), known));
            }
        };
        let rope_dim = own.count("rope_dim_for_mla")?;
        let rule = match own.optional_text("partial_rope_version")?.unwrap_or("high") {
            "high" => PartialRope::High,
            "low" => PartialRope::Low,
            "uniform" => PartialRope::Uniform { start: own.optional_count("uniform_start_point")?.unwrap_or(0) },
            // Whatever its name says, `is_gqa2mha2mla` leaves a model as many KV heads as it had: it changes what the keys
            // are initialised with. With a rank for each KV head, MHA2MLA's code finds rows for too few queries and stops.
            "2-norm" if own.flag("is_gqa2mha2mla")? && model.query_heads != model.kv_heads => {
                let why = "of several query heads for each KV head is something that MHA2MLA's own code cannot make";
                return Err(unknown(own, "mha2mla.is_gqa2mha2mla beside partial_rope_version `2-norm`", why));
            }
            "2-norm" => {
                let path = own.optional_text("qk_tensor_path")?.map(str::to_owned);
                check_rope_dim(own, rope_dim, model.head_dim)?;
                return Ok(Self {
                    naming: Naming::Main,
                    rope_dim,
                    low_rank: own.optional_size("low_rank")?,
                    kept: Kept::Ranked(path),
                    factored,
                });
            }
            other => {
                let what = format!("partial_rope_version `{other}`");
                return Err(unknown(own, &what, "known are high, low, uniform and 2-norm"));
            }
        };
        let kept = Kept::Everywhere(rule.select(model.kv_heads, model.head_dim, rope_dim)?);
        own.flag("is_gqa2mha2mla")?;
        Ok(Self { naming: Naming::Main, rope_dim, low_rank: own.optional_size("low_rank")?, kept, factored })
    }

    /// Legacy configurations number the strategies and count pairs, not dimensions.
    fn legacy(rope: Fields, svd: Fields, model: &ModelConfig) -> Result<Self> {
        let (kv_heads, head_dim) = (model.kv_heads, model.head_dim);
        let everywhere = |rule: PartialRope, rope_dim| Ok(Kept::Everywhere(rule.select(kv_heads, head_dim, rope_dim)?));
        let first = || Ok::<_, Error>(2 * rope.count("top_k_rope_dim")?);
        let last = || Ok::<_, Error>(2 * rope.count("last_k_rope_dim")?);
        let (rope_dim, kept) = match rope.count("partial_rope_version")? {
            1 => (first()?, everywhere(PartialRope::High, first()?)?),
            2 => {
                let step = rope.size("uniform_step")?;
                if !(head_dim / 2).is_multiple_of(step) {
                    let why = format!("must divide the {} pairs of a head", head_dim / 2);
                    return Err(unknown(rope, &format!("uniform_step {step}"), &why));
                }
                let start = rope.optional_count("uniform_start_point")?.unwrap_or(0);
                (head_dim / step, everywhere(PartialRope::Uniform { start }, head_dim / step)?)
            }
            3 => {
                let (first, last) = (first()?, last()?);
                let rope_dim = check_rope_dim(rope, first + last, head_dim)?;
                let pairs = head_dim as u32 / 2;
                let head: Vec<u32> = (0..first as u32 / 2).chain(pairs - last as u32 / 2..pairs).collect();
                (rope_dim, Kept::Everywhere(FrequencyIndex::new(kv_heads, head.repeat(kv_heads))?))
            }
            4 => {
                let path = rope.optional_text("qk_tensor_path")?.map(str::to_owned);
                (check_rope_dim(rope, first()?, head_dim)?, Kept::Ranked(path))
            }
            5 => (last()?, everywhere(PartialRope::Low, last()?)?),
            other => {
                let why = "known are 1 (high), 2 (uniform), 3 (first and last), 4 (2-norm) and 5 (low)";
                return Err(unknown(rope, &format!("partial_rope_version {other}"), why));
            }
        };
        let low_rank = svd.optional_size("low_rank")?;
        Ok(Self { naming: Naming::Legacy, rope_dim, low_rank, kept, factored: Factored::AsStored })
    }

    /// The file of ranks or scores beside the weights, if there should be one.
    pub fn ranks_file(&self, directory: &Path) -> Option<PathBuf> {
        match &self.kept {
            Kept::Ranked(Some(path)) => Some(ranks_path(directory, path)),
            _ => None,
        }
    }

    /// The kept pairs of one layer, ascending inside a head.
    pub fn kept_pairs(&self, directory: &Path, layer: usize, model: &ModelConfig) -> Result<FrequencyIndex> {
        match &self.kept {
            Kept::Everywhere(index) => Ok(index.clone()),
            Kept::Ranked(Some(path)) => self.ranked(directory, path, layer, model),
            Kept::Ranked(None) => Err(Error::Config {
                what: format!("2-norm partial RoPE of {}", directory.display()),
                why: "neither a tensor `self_attn.rope_frequency_index` nor `qk_tensor_path` says which pairs are kept"
                    .into(),
            }),
        }
    }

    fn ranked(&self, directory: &Path, given: &str, layer: usize, model: &ModelConfig) -> Result<FrequencyIndex> {
        let path = ranks_path(directory, given);
        let (kv_heads, head_dim) = (model.kv_heads, model.head_dim);
        if !path.exists() {
            return Err(Error::Config {
                what: format!("qk_tensor_path `{given}`"),
                why: format!(
                    "{} does not exist. The kept pairs of a 2-norm checkpoint are not among its weights, and a .pth file \
                     is a pickle that only PyTorch reads: load it there and save its one tensor, ranks of shape [{}, \
                     {kv_heads}, {head_dim}] or f32 scores of shape [{}, {kv_heads}, {}], as that file",
                    path.display(),
                    model.layers,
                    model.layers,
                    head_dim / 2
                ),
            });
        }
        let file = SafetensorsSource::file(&path)?;
        let &[name] = file.names().as_slice() else {
            let why = format!("must hold one tensor of ranks or scores, it holds {:?}", file.names());
            return Err(Error::File { path, why });
        };
        let scores_shape = [model.layers, kv_heads, head_dim / 2];
        if file.shape(name).is_some_and(|shape| shape == scores_shape) {
            let scores = file.read(name, &scores_shape)?;
            let layer = layer_of(&scores, layer, kv_heads * (head_dim / 2));
            return PartialRope::TwoNorm { scores: layer }.select(kv_heads, head_dim, self.rope_dim);
        }
        let ranks = file.read_integers(name, &[model.layers, kv_heads, head_dim])?;
        let kept = pairs_of_ranks(layer_of(&ranks, layer, kv_heads * head_dim), head_dim, self.rope_dim);
        let kept = kept.map_err(|why| Error::File { path, why: format!("tensor `{name}`, layer {layer}, {why}") })?;
        FrequencyIndex::new(kv_heads, kept)
    }
}

fn layer_of<T>(all: &[T], layer: usize, len: usize) -> &[T] {
    all.chunks(len.max(1)).nth(layer).unwrap_or_default()
}

/// A pair is kept if its rank is among the first `rope_dim/2`; both dimensions of a pair hold its rank.
fn pairs_of_ranks(ranks: &[i64], head_dim: usize, rope_dim: usize) -> std::result::Result<Vec<u32>, String> {
    let mut kept = Vec::new();
    for (head, ranks) in ranks.chunks(head_dim).enumerate() {
        let (first, second) = ranks.split_at(head_dim / 2);
        if first != second {
            return Err(format!("KV head {head}: the two dimensions of a pair differ in rank"));
        }
        let pairs = first.iter().zip(0..).filter(|&(&rank, _)| (0..rope_dim as i64 / 2).contains(&rank));
        let before = kept.len();
        kept.extend(pairs.map(|(_, pair): (_, u32)| pair));
        if kept.len() - before != rope_dim / 2 {
            let found = kept.len() - before;
            return Err(format!("KV head {head}: {found} pairs have a rank below {}", rope_dim / 2));
        }
    }
    Ok(kept)
}

/// Where the ranks of `given` should lie. A `.pth` stands for a converted file of the same name beside the weights.
fn ranks_path(directory: &Path, given: &str) -> PathBuf {
    let given = Path::new(given);
    match (given.extension(), given.file_stem()) {
        (Some(extension), Some(stem)) if extension != "safetensors" => {
            directory.join(stem).with_extension("safetensors")
        }
        _ => directory.join(given),
    }
}

fn check_rope_dim(config: Fields, rope_dim: usize, head_dim: usize) -> Result<usize> {
    if rope_dim.is_multiple_of(2) && rope_dim <= head_dim {
        return Ok(rope_dim);
    }
    let why = format!("must be even and at most head_dim = {head_dim}");
    Err(unknown(config, &format!("{rope_dim} rotated dimensions"), &why))
}

fn unknown(config: Fields, what: &str, why: &str) -> Error {
    Error::Config { what: format!("{what} in {}", config.path.display()), why: why.into() }
}
