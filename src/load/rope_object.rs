//! One `rope_scaling` or `rope_parameters` object of a configuration.

use super::fields::Fields;
use super::frequencies::Rotation;
use crate::error::{Error, Result};

/// Keys that may stand beside every type of scaling.
const COMMON_KEYS: &[&str] = &["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// What the configurations of a family may say about rotation.
pub(crate) struct RopeRules {
    /// The types of scaling that they know; none in a family that rotates nothing.
    pub types: &'static [RopeType],
    /// Whether `mscale_all_dim` scales the softmax, with every type but `default`: with YaRN and without.
    pub scales_softmax: bool,
    /// Base of the frequencies where a configuration names none.
    pub theta: f64,
    /// `original_max_position_embeddings` of configurations without it at the top, in families that have a number there.
    pub original_positions: Option<f64>,
}

/// How much of a head is rotated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RotatedPart {
    /// Rotated dimensions.
    pub dim: usize,
    /// The dimensions of which `partial_rotary_factor` names a part.
    pub of: usize,
}

impl RopeRules {
    /// What all families of MHA and GQA know.
    pub const DENSE: Self = Self {
        types: &[
            RopeType::DEFAULT,
            RopeType::LINEAR,
            RopeType::LLAMA3,
            RopeType::YARN_WITHOUT_SOFTMAX,
            RopeType::DYNAMIC,
            RopeType::LONGROPE,
        ],
        scales_softmax: false,
        theta: 10_000.0,
        original_positions: None,
    };

    /// What DeepSeek's families know.
    pub const LATENT: Self = Self {
        types: &[RopeType::DEFAULT, RopeType::LINEAR, RopeType::LLAMA3, RopeType::YARN],
        scales_softmax: true,
        ..Self::DENSE
    };

    /// Those of a family whose attention knows no positions.
    pub const NONE: Self = Self { types: &[], ..Self::DENSE };

    /// The names of the types.
    pub fn type_names(&self) -> impl Iterator<Item = &'static str> {
        self.types.iter().map(|known| known.name)
    }
}

/// A type of scaling.
pub(crate) struct RopeType {
    /// In `rope_type`.
    name: &'static str,
    /// The keys that it reads, besides the common ones.
    keys: &'static [&'static str],
    /// Scales a plain rotation of so many dimensions.
    apply: fn(&mut Rotation, &RopeObject, usize) -> Result<()>,
}

/// The type of an object that names none.
const DEFAULT_TYPE: &str = "default";

impl RopeType {
    pub const DEFAULT: Self = Self { name: DEFAULT_TYPE, keys: &[], apply: |_, _, _| Ok(()) };
    pub const LINEAR: Self = Self { name: "linear", keys: &["factor"], apply: Rotation::apply_linear };
    pub const LLAMA3: Self = Self {
        name: "llama3",
        keys: &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        apply: Rotation::apply_llama3,
    };
    pub const YARN: Self = Self {
        name: "yarn",
        keys: &[
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "truncate",
            "mscale",
            "attention_factor",
        ],
        apply: Rotation::apply_yarn,
    };
    /// YaRN in families whose softmax has its usual scale: `mscale_all_dim` is for the factor on cosines and sines alone.
    pub const YARN_WITHOUT_SOFTMAX: Self = Self {
        keys: &[
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "truncate",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
        ],
        ..Self::YARN
    };
    /// A base that grows with the context, once that is longer than the model was made for.
    pub const DYNAMIC: Self = Self { name: "dynamic", keys: &["factor"], apply: Rotation::apply_dynamic };
    /// A divisor for each pair; another one, in contexts that are longer than the original.
    pub const LONGROPE: Self = Self {
        name: "longrope",
        keys: &["short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"],
        apply: Rotation::apply_longrope,
    };
    /// An older name of the same.
    pub const SU: Self = Self { name: "su", ..Self::LONGROPE };
    /// Another name of YaRN.
    pub const DEEPSEEK_YARN: Self = Self { name: "deepseek_yarn", ..Self::YARN };
    /// YaRN, beside a factor on queries that grows with their position; the family reads that factor's key itself.
    pub const YARN_BESIDE_QUERY_SCALING: Self = Self {
        keys: &[
            "factor",
            "original_max_position_embeddings",
            "max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "truncate",
            "mscale",
            "attention_factor",
            QUERY_SCALING_KEY,
        ],
        ..Self::YARN
    };
}

/// The key that makes queries grow with their position (Mistral 4).
pub(crate) const QUERY_SCALING_KEY: &str = "llama_4_scaling_beta";

/// What an object says, and what the configuration around it adds.
#[derive(Clone, Copy)]
pub(crate) struct RopeObject<'a> {
    pub name: &'static str,
    /// The object's own keys.
    pub own: Fields<'a>,
    /// The configuration's keys.
    pub config: Fields<'a>,
    /// Those of the model's family.
    pub rules: &'static RopeRules,
}

