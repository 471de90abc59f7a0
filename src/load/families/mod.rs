//! The model families whose layers can be read: one table of them, one file for each.
//!
//! A family says by which names models call themselves, what its configuration says about the sizes of the attention, and
//! how a layer's tensors become the crate's own terms. `docs/adding-a-model.md` adds one, step by step.

mod axk1;
mod axk2;
mod bailing_hybrid;
mod deepseek;
mod deepseek_v32;
mod dense;
mod gemma;
mod gemma2;
mod glm4;
mod glm4_moe_lite;
mod glm_moe_dsa;
mod granite;
mod hybrid;
mod kept_pairs;
mod kimi_linear;
mod llama;
mod longcat_flash;
mod mha2mla;
mod minicpm3;
mod ministral;
mod mistral;
mod mistral4;
mod mla;
mod phi3;
mod qwen2;
mod qwen3;
mod refused;
mod routing;
mod sarvam_mla;
mod shared_key;
mod smollm3;
mod youtu;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub(super) use self::mha2mla::FREQUENCY_INDEX;
pub(super) use self::mla::{scale, scaled_matrix, scaled_outputs};
pub(super) use self::routing::Routing;
pub(super) use self::shared_key::SHARED_KEY_CLASS;
use super::checkpoint::OutputGate;
use super::config::{DeepSeekDims, Factors, ModelConfig, OWN_KEYS, QueryScaling, RotatedLayers};
use super::fields::Fields;
use super::rope_object::{RopeRules, RotatedPart};
use super::source::TensorSource;
use crate::error::{Error, Result};
use crate::weights::{DenseAttention, LatentAttention};

/// Makes the public enumeration and the table of it from one list, so that neither can lack a family of the other.
macro_rules! families {
    ($($(#[$doc:meta])* $architecture:ident => $module:ident,)*) => {
        /// The model families whose layers can be read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Architecture {
            $($(#[$doc])* $architecture,)*
        }

        impl Architecture {
            /// All of them, in the order in which errors name them.
            pub(super) const ALL: &[Self] = &[$(Self::$architecture,)*];

            pub(super) fn family(self) -> &'static Family {
                match self {
                    $(Self::$architecture => &$module::FAMILY,)*
                }
            }
        }
    };
}

families! {
    /// Llama and everything that shares its layout (SmolLM among others): MHA or GQA, no biases unless said.
    Llama => llama,
    /// Qwen2 and Qwen1.5: as Llama, with biases on queries, keys and values.
    Qwen2 => qwen2,
    /// DeepSeek V2, V3 and R1: latent attention with one shared rotated key.
    DeepSeek => deepseek,
    /// Mistral from v0.2 on, without a sliding window: as Llama, without biases.
    Mistral => mistral,
    /// A.X K1: as DeepSeek-V3.
    Axk1 => axk1,
    /// Youtu-LLM: as DeepSeek-V3, without experts.
    Youtu => youtu,
    /// GLM-4.7-Flash: as DeepSeek-V3.
    Glm4MoeLite => glm4_moe_lite,
    /// Sarvam's latent models: as DeepSeek-V3.
    SarvamMla => sarvam_mla,
    /// MiniCPM3: as DeepSeek, with pairs of halves and factors around the layers.
    MiniCpm3 => minicpm3,
    /// Mistral 4: as DeepSeek-V3, with queries that grow with their position.
    Mistral4 => mistral4,
    /// LongCat-Flash: two attentions a layer, DeepSeek's with scaled latents.
    LongcatFlash => longcat_flash,
    /// DeepSeek-V3.2: as DeepSeek-V3 in contexts of up to `index_topk` tokens.
    DeepSeekV32 => deepseek_v32,
    /// GLM-5: as DeepSeek-V3.2.
    GlmMoeDsa => glm_moe_dsa,
    /// Kimi Linear: DeepSeek's layers among those of linear attention, without rotation.
    KimiLinear => kimi_linear,
    /// Ministral: as Mistral, with a type for each layer.
    Ministral => ministral,
    /// Phi-3 and Phi-4: as Llama, with projections in one tensor, of which a part of each head may be rotated.
    Phi3 => phi3,
    /// Qwen3: as Llama, with norms over heads of queries and keys.
    Qwen3 => qwen3,
    /// Granite: as Llama, with factors on scores and around the layers.
    Granite => granite,
    /// A.X K2: as DeepSeek-V3.2, with gates on the output.
    Axk2 => axk2,
    /// Bailing's hybrid models (Ling 3): DeepSeek's layers, with gates on their output, among those of linear attention.
    BailingHybrid => bailing_hybrid,
    /// GLM-4: as Llama, with a part of each head rotated, in neighbouring dimensions.
    Glm4 => glm4,
    /// SmolLM3: as Llama, with layers among the others that rotate nothing.
    SmolLm3 => smollm3,
    /// Gemma: Llama's attention between norms and MLPs of another kind, which are not read.
    Gemma => gemma,
    /// Gemma 2 without a soft cap on scores and without windows: as Gemma, with a scale of its own on scores.
    Gemma2 => gemma2,
}

/// The layouts that a converted model may have, in the order in which they are looked for.
pub(super) const CONVERSIONS: &[Conversion] = &[shared_key::CONVERSION, mha2mla::CONVERSION];

/// What tells the models of a family from others, and how they are read.
pub(super) struct Family {
    /// How its models call themselves: one name or more.
    pub names: &'static [Name],
    /// Its models in GGUF files, if they can be read from those.
    #[cfg_attr(not(feature = "gguf"), allow(dead_code))]
    pub gguf: Option<GgufName>,
    /// What its configurations may say about scaled rotation.
    pub rope: RopeRules,
    /// Where queries, keys and values have biases.
    pub biases: Biases,
    /// Reads the sizes of the attention.
    pub parse: fn(&Name, Fields, Frame) -> Result<AttentionSizes>,
    /// The layouts that converted models of the family may have; none where attention is latent already.
    pub conversions: &'static [Conversion],
    /// What the sizes of the whole model are called.
    pub keys: Keys,
    /// Whether the head is the embedding in configurations that do not say.
    pub tied: bool,
    /// What `layer_types` may hold.
    pub layer_types: &'static [&'static str],
    /// What `hidden_act` may be; silu in all families whose MLPs are read.
    pub activations: &'static [&'static str],
    /// Takes out of the configuration of a converted model what its weights carry already.
    pub fold: fn(&mut Map<String, Value>, &ModelConfig),
}

