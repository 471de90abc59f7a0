//! What the command line can say.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use latent_attention::cache::{CacheFormat, Group};
use latent_attention::device::Device;
use latent_attention::{Error, Geometry};
use validate::{LATENT_FORMATS, PAIRINGS, RANGE_SETTINGS, ROPE_FORMATS, Validation, by_name};

/// Run every operation on a device against the f64 reference, and print how far each output is from it
///
/// Exit status: 0 if all outputs are within the stated tolerances, 1 if not, 2 if that could not be found out.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask validate")]
pub struct Arguments {
    /// A named model
    #[arg(long, value_name = "NAME", default_value = "smollm-135m-d32", value_parser = names())]
    pub geometry: String,
    /// How the cache stores latents; rotated keys are stored alike (`int4`: one scale for up to 512 latents, and one
    /// for 32 numbers of a key)
    #[arg(long, value_name = "FORMAT", default_value = "int4", value_parser = of(&LATENT_FORMATS))]
    pub format: String,
    /// How the cache stores rotated keys, if otherwise
    #[arg(long, value_name = "FORMAT", value_parser = of(&ROPE_FORMATS))]
    pub rope_format: Option<String>,
    /// How the ranges of int4 groups are chosen: minimum to maximum, or by smallest squared error in groups of at least
    /// 96 values
    #[arg(long, value_name = "SETTING", default_value = "min-max", value_parser = of(&RANGE_SETTINGS))]
    pub range: String,
    /// Tokens per page of the cache: 8, 16, 32 or 64
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub page_size: usize,
    /// Which dimensions of a head are rotated together
    #[arg(long, default_value = "half", value_parser = of(&PAIRINGS))]
    pub pairing: String,
    /// Tokens of each sequence, as in 0,1,64,1000 [default: around the edges of pages]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub seq_lens: Option<Vec<usize>>,
    /// Query tokens of each sequence; repeated if there are more sequences [default: one to three]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub query_tokens: Option<Vec<usize>>,
    /// Tokens per split, where work is divided into splits of fixed length
    #[arg(long, value_name = "TOKENS", default_value_t = 48)]
    pub fixed_tokens: usize,
    /// All inputs follow from it
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// `cuda`, `cuda:N`, `cpu` or `simulated` [default: the first GPU, or the simulator if there is none]
    #[arg(long, value_name = "DEVICE", default_value = "", hide_default_value = true)]
    pub device: Chosen,
    /// Write all inputs and outputs into this new folder, one safetensors file for each case
    #[arg(long, value_name = "DIR")]
    pub dump: Option<PathBuf>,
    /// Check the outputs in such a folder, which may be another implementation's, instead of running anything
    #[arg(long, value_name = "DIR", conflicts_with_all = ["geometry", "Sizes", "format", "rope_format", "range",
          "page_size", "pairing", "seq_lens", "query_tokens", "fixed_tokens", "seed", "device", "dump"])]
    pub against: Option<PathBuf>,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub sizes: Sizes,
}

/// Sizes that replace those of the named model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sizes, instead of the named model's")]
pub struct Sizes {
    /// Query heads
    #[arg(long, value_name = "H")]
    query_heads: Option<usize>,
    /// Heads with an up-projection of their own
    #[arg(long, value_name = "G")]
    kv_heads: Option<usize>,
    /// Heads with a rotated key of their own
    #[arg(long, value_name = "Gr")]
    rope_heads: Option<usize>,
    /// Numbers in a latent
    #[arg(long, value_name = "L")]
    latent_rank: Option<usize>,
    /// Rotated dimensions per rope head
    #[arg(long, value_name = "R")]
    rope_dim: Option<usize>,
    /// Dimensions per query and key head that are not rotated
    #[arg(long, value_name = "Dn")]
    nope_dim: Option<usize>,
    /// Dimensions per value head
    #[arg(long, value_name = "Dv")]
    value_dim: Option<usize>,
}

impl Arguments {
    /// What is to be validated.
    pub fn validation(&self) -> latent_attention::Result<Validation> {
        let mut validation = Validation::new(self.geometry()?, self.format()?);
        validation.page_size = self.page_size;
        validation.pairing = by_name("pairing", &PAIRINGS, &self.pairing)?;
        validation.fixed_tokens = self.fixed_tokens;
        validation.seed = self.seed;
        if let Some(seq_lens) = &self.seq_lens {
            validation.seq_lens.clone_from(seq_lens);
        }
        if let Some(query_tokens) = &self.query_tokens {
            validation.query_tokens.clone_from(query_tokens);
        }
        Ok(validation)
    }

    fn geometry(&self) -> latent_attention::Result<Geometry> {
        let (mut g, sizes) = (Geometry::named(&self.geometry)?, &self.sizes);
        for (size, given) in [
            (&mut g.query_heads, sizes.query_heads),
            (&mut g.kv_heads, sizes.kv_heads),
            (&mut g.rope_heads, sizes.rope_heads),
            (&mut g.latent_rank, sizes.latent_rank),
            (&mut g.rope_dim, sizes.rope_dim),
            (&mut g.nope_dim, sizes.nope_dim),
            (&mut g.value_dim, sizes.value_dim),
        ] {
            *size = given.unwrap_or(*size);
        }
        g.validate()
    }

    fn format(&self) -> latent_attention::Result<CacheFormat> {
        let latent = by_name("latent format", &LATENT_FORMATS, &self.format)?;
        // The crate's own choice for one scale per token; else keys as latents.
        let rope = match (&self.rope_format, latent == CacheFormat::int4(Group::Whole).latent) {
            (Some(rope), _) => by_name("rope format", &ROPE_FORMATS, rope)?,
            (None, true) => CacheFormat::INT4.rope,
            (None, false) => by_name("rope format", &ROPE_FORMATS, &self.format)?,
        };
        let range = by_name("range setting", &RANGE_SETTINGS, &self.range)?;
        Ok(CacheFormat::new(latent, rope).with_range(range))
    }
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Geometry::NAMED.iter().map(|(name, _)| *name))
}

fn of<T>(list: &'static [(&'static str, T)]) -> PossibleValuesParser {
    PossibleValuesParser::new(list.iter().map(|(name, _)| *name))
}

/// Where the operations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The first GPU, if there is one.
    Any,
    Simulated,
    Cpu,
    Cuda(usize),
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let cuda = |number: &str| number.parse().ok().map(Self::Cuda);
        let chosen = match name {
            "" => Some(Self::Any),
            "simulated" => Some(Self::Simulated),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => name.strip_prefix("cuda:").and_then(cuda),
        };
        chosen.ok_or_else(|| "expected simulated, cpu, cuda or cuda:N".into())
    }
}

impl Chosen {
    /// The device.
    pub fn open(self) -> latent_attention::Result<Device> {
        match self {
            Self::Simulated => Ok(Device::simulated()),
            Self::Cpu => Device::cpu(),
            Self::Cuda(ordinal) => Device::cuda(ordinal),
            Self::Any => match Device::cuda(0) {
                Err(Error::NoDriver { .. } | Error::NoDevice { .. }) => Ok(Device::simulated()),
                other => other,
            },
        }
    }
}
