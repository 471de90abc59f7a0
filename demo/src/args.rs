//! What the command line can say.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};
use latent_attention::convert::RopeChoice;
use latent_attention_lm::options::{at_least, share};
use latent_attention_lm::text::OWN_SHARE;

/// Convert a model to latent attention, decode it from the 4-bit paged cache, and compare it with the original
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask demo")]
pub struct Arguments {
    /// A GGUF file, or a directory with config.json, *.safetensors and tokenizer.json; a directory written by --save
    /// is evaluated as it is. Without this option xtask downloads SmolLM2-135M
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Text to calibrate and evaluate on, instead of the text that comes with the demo. The first two thirds
    /// calibrate, the rest evaluates
    #[arg(long, value_name = "PATH")]
    pub text: Option<PathBuf>,
    /// Further text to calibrate and to learn from. xtask names a novel that comes with a package of the workspace's
    /// lock file
    #[arg(long, value_name = "PATH")]
    pub more_text: Option<PathBuf>,
    /// Tokens to evaluate on, at most
    #[arg(long, value_name = "N", default_value_t = 768, value_parser = at_least::<2>)]
    pub tokens: usize,
    /// Tokens to calibrate on. What the texts do not have of them the model writes itself
    #[arg(long, value_name = "N", default_value_t = 20480, value_parser = at_least::<1>)]
    pub calibration_tokens: usize,
    /// Share of the tokens that calibrate, 0 to 1, that the model writes itself even where enough are given
    #[arg(long, value_name = "SHARE", default_value_t = OWN_SHARE, value_parser = share)]
    pub own_text: f64,
    /// Tokens of each sequence that calibrates, as many as texts will have that the model is meant for [default: as the
    /// evaluation has, at least 512]
    #[arg(long, value_name = "N", value_parser = at_least::<2>)]
    pub calibration_length: Option<usize>,
    /// Which pairs of dimensions of a head MHA2MLA's recipe leaves rotated
    #[arg(long, value_enum, default_value_t = Strategy::TwoNorm)]
    pub strategy: Strategy,
    /// Rotated dimensions per head of MHA2MLA's recipe [default: an eighth of the head]
    #[arg(long, value_name = "R")]
    pub rope_dim: Option<usize>,
    /// Fit the low rank of MHA2MLA's recipe to the inputs seen in calibration; with `false` to the weights alone, as its
    /// authors do before they train the model further
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub whiten: bool,
    /// Subtract the latent's mean over the calibration text in MHA2MLA's recipe before it is cached
    #[arg(long)]
    pub centre: bool,
    /// Steps of recovery, each on 1024 tokens of the texts that calibrate; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub recover: u64,
    /// Text that the models continue, the converted ones from their int4 caches
    #[arg(long, value_name = "TEXT", default_value = "The harbour master looked out over the water and")]
    pub prompt: String,
    /// Tokens to generate; 0 generates nothing
    #[arg(long, value_name = "N", default_value_t = 48)]
    pub generate: usize,
    /// Threads that everything is computed on [default: as many as the machine runs at once]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub threads: Option<usize>,
    /// Folder of an installed llama.cpp (libllama and libggml), which then reads and writes the same beside the models here.
    /// A prebuilt one is in the npm package @node-llama-cpp/linux-x64, folder bins/linux-x64
    #[arg(long, value_name = "DIR")]
    pub llama: Option<PathBuf>,
    /// Compare speed alone: converts on few tokens, once, and measures no quality
    #[arg(long)]
    pub speed: bool,
    /// Check the CUDA kernels beside a CPU: they compute the first tokens of some layers on the simulator
    #[arg(long)]
    pub kernels: bool,
    /// Draw error and perplexity against bytes
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Write the model with a shared key and five sixteenths of the cached numbers, recovered unless --recover is 0, in
    /// DeepSeek's layout
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Write the model of MHA2MLA's recipe with as many cached numbers, in its layout
    #[arg(long, value_name = "DIR")]
    pub save_mha2mla: Option<PathBuf>,
}

impl Arguments {
    /// Threads to compute on.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
    }
}

/// MHA2MLA's names for the choices of rotated pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// The pairs that matter most on the calibration text, for each layer and KV head
    #[value(name = "2-norm")]
    TwoNorm,
    /// The highest frequencies
    High,
    /// The lowest frequencies
    Low,
    /// Evenly spaced frequencies
    Uniform,
}

impl From<Strategy> for RopeChoice {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::TwoNorm => Self::TwoNorm,
            Strategy::High => Self::High,
            Strategy::Low => Self::Low,
            Strategy::Uniform => Self::Uniform { start: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_have_the_papers_names() {
        for (name, strategy) in [
            ("2-norm", Strategy::TwoNorm),
            ("high", Strategy::High),
            ("low", Strategy::Low),
            ("uniform", Strategy::Uniform),
        ] {
            let parsed = Arguments::try_parse_from(["demo", "--model", "m.gguf", "--strategy", name]).unwrap();
            assert_eq!(parsed.strategy, strategy);
        }
    }

    #[test]
    fn whitening_can_be_named_or_refused() {
        let whiten = |args: &[&str]| {
            Arguments::try_parse_from([&["demo", "--model", "m"], args].concat()).map(|parsed| parsed.whiten)
        };
        assert!(whiten(&[]).unwrap());
        assert!(whiten(&["--whiten", "--generate", "3"]).unwrap());
        assert!(!whiten(&["--whiten=false"]).unwrap());
    }

    #[test]
    fn counts_that_make_no_sense_are_refused() {
        let parse = |args: &[&str]| Arguments::try_parse_from([&["demo", "--model", "m"], args].concat());
        assert!(parse(&["--tokens", "2", "--calibration-tokens", "1", "--generate", "0"]).is_ok());
        for bad in [["--tokens", "1"], ["--calibration-tokens", "0"], ["--tokens", "many"], ["--threads", "0"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        assert!(Arguments::try_parse_from(["demo"]).is_err());
    }
}
