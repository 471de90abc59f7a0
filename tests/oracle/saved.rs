//! Converted models of families whose weights are read with factors in them: what is saved computes what transformers did.

use std::fs;
use std::path::Path;

use latent_attention::convert::shared_key::{Sampling, Survey};
use latent_attention::load::{Attention, Checkpoint, open, save_mha2mla, save_shared_key};
use latent_attention::weights::LatentAttention;
use serde_json::{Value, json};

use crate::{TOLERANCE, attention_error, error, expected, hold, latent, model, open_family};

fn layers(checkpoint: &Checkpoint) -> Vec<LatentAttention> {
    (0..checkpoint.config().layers).map(|layer| latent(checkpoint, layer).attention).collect()
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

/// Layers with a shared key, of no good quality: what is read back has to be the same.
fn shared_layers(checkpoint: &Checkpoint) -> Vec<LatentAttention> {
    let config = checkpoint.config();
    // Far from periodic, and different in all tokens.
    let wave = |i: usize| ((i * i % 1009) as f32 * 0.37).sin() + (i as f32 * 0.11).cos();
    let text = vec![(0..256 * config.hidden).map(wave).collect::<Vec<f32>>()];
    let convert = |layer: usize| match checkpoint.attention(layer).unwrap() {
        Attention::Latent(_) => panic!("the original is dense"),
        Attention::Dense(dense) => {
            let survey = Survey::new(&dense, &config.frequencies(layer), &text, &Sampling::default()).unwrap();
            survey.choose(&text, 8, 12).unwrap().attention(&text).unwrap()
        }
    };
    (0..config.layers).map(convert).collect()
}

#[test]
fn converted_models_carry_the_factors_of_a_family_once_and_their_tensors_apart() {
    for family in ["phi3", "phi3_longrope", "granite", "smollm3", "llama_yarn"] {
        let (original, wanted) = open_family(family);
        let directory = tempfile::tempdir().unwrap();
        let (full, shared) = (directory.path().join("full"), directory.path().join("shared"));
        let converted = layers(&original);
        save_mha2mla(&full, &original, &original, &converted).unwrap();
        let saved = open(&full).unwrap();
        assert_eq!(saved.config().architecture, original.config().architecture);
        assert_eq!(layers(&saved), converted, "{family}");
        for run in expected::RUNS {
            let logits = model::logits(&saved, &wanted.tokens(run), &wanted.positions(run));
            hold(family, &format!("{run} logits, saved"), error(&logits, &wanted.logits(run)), TOLERANCE);
        }

        let converted = shared_layers(&original);
        save_shared_key(&shared, &original, &original, &converted, None).unwrap();
        let saved = open(&shared).unwrap();
        assert_eq!(layers(&saved), converted, "{family}");
        for layer in 0..original.config().layers {
            assert_eq!(saved.block(layer).unwrap(), original.block(layer).unwrap(), "{family}");
        }
        assert_eq!(saved.embedding().unwrap(), original.embedding().unwrap(), "{family}");
        assert_eq!(saved.final_norm().unwrap(), original.final_norm().unwrap(), "{family}");
    }
}

#[test]
fn a_converted_granite_has_multipliers_that_do_nothing() {
    let (original, _) = open_family("granite");
    let directory = tempfile::tempdir().unwrap();
    save_mha2mla(directory.path(), &original, &original, &layers(&original)).unwrap();
    reopen(directory.path(), |config| {
        for key in ["embedding_multiplier", "residual_multiplier", "logits_scaling"] {
            assert_eq!(config[key], json!(1.0));
        }
        assert_eq!(config["attention_multiplier"], json!(1.0 / 8f64.sqrt()));
        assert_eq!(config["tie_word_embeddings"], json!(false), "the embedding carries a factor that the head has not");
    });
}