impl Family {
    /// A family of latent attention whose models say nothing that others do not, and the fields in which most are alike.
    const PLAIN: Self = Self {
        names: &[],
        gguf: None,
        rope: RopeRules::LATENT,
        biases: Biases::AsConfigured,
        parse: deepseek::parse_as_configured,
        conversions: &[],
        keys: Keys::USUAL,
        tied: false,
        // The second name is an older one of the first.
        layer_types: &["full_attention", "attention"],
        activations: &["silu"],
        fold: |_, _| {},
    };

    /// The class that converted models name as what they come from.
    pub fn class(&self) -> &'static str {
        self.names[0].class
    }
}

/// What a family calls the sizes of the whole model.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    /// Layers of the model.
    pub layers: &'static str,
    /// Attentions in each of them.
    pub attentions_per_layer: usize,
    /// Width inside an MLP.
    pub intermediate: &'static str,
    /// Longest context.
    pub positions: &'static str,
    /// The tensor of the token embedding.
    pub embedding: &'static str,
}

impl Keys {
    pub(super) const USUAL: Self = Self {
        layers: "num_hidden_layers",
        attentions_per_layer: 1,
        intermediate: "intermediate_size",
        positions: "max_position_embeddings",
        embedding: "model.embed_tokens.weight",
    };
}

/// One name of a family's models in `config.json`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// In `architectures`.
    pub class: &'static str,
    /// In `model_type`, for configurations without `architectures`.
    pub model_type: &'static str,
}

/// A family in GGUF files.
#[cfg_attr(not(feature = "gguf"), allow(dead_code))]
pub(super) struct GgufName {
    /// In `general.architecture`.
    pub architecture: &'static str,
    /// Whether llama.cpp rotates the family in interleaved pairs, for which its converter reorders the rows of queries
    /// and keys.
    pub reordered: bool,
    /// Whether the file may scale the frequencies by a table of divisors.
    pub divisors: bool,
    /// Which tensors its layers have.
    pub layers: GgufLayers,
}

/// Which tensors the layers of a family have in GGUF files.
#[cfg_attr(not(feature = "gguf"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GgufLayers {
    /// Those of Llama and Qwen2.
    Dense,
    /// The same, and norms over heads of queries and keys.
    HeadNorms,
    /// Those of DeepSeek.
    Latent,
}

