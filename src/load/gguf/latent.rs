//! DeepSeek's models in GGUF files, as llama.cpp's converter writes them: what their keys mean, and the tensors that it
//! splits, transposes or stacks.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::{GgufSource, TensorInfo};
use crate::error::{Error, Result};
use crate::load::source::{TensorSource, unfit};

/// The types of scores that the format numbers.
const SOFTMAX: u64 = 1;
const SIGMOID: u64 = 2;

impl Metadata<'_> {
    /// Adds what DeepSeek's configuration has beside the keys of all models.
    pub fn add_latent(&self, architecture: &str, config: &mut Map<String, Value>) -> Result<()> {
        let key = |name: &str| format!("{architecture}.{name}");
        let refuse = |name: &str, what: String, why: &str| {
            let what = format!("`{}` {what} in {}", key(name), self.path.display());
            Err(Error::Unsupported { what, why: why.into() })
        };
        let split = "attention.key_length_mla";
        if self.integer(&key(split))?.is_none() {
            return refuse(
                split,
                "is missing".into(),
                "files in which `attn_kv_b` is one tensor are of an older converter; convert the model anew",
            );
        }
        let (head, value) = (self.size(&key(split))?, self.size(&key("attention.value_length_mla"))?);
        let (rank, rope) = (self.size(&key("attention.kv_lora_rank"))?, self.size(&key("rope.dimension_count"))?);
        // The converter counts heads and dimensions as the latent's cache has them.
        for (name, expected) in [
            ("attention.head_count_kv", 1),
            ("attention.key_length", rank.saturating_add(rope)),
            ("attention.value_length", rank),
            ("nextn_predict_layers", 0),
        ] {
            if let Some(other) = self.integer(&key(name))?.filter(|&other| other != expected) {
                return refuse(name, format!("= {other}"), &format!("must be {expected} in a latent model"));
            }
        }
        if let Some(other) = self.number(&key("attention.temperature_scale"))?.filter(|&scale| scale != 0.0) {
            let why = "queries that grow with their position are read from directories only";
            return refuse("attention.temperature_scale", format!("= {other}"), why);
        }
        let Some(nope) = head.checked_sub(rope) else {
            return refuse(split, format!("= {head}"), &format!("must be more than the {rope} rotated dimensions"));
        };
        for (name, value) in [
            ("kv_lora_rank", json!(rank)),
            ("q_lora_rank", json!(self.integer(&key("attention.q_lora_rank"))?.filter(|&rank| rank > 0))),
            ("qk_rope_head_dim", json!(rope)),
            ("qk_nope_head_dim", json!(nope)),
            ("v_head_dim", json!(value)),
            // llama.cpp rotates neighbours, whatever the original says.
            ("rope_interleave", json!(true)),
            ("rope_scaling", self.latent_scaling(architecture)?),
        ] {
            config.insert(name.into(), value);
        }
        self.add_experts(architecture, config)
    }

    /// The mixture's keys. Which layers have one, the tensors say.
    fn add_experts(&self, architecture: &str, config: &mut Map<String, Value>) -> Result<()> {
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &str| self.integer(&key(name));
        let sizes = ["num_hidden_layers", "vocab_size"].map(|name| config.get(name).and_then(Value::as_u64));
        let sigmoid = match number("expert_gating_func")?.unwrap_or(0) {
            SIGMOID => true,
            SOFTMAX => false,
            // GLM-4.7-Flash was converted without the key at first; llama.cpp knows it by its sizes.
            0 => matches!(sizes, [Some(47 | 48), Some(154_880)]),
            other => {
                return Err(Error::Unsupported {
                    what: format!("`{}` = {other} in {}", key("expert_gating_func"), self.path.display()),
                    why: format!("only softmax ({SOFTMAX}) and sigmoid ({SIGMOID}) are known"),
                });
            }
        };
        let groups = number("expert_group_count")?.unwrap_or(1);
        // No factor is none, which llama.cpp writes as 0 too.
        let factor = self.number(&key("expert_weights_scale"))?.filter(|&factor| factor != 0.0).unwrap_or(1.0);
        // The scores tell DeepSeek-V2's models from V3's. V2's rule of groups is that of its makers.
        let class = if sigmoid { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" };
        let method = match (sigmoid, groups) {
            (true, _) => "noaux_tc",
            (false, 0 | 1) => "greedy",
            (false, _) => "group_limited_greedy",
        };
        for (name, value) in [
            ("architectures", json!([class])),
            ("topk_method", json!(method)),
            ("scoring_func", json!(if sigmoid { "sigmoid" } else { "softmax" })),
            ("norm_topk_prob", json!(self.flag(&key("expert_weights_norm"))?.unwrap_or(false))),
            ("routed_scaling_factor", json!(factor)),
            ("n_group", json!(groups)),
            ("topk_group", json!(number("expert_group_used_count")?.unwrap_or(1))),
            ("n_routed_experts", json!(number("expert_count")?.filter(|&experts| experts > 0))),
            ("n_shared_experts", json!(number("expert_shared_count")?)),
            ("num_experts_per_tok", json!(number("expert_used_count")?)),
            ("moe_intermediate_size", json!(number("expert_feed_forward_length")?)),
        ] {
            config.insert(name.into(), value);
        }
        Ok(())
    }

    /// The scaled rotation. Of YaRN's two factors the format has `mscale_all_dim`, times 0.1, and llama.cpp takes `mscale`
    /// for the same, so that cosines and sines are left as they are.
    fn latent_scaling(&self, architecture: &str) -> Result<Value> {
        let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
        let refuse = |name: &str, what: String, why: &str| {
            let what = format!("`{}` {what} in {}", key(name), self.path.display());
            Err(Error::Unsupported { what, why: why.into() })
        };
        let kind = self.text(&key("type"))?;
        let multiplier = self.number(&key("yarn_log_multiplier"))?;
        if kind.as_deref() != Some("yarn") {
            if let Some(multiplier) = multiplier.filter(|&multiplier| multiplier != 0.0) {
                return refuse("yarn_log_multiplier", format!("= {multiplier}"), "is known beside type `yarn` only");
            }
            return self.rope_scaling(architecture);
        }
        for name in ["yarn_ext_factor", "yarn_attn_factor"] {
            if let Some(factor) = self.number(&key(name))?.filter(|&factor| factor != 1.0) {
                return refuse(name, format!("= {factor}"), "can only be read where it is 1");
            }
        }
        let Some(multiplier) = multiplier.filter(|&multiplier| multiplier > 0.0) else {
            let why = "without it llama.cpp scales rotated and unrotated scores in a way that no model does";
            return refuse("yarn_log_multiplier", "is missing or 0".into(), why);
        };
        // Both are decimals of few digits that f32 holds: 0.0707 means 0.707.
        let mscale = ((multiplier * 10.0) as f32).to_string().parse::<f64>().unwrap_or(multiplier * 10.0);
        Ok(json!({
            "rope_type": "yarn",
            "factor": self.number(&key("factor"))?,
            "original_max_position_embeddings": self.integer(&key("original_context_length"))?,
            "beta_fast": self.number(&key("yarn_beta_fast"))?,
            "beta_slow": self.number(&key("yarn_beta_slow"))?,
            "mscale": mscale,
            "mscale_all_dim": mscale,
        }))
    }
}

