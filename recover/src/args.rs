//! What the command line can say.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use candle_core::utils::cuda_is_available;
use clap::{Parser, ValueEnum};
use latent_attention_lm::options::{at_least, share};
use latent_attention_lm::text::OWN_SHARE;

use crate::adamw::AdamWOptions;
use crate::student::Mode;
use crate::train::{Cache, Options, Output};

/// Train a model with latent attention to say what the original says, reading from its 4-bit cache
///
/// Writes into --out a checkpoint from which --resume goes on to the bit, a log (log.jsonl) and its drawing (loss.svg).
/// Ctrl-C finishes the step, writes a checkpoint and ends; a second Ctrl-C ends at once.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask recover")]
pub struct Arguments {
    /// The original: a GGUF file, or a directory with config.json, *.safetensors and tokenizer.json. Without this option
    /// xtask downloads SmolLM2-135M
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Directory with the converted model, as `cargo xtask demo --save` writes it; without it the original is converted
    /// here, calibrated on the training text
    #[arg(long, value_name = "DIR")]
    pub layers: Option<PathBuf>,
    /// Rotated dimensions of the shared key of a conversion made here [default: a sixteenth of the original's cached
    /// numbers]
    #[arg(long, value_name = "R", conflicts_with = "layers")]
    pub rope_dim: Option<usize>,
    /// Dimensions of the latent of a conversion made here [default: a quarter of the original's cached numbers]
    #[arg(long, value_name = "L", conflicts_with = "layers")]
    pub latent_rank: Option<usize>,
    /// Text to train on [default: text that the model writes itself]
    #[arg(long, value_name = "PATH")]
    pub text: Option<PathBuf>,
    /// Tokens that calibrate a conversion made here, at most; without a training text, tokens that the model writes to
    /// calibrate and to learn from
    #[arg(long, value_name = "N", default_value_t = 20480)]
    pub calibration_tokens: usize,
    /// Share of the tokens that calibrate, 0 to 1, that the model writes itself even where enough are given
    #[arg(long, value_name = "SHARE", default_value_t = OWN_SHARE, value_parser = share, conflicts_with = "layers")]
    pub own_text: f64,
    /// Tokens of each sequence that calibrates, as many as texts will have that the model is meant for [default: as the
    /// evaluation has, at least 512]
    #[arg(long, value_name = "N", value_parser = at_least::<2>, conflicts_with = "layers")]
    pub calibration_length: Option<usize>,
    /// Text to evaluate on, which must not overlap the other [default: an essay that comes with the demo]
    #[arg(long, value_name = "PATH")]
    pub evaluation: Option<PathBuf>,
    /// Tokens to evaluate on, at most
    #[arg(long, value_name = "N", default_value_t = 768, value_parser = at_least::<2>)]
    pub evaluation_tokens: usize,
    /// Folder for checkpoint, log and drawing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from the checkpoint in --out; the other options must be as they were
    #[arg(long)]
    pub resume: bool,
    /// Write the trained model when all steps are made: in DeepSeek's layout, or in MHA2MLA's if --layers has that
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Where training runs: cpu, cuda or cuda:N, for which xtask builds with the feature `cuda` (nvcc must be in PATH);
    /// conversion runs on the CPU. Only there does --resume go on to the bit
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: Place,
    /// What is trained
    #[arg(long, value_enum, default_value_t = Trained::Attention)]
    pub mode: Trained,
    /// Rank of the additions of --mode lora
    #[arg(long, value_name = "R", default_value_t = 16)]
    pub rank: usize,
    /// Steps in all
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    pub steps: u64,
    /// Sequences per step
    #[arg(long, value_name = "N", default_value_t = Options::default().batch)]
    pub batch: usize,
    /// Tokens per sequence
    #[arg(long, value_name = "N", default_value_t = Options::default().sequence)]
    pub sequence: usize,
    /// Tokens of a sequence whose predictions are compared
    #[arg(long, value_name = "N", default_value_t = Options::default().positions)]
    pub positions: usize,
    /// Peak of the learning rate
    #[arg(long, value_name = "X", default_value_t = Options::default().rate)]
    pub rate: f64,
    /// Steps until the learning rate has its peak
    #[arg(long, value_name = "N", default_value_t = Options::default().warmup)]
    pub warmup: u64,
    /// Share of a matrix that decays in each step, times the learning rate
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Gradients of a larger norm are scaled down to this
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub clip: f64,
    /// The cache in the loop
    #[arg(long, value_enum, default_value_t = Cache::Int4)]
    pub cache: Cache,
    /// Order of the text, choice of compared positions, first values of additions
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Steps between evaluations; 0: before and after only
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub evaluate_every: u64,
    /// Steps between checkpoints; 0: at the end only
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub checkpoint_every: u64,
    /// Gradient checkpointing: a fifth slower, and memory for the activations of one block instead of all
    #[arg(long)]
    pub recompute: bool,
}

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host.
    Cpu,
    /// The GPU of this index.
    Cuda(usize),
}

