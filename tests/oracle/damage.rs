//! Configurations with any one key damaged: what comes of them is a model or an error, and never a panic.

use std::fs;

use latent_attention::load::open;
use serde_json::{Value, json};

use crate::folder;

/// One for each way in which configurations are read.
const FAMILIES: [&str; 20] = [
    "llama",
    "ministral",
    "phi3_longrope",
    "granite",
    "glm4",
    "deepseek_v3_yarn",
    "deepseek_v2_groups",
    "deepseek_v3_fp8",
    "minicpm3_longrope",
    "mistral4",
    "mistral4_groups",
    "longcat_flash",
    "kimi_linear",
    "llama_yarn",
    "qwen2_dynamic",
    "smollm3",
    "gemma2",
    "mha2mla_only_key",
    "bailing_hybrid",
    "axk2",
];

/// One of each kind, and numbers at the ends of what they may be.
fn values() -> [Value; 8] {
    [Value::Null, json!(0), json!(1), json!(-1), json!(1 << 28), json!(1e300), json!("text"), json!({"factor": {}})]
}

/// Every configuration that differs from `config` in one key, nested ones included, which is damaged or missing.
fn damaged(config: &Value) -> Vec<Value> {
    let mut all = vec![];
    for (key, value) in config.as_object().into_iter().flatten() {
        let mut with = |value: Option<Value>| {
            let mut changed = config.clone();
            let map = changed.as_object_mut().unwrap();
            match value {
                Some(value) => map.insert(key.clone(), value),
                None => map.remove(key),
            };
            all.push(changed);
        };
        values().into_iter().for_each(|value| with(Some(value)));
        with(None);
        damaged(value).into_iter().for_each(|nested| with(Some(nested)));
    }
    all
}

#[test]
fn a_damaged_configuration_is_an_error_or_a_model() {
    let mut refused = 0;
    for family in FAMILIES {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(folder(family).join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
        let config = serde_json::from_slice(&fs::read(folder(family).join("config.json")).unwrap()).unwrap();
        for changed in damaged(&config) {
            fs::write(directory.path().join("config.json"), changed.to_string()).unwrap();
            let read = open(directory.path()).and_then(|checkpoint| {
                // Only these can be there.
                for layer in 0..checkpoint.config().layers.min(3) {
                    checkpoint.attention(layer)?;
                    let Some(mixture) = checkpoint.mixture(layer)? else {
                        checkpoint.block(layer)?;
                        continue;
                    };
                    checkpoint.expert(layer, 0)?;
                    mixture.router.choose(&vec![0.0; checkpoint.config().hidden])?;
                }
                checkpoint.final_norm()?;
                checkpoint.embedding()?;
                checkpoint.lm_head()
            });
            if let Err(error) = read {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{family}: {error}");
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
