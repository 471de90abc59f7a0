//! What a GGUF file says about its model, in the keys of Hugging Face's `config.json`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{DEFAULT_ALIGNMENT, Value};
use serde_json::{Map, json};

use super::GgufSource;
use super::names::ROPE_DIVISORS;
use crate::error::{Error, Result};
use crate::load::families::{Family, GgufLayers, GgufName, find_gguf};
use crate::load::source::{TensorSource, missing, unfit};
use crate::load::tokenizer::Tokenizer;
use crate::rope::theta_frequencies;

const ARCHITECTURE: &str = "general.architecture";

/// Typed access to the metadata, with errors that name the key.
pub(super) struct Metadata<'a> {
    pub path: &'a Path,
    pub values: &'a HashMap<String, Value>,
}

impl<'a> Metadata<'a> {
    fn error(&self, why: String) -> Error {
        Error::File { path: self.path.to_owned(), why }
    }

    fn typed<T>(&self, key: &str, kind: &str, convert: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || self.error(format!("`{key}` must be {kind}, got {}", describe(value)));
        convert(value).map(Some).ok_or_else(wrong)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("`{key}` is missing")))
    }

    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "a string", text)
    }

    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number", |value| integer(value).and_then(|n| u64::try_from(n).ok()))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", number)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| value.to_bool().ok())
    }

    fn array<T>(&self, key: &str, kind: &str, element: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let array = self.typed(key, kind, |value| value.to_vec().ok()?.iter().map(&element).collect())?;
        Ok(array.unwrap_or_default())
    }

    /// What the beginnings of tensors are multiples of, in bytes.
    ///
    /// candle takes the usual 32 where the number is of a type that it does not expect, and would read all weights from
    /// the wrong place.
    pub fn alignment(&self) -> Result<u64> {
        let key = "general.alignment";
        let alignment = self.typed(key, "a u32, as the format has it", |value| value.to_u32().ok())?;
        match alignment.map_or(DEFAULT_ALIGNMENT, u64::from) {
            alignment if alignment != 0 && alignment.is_multiple_of(8) => Ok(alignment),
            other => Err(self.error(format!("`{key}` must be a multiple of 8, got {other}"))),
        }
    }

    /// The model's family, by the name that it has in GGUF files.
    pub fn family(&self) -> Result<(&'static Family, &'static GgufName)> {
        let architecture = self.required(ARCHITECTURE, self.text(ARCHITECTURE)?)?;
        find_gguf(&architecture).map_err(|why| Error::Unsupported {
            what: format!("architecture `{architecture}` in {}", self.path.display()),
            why,
        })
    }

    /// A whole number that has to be there and be at least 1.
    pub fn size(&self, key: &str) -> Result<u64> {
        match self.required(key, self.integer(key)?)? {
            0 => Err(self.error(format!("`{key}` must be at least 1, got 0"))),
            size => Ok(size),
        }
    }

    /// The configuration as Hugging Face would write it, so that one parser checks both formats.
    pub fn config(&self, source: &GgufSource) -> Result<Map<String, serde_json::Value>> {
        let (family, GgufName { architecture, layers, .. }) = self.family()?;
        let key = |name: &str| format!("{architecture}.{name}");
        let embedding = "model.embed_tokens.weight";
        let vocab = source.shape(embedding).and_then(|shape| shape.first().copied());
        let vocab = vocab.ok_or_else(|| missing(source, embedding, "[vocabulary, hidden]"))?;
        self.refuse_what_is_not_computed(architecture)?;
        let mut config = Map::new();
        for (name, value) in [
            ("architectures", json!([family.class()])),
            ("model_type", json!(architecture)),
            ("hidden_act", json!("silu")),
            ("hidden_size", json!(self.size(&key("embedding_length"))?)),
            ("intermediate_size", json!(self.size(&key("feed_forward_length"))?)),
            ("num_hidden_layers", json!(self.size(&key("block_count"))?)),
            ("num_attention_heads", json!(self.size(&key("attention.head_count"))?)),
            ("vocab_size", json!(vocab)),
            ("max_position_embeddings", json!(self.size(&key("context_length"))?)),
            ("rms_norm_eps", json!(self.number(&key("attention.layer_norm_rms_epsilon"))?)),
            ("rope_theta", json!(self.number(&key("rope.freq_base"))?.unwrap_or(10_000.0))),
            ("tie_word_embeddings", json!(source.shape("lm_head.weight").is_none())),
            ("bos_token_id", json!(self.token("bos")?)),
            ("eos_token_id", json!(self.token("eos")?)),
        ] {
            config.insert(name.into(), value);
        }
        if *layers == GgufLayers::Latent {
            self.add_latent(architecture, &mut config)?;
        } else {
            self.add_dense(architecture, source, &mut config)?;
        }
        Ok(config)
    }

    /// Adds what Llama's configuration has beside the keys of all models.
    fn add_dense(
        &self,
        architecture: &str,
        source: &GgufSource,
        config: &mut Map<String, serde_json::Value>,
    ) -> Result<()> {
        let key = |name: &str| format!("{architecture}.{name}");
        if self.integer(&key("expert_count"))?.unwrap_or(0) > 0 {
            return Err(Error::Unsupported {
                what: format!("`{}` in {}", key("expert_count"), self.path.display()),
                why: "a mixture of experts cannot be read".into(),
            });
        }
        let hidden = self.size(&key("embedding_length"))?;
        let heads = self.size(&key("attention.head_count"))?;
        let kv_heads = self.integer(&key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = match self.integer(&key("attention.key_length"))? {
            Some(length) => length,
            None => hidden / heads,
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.integer(&key(name))?.filter(|&n| n != head_dim) {
                return Err(Error::Unsupported {
                    what: format!("`{}` = {other} in {}", key(name), self.path.display()),
                    why: format!("must be the head dimension, {head_dim}"),
                });
            }
        }
        let theta = self.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        let scaling = self.rope_scaling(architecture)?;
        let divided = self.divided_frequencies(source, theta, head_dim, &scaling)?;
        if let Some(kind) = scaling["rope_type"].as_str().filter(|kind| *kind != "linear") {
            // Its sizes stand under keys of the file's own, of which nothing is read.
            return Err(Error::Unsupported {
                what: format!("`{}` = `{kind}` in {}", key("rope.scaling.type"), self.path.display()),
                why: "the types known in GGUF files are none and linear".into(),
            });
        }
        for (name, value) in [
            ("num_key_value_heads", json!(kv_heads)),
            ("head_dim", json!(head_dim)),
            ("rope_scaling", if divided.is_some() { serde_json::Value::Null } else { scaling }),
            ("attention_bias", json!(source.shape("model.layers.0.self_attn.q_proj.bias").is_some())),
        ] {
            config.insert(name.into(), value);
        }
        if let Some(frequencies) = divided {
            config.insert("latent_attention".into(), json!({ "inverse_frequencies": frequencies }));
        }
        Ok(())
    }

    /// Switches by which llama.cpp would compute something else than this crate.
    fn refuse_what_is_not_computed(&self, architecture: &str) -> Result<()> {
        let refuse = |key: &str, value: String, why: &str| {
            Err(Error::Unsupported { what: format!("`{key}` = {value} in {}", self.path.display()), why: why.into() })
        };
        let key = format!("{architecture}.rope.scaling.attn_factor");
        if let Some(factor) = self.number(&key)?.filter(|factor| *factor != 1.0) {
            return refuse(&key, factor.to_string(), "a factor on the rotation can only be read where it is 1");
        }
        let key = format!("{architecture}.attention.causal");
        if self.flag(&key)? == Some(false) {
            return refuse(&key, "false".into(), "only causal attention can be read");
        }
        let key = "split.count";
        match self.integer(key)?.filter(|&files| files > 1) {
            Some(files) => {
                refuse(key, files.to_string(), "is one file of several: merge them (llama-gguf-split --merge)")
            }
            None => Ok(()),
        }
    }

    /// A scaling without a name is linear, and its factor may have the name that older files give it, as in llama.cpp.
    pub fn rope_scaling(&self, architecture: &str) -> Result<serde_json::Value> {
        let factor = |key: &str| self.number(&format!("{architecture}.rope.{key}"));
        let kind = self.text(&format!("{architecture}.rope.scaling.type"))?;
        let factor = match factor("scaling.factor")? {
            Some(factor) => Some(factor),
            None => factor("scale_linear")?,
        };
        Ok(match (kind.as_deref(), factor) {
            (Some("none"), _) | (None, None) => serde_json::Value::Null,
            (kind, factor) => json!({ "rope_type": kind.unwrap_or("linear"), "factor": factor }),
        })
    }

    /// llama.cpp stores Llama 3.1's scaling not by its parameters but as a table of divisors, one per pair. Where a
    /// file has both, it divides by them *and* by the factor of a linear scaling.
    fn divided_frequencies(
        &self,
        source: &GgufSource,
        theta: f64,
        head_dim: u64,
        scaling: &serde_json::Value,
    ) -> Result<Option<Vec<f32>>> {
        let name = ROPE_DIVISORS;
        let Some(info) = source.content.tensor_infos.get(name) else { return Ok(None) };
        let refuse = |expected: String, got: String| Err(unfit(self.path, name, expected, Some(got)));
        let factor = match (&scaling["rope_type"], scaling["factor"].as_f64()) {
            (serde_json::Value::Null, _) => 1.0,
            (kind, Some(factor)) if kind == "linear" && factor as f32 > 0.0 => factor as f32,
            _ => {
                return refuse(
                    "no scaling beside it but a linear one by a positive factor".into(),
                    scaling.to_string(),
                );
            }
        };
        let divisors = source.read_own(name, info, None)?;
        if divisors.len() as u64 != head_dim / 2 {
            return refuse(format!("[{}]", head_dim / 2), format!("{:?}", info.shape.dims()));
        }
        if let Some(bad) = divisors.iter().find(|divisor| !(divisor.is_finite() && **divisor > 0.0)) {
            return refuse("positive numbers".into(), bad.to_string());
        }
        let plain = theta_frequencies(theta as f32, 2 * divisors.len());
        Ok(Some(plain.into_iter().zip(divisors).map(|(f, divisor)| f / divisor / factor).collect()))
    }

    fn token(&self, name: &str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        self.typed(&key, "a token id", |value| integer(value).and_then(|id| u32::try_from(id).ok()))
    }

    /// The embedded tokenizer, if there is one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let Some(model) = self.text("tokenizer.ggml.model")? else { return Ok(None) };
        let int = |value: &Value| integer(value).and_then(|n| i32::try_from(n).ok());
        Ok(Some(Tokenizer {
            model,
            pre_tokenizer: self.text("tokenizer.ggml.pre")?,
            tokens: self.array("tokenizer.ggml.tokens", "an array of strings", text)?,
            merges: self.array("tokenizer.ggml.merges", "an array of strings", text)?,
            scores: self.array("tokenizer.ggml.scores", "an array of numbers", |v| number(v).map(|x| x as f32))?,
            token_types: self.array("tokenizer.ggml.token_type", "an array of whole numbers", int)?,
            bos: self.token("bos")?,
            eos: self.token("eos")?,
            unknown: self.token("unknown")?,
            add_bos: self.flag("tokenizer.ggml.add_bos_token")?,
            chat_template: self.text("tokenizer.chat_template")?,
        }))
    }
}

/// A value for a message: its type, and the value too if it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("an array of {}", values.len()),
        short => format!("{short:?}"),
    }
}

fn text(value: &Value) -> Option<String> {
    value.to_string().ok().cloned()
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(n) => Some(n.into()),
        Value::I8(n) => Some(n.into()),
        Value::U16(n) => Some(n.into()),
        Value::I16(n) => Some(n.into()),
        Value::U32(n) => Some(n.into()),
        Value::I32(n) => Some(n.into()),
        Value::U64(n) => i64::try_from(n).ok(),
        Value::I64(n) => Some(n),
        _ => None,
    }
}

/// An f32 becomes the f64 of the same shortest decimal: 1e-5 stays 1e-5 when it is written out as JSON.
/// JSON has no place for what is not finite.
fn number(value: &Value) -> Option<f64> {
    let number = match *value {
        Value::F32(x) => x.to_string().parse().ok(),
        Value::F64(x) => Some(x),
        _ => None,
    };
    number.filter(|x| x.is_finite())
}