impl Place {
    /// Makes it ready.
    ///
    /// # Errors
    /// If it is not there, or the program was built without CUDA.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => Device::new_cuda(index).with_context(|| {
                if cuda_is_available() {
                    format!("cannot use GPU {index}")
                } else {
                    "--device cuda needs a build with the feature `cuda`".to_owned()
                }
            }),
        }
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let index = match name.split_once(':') {
            None if name == "cpu" => return Ok(Self::Cpu),
            None if name == "cuda" => Some(0),
            Some(("cuda", index)) => index.parse().ok(),
            _ => None,
        };
        index.map(Self::Cuda).ok_or("must be cpu, cuda or cuda:N")
    }
}

/// What is trained, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trained {
    /// The weights of the attention
    Attention,
    /// Low-rank additions to them
    Lora,
    /// The whole model
    Everything,
}

impl Arguments {
    /// What decides the outcome.
    ///
    /// # Errors
    /// If the rank is 0, or [`Options::check`] refuses one.
    pub fn options(&self) -> Result<Options> {
        ensure!(self.rank > 0, "--rank must be at least 1");
        let mode = match self.mode {
            Trained::Attention => Mode::Attention,
            Trained::Lora => Mode::LowRank { rank: self.rank },
            Trained::Everything => Mode::Everything,
        };
        let options = Options {
            mode,
            steps: self.steps,
            batch: self.batch,
            sequence: self.sequence,
            positions: self.positions,
            rate: self.rate,
            warmup: self.warmup,
            optimiser: AdamWOptions { weight_decay: self.weight_decay, clip: self.clip, ..AdamWOptions::default() },
            cache: self.cache,
            seed: self.seed,
            ..Options::default()
        };
        options.check()?;
        Ok(options)
    }

    /// What does not.
    #[must_use]
    pub fn output(&self) -> Output {
        Output {
            folder: self.out.clone(),
            evaluate_every: self.evaluate_every,
            checkpoint_every: self.checkpoint_every,
            recompute: self.recompute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_library() {
        let parse =
            |more: &[&str]| Arguments::try_parse_from([&["recover", "--model", "m", "--out", "o"], more].concat());
        assert_eq!(parse(&[]).unwrap().options().unwrap(), Options::default());
        let lora = parse(&["--mode", "lora", "--rank", "3", "--cache", "bf16"]).unwrap().options().unwrap();
        assert_eq!((lora.mode, lora.cache), (Mode::LowRank { rank: 3 }, Cache::Bf16));
        assert!(parse(&["--rank", "0"]).unwrap().options().is_err());
        assert!(parse(&["--layers", "d", "--rope-dim", "8"]).is_err());
    }

    #[test]
    fn devices_have_names() {
        assert_eq!("cpu".parse(), Ok(Place::Cpu));
        assert_eq!(["cuda", "cuda:3"].map(str::parse), [Ok(Place::Cuda(0)), Ok(Place::Cuda(3))]);
        for bad in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
        assert!(Place::Cpu.open().unwrap().is_cpu());
        if !cuda_is_available() {
            assert!(format!("{:#}", Place::Cuda(0).open().unwrap_err()).contains("feature `cuda`"));
        }
    }
}