/// A tensor of the file, under its own name.
type Own<'a> = (&'a str, &'a TensorInfo);

/// Where a tensor of Hugging Face's lies in a file.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// By itself.
    Whole(Own<'a>),
    /// The matrix of this number in a stack of them, as experts have it.
    Stacked(Own<'a>, usize),
    /// `kv_b_proj`, head by head: its key rows transposed, `[heads, rank, nope]`, and its value rows, `[heads, value, rank]`.
    Split { key: Own<'a>, value: Own<'a> },
}

/// The end of the name of the tensor that the converter splits.
const SPLIT: &str = ".self_attn.kv_b_proj.weight";

/// What stands before the number of an expert in a name.
const EXPERTS: &str = ".mlp.experts.";

impl Place<'_> {
    /// Hugging Face's shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Whole((_, info)) => info.shape.dims().to_vec(),
            Self::Stacked((_, info), _) => info.shape.dims()[1..].to_vec(),
            Self::Split { key: (_, key), value: (_, value) } => {
                let (key, value) = (key.shape.dims(), value.shape.dims());
                vec![key[0] * (key[2] + value[1]), key[1]]
            }
        }
    }

    /// What the file has of it, for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Whole((own, info)) | Self::Stacked((own, info), _) => super::describe(own, info),
            Self::Split { key, value } => {
                format!("{} and {}", super::describe(key.0, key.1), super::describe(value.0, value.1))
            }
        }
    }
}

/// Hugging Face's name of a tensor that stands for all that are read of one in the file: of a stack that of the first
/// expert's matrix, of both parts of `kv_b_proj` its own.
pub(super) fn listed(name: &str) -> String {
    if let Some((layer, map)) = name.split_once(EXPERTS) {
        return format!("{layer}{EXPERTS}0.{map}");
    }
    name.replace(".k_b_proj.", ".kv_b_proj.").replace(".v_b_proj.", ".kv_b_proj.")
}

impl GgufSource {
    /// Where a tensor lies, if it is there.
    pub(super) fn place(&self, name: &str) -> Option<Place<'_>> {
        if let Some(whole) = self.info(name) {
            return Some(Place::Whole(whole));
        }
        if let Some(layer) = name.strip_suffix(SPLIT) {
            let part = |part: &str| self.info(&format!("{layer}.self_attn.{part}.weight"));
            let (key, value) = (part("k_b_proj")?, part("v_b_proj")?);
            let (&[heads, rank, _], &[others, _, other]) = (key.1.shape.dims(), value.1.shape.dims()) else {
                return None;
            };
            return ((heads, rank) == (others, other)).then_some(Place::Split { key, value });
        }
        let (layer, rest) = name.split_once(EXPERTS)?;
        let (number, map) = rest.split_once('.')?;
        let number = number.parse::<usize>().ok().filter(|parsed| parsed.to_string() == number)?;
        let (own, info) = self.info(&format!("{layer}{EXPERTS}{map}"))?;
        let &[experts, _, _] = info.shape.dims() else { return None };
        (number < experts).then_some(Place::Stacked((own, info), number))
    }

    /// The rows of `kv_b_proj`: of each head those of the key, then those of the value.
    pub(super) fn read_split(&self, (key, key_info): Own, (value, value_info): Own) -> Result<Vec<f32>> {
        let &[heads, rank, nope] = key_info.shape.dims() else {
            let expected = "one matrix for each head".to_owned();
            return Err(unfit(self.path(), key, expected, Some(super::describe(key, key_info))));
        };
        let per_head = value_info.shape.elem_count() / heads;
        let (keys, values) = (self.read_own(key, key_info, None)?, self.read_own(value, value_info, None)?);
        let mut rows = Vec::with_capacity(keys.len() + values.len());
        for (key, value) in keys.chunks_exact(rank * nope).zip(values.chunks_exact(per_head)) {
            rows.extend((0..nope).flat_map(|row| key.iter().skip(row).step_by(nope)));
            rows.extend(value);
        }
        Ok(rows)
    }
}
