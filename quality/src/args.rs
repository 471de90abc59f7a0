//! What the command line can say.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use latent_attention_lm::options::at_least;

/// Measure what conversion and recovery cost a model, as tables of Markdown: those of docs/quality.md
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask quality")]
pub struct Arguments {
    /// What is measured
    #[arg(value_enum)]
    pub table: Table,
    /// A GGUF file, or a directory with config.json, *.safetensors and tokenizer.json. Without this option xtask
    /// downloads SmolLM2-135M
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Text to calibrate on and to learn from, beside the two essays that come with the demo. xtask names a novel that comes
    /// with a package of the workspace's lock file
    #[arg(long, value_name = "PATH")]
    pub more_text: Option<PathBuf>,
    /// Further text to evaluate on, beside the third essay: its first tokens. May be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub evaluate: Vec<(String, PathBuf)>,
    /// Tokens of each text to evaluate on, at most
    #[arg(long, value_name = "N", default_value_t = 768, value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: u32,
    /// Tokens to calibrate on
    #[arg(long, value_name = "N", default_value_t = 20480, value_parser = clap::value_parser!(u32).range(1..))]
    pub calibration_tokens: u32,
    /// Tokens of each sequence that calibrates [default: as --tokens, 512 to 768]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub calibration_length: Option<u32>,
    /// Rotated dimensions of the shared key [default: a sixteenth of the original's cached numbers]
    #[arg(long, value_name = "R")]
    pub rope_dim: Option<usize>,
    /// Dimensions of the latent [default: a quarter of the original's cached numbers]
    #[arg(long, value_name = "L", value_parser = at_least::<1>)]
    pub latent_rank: Option<usize>,
    /// Of the recovery table: numbers of steps, each a run of its own
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10,42,167")]
    pub steps: Vec<u64>,
}

/// The tables, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Methods and sizes of the cache
    Sizes,
    /// Uncompressed keys and values in other programs' 4-bit formats
    Others,
    /// The method without one step at a time
    Ablations,
    /// More of the latent in some layers and less in others
    Layers,
    /// What it is calibrated on
    Texts,
    /// More and more steps of recovery
    Recovery,
    /// Far from the beginning of a text, calibrated on short and on long sequences: name a text with --evaluate, and its
    /// length with --tokens
    Context,
}

/// Parses `NAME=PATH`.
fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err("must be NAME=PATH".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_names() {
        let parse = |args: &[&str]| Arguments::try_parse_from([&["quality", "sizes", "--model", "m"], args].concat());
        let parsed = parse(&["--evaluate", "wiki=a=b.txt", "--evaluate", "plays=c"]).unwrap();
        assert_eq!(parsed.evaluate, [("wiki".into(), "a=b.txt".into()), ("plays".into(), "c".into())]);
        for bad in ["wiki", "=a", "wiki="] {
            assert!(parse(&["--evaluate", bad]).is_err(), "{bad}");
        }
        assert_eq!(parse(&["--steps", "1,2"]).unwrap().steps, [1, 2]);
    }
}
