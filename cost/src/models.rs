//! The models and cache formats of the benchmarks' rows, by the names that they have there.

use anyhow::{Result, bail};
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group};

/// Tokens per page of the benchmarks' caches.
pub const PAGE_SIZE: usize = 64;

/// Names of models, large ones first.
pub const MODELS: [&str; 10] = [
    "llama2-7b-d64",
    "llama2-7b-d32",
    "llama2-7b-d16",
    "llama3-8b-d64",
    "deepseek-v2-lite",
    "deepseek-64-heads",
    "deepseek-v3",
    "minicpm3-4b",
    "smollm-1.7b-d32",
    "smollm-135m-d32",
];

/// Names of formats.
pub const FORMATS: [&str; 3] = ["bf16", "int4-g64", "int4"];

/// One layer of a model.
///
/// # Errors
/// Names the model if it is not known.
pub fn geometry(model: &str) -> Result<Geometry> {
    Ok(match model {
        // Half of DeepSeek-V3's 128 heads: one of two GPUs that share its layers.
        "deepseek-64-heads" => Geometry::deepseek(64, 512, 64, 128, 128)?,
        name => Geometry::named(name)?,
    })
}

/// A layer of a model, and how its cache lies.
///
/// # Errors
/// Names the model or format that is not known.
pub fn layer(model: &str, format: &str) -> Result<(Geometry, CacheLayout)> {
    let geometry = geometry(model)?;
    let format = match format {
        "bf16" => CacheFormat::BF16,
        "int4-g64" => CacheFormat::int4(Group::G64),
        "int4" => CacheFormat::INT4,
        _ => bail!("there is no format {format}; there are {FORMATS:?}"),
    };
    Ok((geometry, CacheLayout::new(&geometry, format, PAGE_SIZE)?))
}