/// The base of the frequencies: an object's own `rope_theta` goes before that of the configuration.
pub(crate) fn theta(config: Fields, object: Option<Fields>, rules: &RopeRules) -> Result<f64> {
    let nested = object.map(|own| own.optional_positive("rope_theta")).transpose()?.flatten();
    Ok(nested.or(config.optional_positive("rope_theta")?).unwrap_or(rules.theta))
}

/// Refuses models that rotate another part of each head than their layers do here. Old configurations say so at the top,
/// newer ones in the object.
pub(crate) fn refuse_partial_rotation(fields: Fields, RotatedPart { dim, of }: RotatedPart) -> Result<()> {
    let fits = |part: f64| if dim == of { part == 1.0 } else { (part * of as f64) as usize == dim };
    match fields.optional_number("partial_rotary_factor")?.filter(|part| !fits(*part)) {
        None => Ok(()),
        Some(part) => Err(Error::Unsupported {
            what: format!("partial_rotary_factor {part} in {}", fields.path.display()),
            why: if dim == of {
                "only models that rotate whole heads can be read".into()
            } else {
                format!("the other sizes say that {dim} of {of} dimensions are rotated")
            },
        }),
    }
}

impl<'a> RopeObject<'a> {
    /// The object of that name, if the configuration has it.
    pub fn find(config: Fields<'a>, name: &'static str, rules: &'static RopeRules) -> Result<Option<Self>> {
        Ok(config.optional_object(name)?.map(|own| Self { name, own, config, rules }))
    }

    /// The rotation that the object means.
    pub fn rotation(&self, part: RotatedPart) -> Result<Rotation> {
        let dim = part.dim;
        refuse_partial_rotation(self.own, part)?;
        let mut rotation = Rotation::plain(theta(self.config, Some(self.own), self.rules)?, dim);
        let kind = self.kind()?;
        let Some(scaling) = self.rules.types.iter().find(|known| known.name == kind) else {
            let known: Vec<_> = self.rules.type_names().collect();
            return Err(Error::Unsupported {
                what: format!("{} type `{kind}` in {}", self.name, self.own.path.display()),
                why: format!("the types known for this architecture are {}", known.join(", ")),
            });
        };
        self.refuse_other_keys(kind, scaling.keys)?;
        (scaling.apply)(&mut rotation, self, dim)?;
        if self.scales_softmax(kind) {
            rotation.apply_softmax_factor(self)?;
        }
        match rotation.not_finite() {
            Some(bad) => Err(self.own.error(format!("{} `{kind}` yields the factor or frequency {bad}", self.name))),
            None => Ok(rotation),
        }
    }

    /// `rope_type`, which older configurations call `type`; some have both.
    fn kind(&self) -> Result<&'a str> {
        match (self.own.optional_text("rope_type")?, self.own.optional_text("type")?) {
            (Some(kind), Some(old)) if kind != old => Err(Error::Config {
                what: format!("{} in {}", self.name, self.own.path.display()),
                why: format!("`rope_type` says `{kind}` and `type` says `{old}`; remove the wrong one"),
            }),
            (kind, old) => Ok(kind.or(old).unwrap_or(DEFAULT_TYPE)),
        }
    }

    /// Whether the softmax scale takes `mscale_all_dim` into account.
    fn scales_softmax(&self, kind: &str) -> bool {
        self.rules.scales_softmax && kind != DEFAULT_TYPE
    }

    /// A key that no rule reads would change what the model computes elsewhere, and not here.
    fn refuse_other_keys(&self, kind: &str, keys: &[&str]) -> Result<()> {
        let softmax = self.scales_softmax(kind).then_some("mscale_all_dim");
        let known: Vec<&str> = keys.iter().copied().chain(softmax).collect();
        let is_known = |key: &str| COMMON_KEYS.contains(&key) || known.contains(&key);
        let Some((key, value)) = self.own.present().find(|(key, _)| !is_known(key)) else { return Ok(()) };
        let why = if value.is_object() {
            "rotations that differ between types of layers cannot be read".to_owned()
        } else {
            format!("type `{kind}` knows {}", [COMMON_KEYS, &known].concat().join(", "))
        };
        Err(Error::Unsupported {
            what: format!("unknown key `{}.{key}` in {}", self.name, self.own.path.display()),
            why,
        })
    }

    /// Tokens of the context before it was stretched. As in transformers, a value at the top of the configuration
    /// goes before the object's own, and `max_position_embeddings` stands in for both.
    pub fn original_positions(&self) -> Result<f64> {
        let key = "original_max_position_embeddings";
        let top = self.config.optional_positive(key)?.or(self.rules.original_positions);
        match top.or(self.own.optional_positive(key)?) {
            Some(original) => Ok(original),
            None => self.config.positive("max_position_embeddings"),
        }
    }

    /// What the object means, for a message: its type, the base of its frequencies, and its other keys.
    pub fn describe(&self) -> Result<String> {
        let others = self.own.present().filter(|(key, _)| !["rope_type", "type", "rope_theta"].contains(key));
        let others: String = others.map(|(key, value)| format!(", {key} {value}")).collect();
        let theta = theta(self.config, Some(self.own), self.rules)?;
        Ok(format!("`{}` means type `{}` with rope_theta {theta}{others}", self.name, self.kind()?))
    }
}