/// Whether queries, keys and values have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Biases {
    /// In every model of the family.
    Always,
    /// Where `attention_bias` says so.
    AsConfigured,
    /// Unless `attention_bias` says that there are none.
    UnlessOff,
    /// In no model of the family, whatever `attention_bias` says.
    Never,
}

impl Biases {
    pub fn parse(self, config: Fields) -> Result<bool> {
        match self {
            Self::Always => Ok(true),
            Self::AsConfigured => config.flag("attention_bias"),
            Self::UnlessOff => config.switch("attention_bias", true),
            Self::Never => Ok(false),
        }
    }
}

/// Sizes that stand in every configuration, read before those of the attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads, H.
    pub query_heads: usize,
}

/// What a configuration says about the sizes of the attention.
pub(super) struct AttentionSizes {
    /// KV heads, G.
    pub kv_heads: usize,
    /// Query/key dimensions per head.
    pub head_dim: usize,
    /// How many of them are rotated.
    pub rotated: RotatedPart,
    /// Sizes that only DeepSeek's attention has.
    pub deepseek: Option<DeepSeekDims>,
    /// Which layers rotate.
    pub rotated_layers: RotatedLayers,
    /// Factors on the embedding, on what layers add and on the logits.
    pub factors: Factors,
    /// How queries grow with their position.
    pub query_scaling: Option<QueryScaling>,
    /// Tokens up to which each token attends to all before it, if it attends to a choice of them beyond.
    pub sparse_beyond: Option<usize>,
    /// Whether gates stand between the heads and the output projection.
    pub gated_output: bool,
    /// Reads the layers, unless the model was converted.
    pub layout: AnyLayout,
}

/// How the layers of one model lie in its files.
pub(super) trait Layout: Send + Sync {
    /// Reads the attention of one layer.
    fn attention(&self, layer: &Layer) -> Result<Attention>;

    /// What the names of a layer's attention tensors begin with, without the dot.
    fn module(&self, index: usize) -> String {
        format!("model.layers.{index}.self_attn")
    }

    /// Modules inside the attention that it can do without, or that are read beside it.
    fn unneeded(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the gate and the up-projection of an MLP are one tensor, `gate_up_proj`.
    fn fused_mlp(&self) -> bool {
        false
    }

    /// Why what lies around the attentions cannot be read, if so.
    fn block_refusal(&self) -> Option<&'static str> {
        None
    }

    /// Reads the gates on the output of a layer's attention, in families that have them.
    fn output_gate(&self, _layer: &Layer) -> Result<Option<OutputGate>> {
        Ok(None)
    }

    /// How tokens choose among a layer's experts, in the families whose mixtures are known.
    fn routing(&self) -> Option<Routing> {
        None
    }

    /// Modules of a layer beside its attention that it can do without.
    fn unneeded_beside(&self) -> &'static [&'static str] {
        &[]
    }

    /// A file beside the weights that says more about the layers, if there should be one. `directory` is the model's.
    fn ranks_file(&self, _directory: &Path) -> Option<PathBuf> {
        None
    }
}

/// One layer that is being read.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub source: &'a dyn TensorSource,
    pub model: &'a ModelConfig,
    /// Where the model's files lie.
    pub directory: &'a Path,
    pub index: usize,
    /// What the names of the attention's tensors begin with, without the dot.
    pub module: &'a str,
}

impl Layer<'_> {
    /// The full name of a tensor or module.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.module)
    }
}

/// How the layers of one model are read, whatever its family.
pub(super) type AnyLayout = Box<dyn Layout>;

/// A way to write the converted models of a family.
pub(super) struct Conversion {
    /// Keys of `config.json` that are its own. A model that is converted anew loses them.
    pub keys: &'static [&'static str],
    /// Reads those keys; `None` if the model was not converted this way.
    pub parse: fn(Fields, &ModelConfig) -> Result<Option<AnyLayout>>,
}

/// One attention layer, in the form that the checkpoint stores.
// One value per layer, a handful of megabytes each: the variants' sizes do not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Attention {
    /// MHA or GQA.
    Dense(DenseAttention),
    /// Latent attention: DeepSeek's, or converted by MHA2MLA.
    Latent(LatentAttention),
}

