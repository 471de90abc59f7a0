//! Converted models of families whose weights are read with factors in them: what is saved computes what transformers did.

use std::fs;
use std::path::Path;

use latent_attention::load::{Attention, Checkpoint, open, save_mha2mla};
use latent_attention::weights::LatentAttention;
use serde_json::Value;

use crate::{TOLERANCE, attention_error, latent, open_family};

fn layers(checkpoint: &Checkpoint) -> Vec<LatentAttention> {
    (0..checkpoint.config().layers).map(|layer| latent(checkpoint, layer)).collect()
}

/// Reads `config.json` again after `change`.
fn reopen(directory: &Path, change: impl Fn(&mut Value)) -> Checkpoint {
    let path = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    open(directory).unwrap()
}

#[test]
fn a_factor_on_the_rotation_is_in_the_saved_queries_and_not_in_the_configuration() {
    for family in ["llama_yarn", "llama_longrope", "qwen2_yarn", "smollm3"] {
        let (original, expected) = open_family(family);
        let gain = original.config().rotation_gain;
        assert!(gain != 1.0, "{family}");
        let converted = layers(&original);
        let directory = tempfile::tempdir().unwrap();
        save_mha2mla(directory.path(), &original, &original, &converted).unwrap();
        let saved = open(directory.path()).unwrap();
        assert_eq!(saved.config().rotation_gain, 1.0);
        assert_eq!(layers(&saved), converted, "{family}");
        let error = attention_error(&saved, &expected);
        assert!(error <= TOLERANCE, "{family}: {error:e}");

        // MHA2MLA's own models have the factor in the configuration, as their original has.
        let theirs = reopen(directory.path(), |config| {
            config["rope_parameters"].as_object_mut().unwrap().remove("attention_factor");
        });
        let rotated = |checkpoint: &Checkpoint| match checkpoint.attention(0).unwrap() {
            Attention::Latent(latent) => f64::from(latent.query_rope.weight.data()[0]),
            Attention::Dense(_) => panic!("{family} was converted"),
        };
        assert!((rotated(&theirs) / rotated(&saved) / (gain * gain) - 1.0).abs() < 1e-6, "{family}");
    }
}