/// The names of all families with their families.
fn names() -> impl Iterator<Item = (Architecture, &'static Name)> {
    Architecture::ALL.iter().flat_map(|family| family.family().names.iter().map(|name| (*family, name)))
}

/// The family of a model, and by which of its names the model calls itself.
pub(super) fn find(config: Fields) -> Result<(Architecture, &'static Name)> {
    let mut class = config.optional_array("architectures")?.and_then(|names| names.first()).and_then(|v| v.as_str());
    let model_type = config.optional_text("model_type")?;
    if class == Some(SHARED_KEY_CLASS) {
        // One of ours, whose other layers are those of the class it was converted from.
        let own = config.optional_object(OWN_KEYS)?;
        class = Some(own.map(|own| own.text("converted_from")).transpose()?.unwrap_or("none"));
    }
    let known = names().find(|(_, name)| match class {
        Some(class) => name.class == class,
        None => Some(name.model_type) == model_type,
    });
    known.ok_or_else(|| {
        let known: Vec<_> = names().map(|(_, name)| name.class).collect();
        let known = format!("known architectures are {}", known.join(", "));
        Error::Unsupported {
            what: format!("architecture `{}` in {}", class.or(model_type).unwrap_or("none"), config.path.display()),
            why: refused::find(class, model_type)
                .map_or_else(|| known.clone(), |family| format!("{}; {known}", family.why)),
        }
    })
}

/// The family that a GGUF file names, with what it is in GGUF files.
#[cfg(feature = "gguf")]
pub(super) fn find_gguf(architecture: &str) -> std::result::Result<(&'static Family, &'static GgufName), String> {
    let known = || Architecture::ALL.iter().map(|known| known.family()).filter_map(|f| Some((f, f.gguf.as_ref()?)));
    known().find(|(_, gguf)| gguf.architecture == architecture).ok_or_else(|| {
        let names: Vec<_> = known().map(|(_, gguf)| gguf.architecture).collect();
        let (last, others) = names.split_last().unwrap_or((&"none", &[]));
        format!("the architectures known in GGUF files are {} and {last}", others.join(", "))
    })
}

/// Refuses a model by what a key of its configuration says.
fn refuse_key<T>(config: Fields, key: &str, value: &str, why: &str) -> Result<T> {
    Err(Error::Unsupported { what: format!("{key} `{value}` in {}", config.path.display()), why: why.into() })
}

/// Refuses heads that are too wide: index tables are made from these two sizes before any tensor is seen.
pub(super) fn check_width(config: Fields, heads: usize, head_dim: usize) -> Result<()> {
    const MAX_WIDTH: usize = 1 << 24;
    if heads * head_dim <= MAX_WIDTH {
        return Ok(());
    }
    Err(config.error(format!("{heads} heads of {head_dim} dimensions are more than {MAX_WIDTH} dimensions")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a`, `b`
    fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
        names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_family_has_names_of_its_own() {
        assert!(Architecture::ALL.iter().all(|known| !known.family().names.is_empty()));
        let all: Vec<_> = names().map(|(_, name)| name).collect();
        for (i, name) in all.iter().enumerate() {
            let same = |other: &&Name| other.class == name.class || other.model_type == name.model_type;
            assert!(!all[i + 1..].iter().any(same), "{name:?}");
        }
    }

    #[test]
    fn the_documentation_lists_the_families_of_the_table() {
        let page = include_str!("../../../docs/models.md");
        let section = page.split("## Families").nth(1).and_then(|rest| rest.split("##").next()).expect("a section");
        let listed: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
        let rows = Architecture::ALL.iter().map(|architecture| {
            let family = architecture.family();
            let [classes, model_types, gguf, types] = [
                list(family.names.iter().map(|name| name.class)),
                list(family.names.iter().map(|name| name.model_type)),
                family.gguf.as_ref().map_or("not read".into(), |gguf| list([gguf.architecture])),
                Some(list(family.rope.type_names())).filter(|types| !types.is_empty()).unwrap_or("none".into()),
            ];
            format!("| {architecture:?} | {classes} | {model_types} | {gguf} | {types} |")
        });
        assert_eq!(listed, rows.collect::<Vec<_>>());

        let overview = include_str!("../mod.rs").lines().filter(|line| line.starts_with("//! | ")).collect::<String>();
        for architecture in Architecture::ALL {
            assert!(overview.contains(&format!("{architecture:?}")), "{architecture:?}");
        }
    }
}
