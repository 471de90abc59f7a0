//! Swaps the attention layers of a candle Llama for latent attention, and compares the logits.
//!
//! `cargo run -p latent-attention-candle --example candle_llama -- MODEL.gguf`
//!
//! Without a model it makes one of random weights, which shows that it runs, not what is lost.
//! `latent.rs` is the part to copy: one attention layer around `latent_attention_candle::Mla`.

mod attention;
mod latent;
mod llama;
mod random;
mod rope;

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use candle_core::{D, DType, Device, Result, Tensor};
use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::convert::{Calibration, ConvertOptions, convert};
use latent_attention::load::{self, Attention};
use latent_attention::ops::DecodeConfig;
use latent_attention::rope::RopeTables;
use latent_attention::weights::LatentAttention;
use latent_attention_candle::{Error, Mla};

use crate::attention::FullKv;
use crate::latent::LatentKv;
use crate::llama::{Llama, Weights};

/// "A heat pump moves heat from a cold place to a warm one. It does this with a fluid that boils at a low temperature:
/// outside it evaporates and takes up heat, then a compressor squeezes the gas, which makes it hot, and inside the house
/// it gives the heat away and becomes liquid again. For every unit of electricity that the compressor uses, three or four
/// units of heat reach the house.", behind the token that begins a text: shows the conversion how heads use their
/// frequencies.
const CALIBRATION: [u32; 83] = [
    1, 49, 2817, 6680, 7488, 2817, 429, 253, 4011, 1379, 288, 253, 3091, 582, 30, 657, 1072, 451, 351, 253, 5689, 338,
    36411, 418, 253, 1642, 2779, 42, 2856, 357, 46327, 284, 2933, 614, 2817, 28, 965, 253, 28166, 23437, 16244, 260,
    2811, 28, 527, 2022, 357, 3380, 28, 284, 2972, 260, 2291, 357, 3894, 260, 2817, 2025, 284, 3207, 5553, 1163, 30,
    1068, 897, 2723, 282, 4866, 338, 260, 28166, 2925, 28, 1296, 355, 1876, 4784, 282, 2817, 3470, 260, 2291, 30,
];

/// "The tide turned before dawn, and the fishing boats came home one after another, their lanterns still burning. On the
/// quay the buyers were waiting with their carts, stamping their feet against the cold. They bought herring by the barrel
/// and cod by the box, and they argued over every penny until the sun was high. Then the nets were washed and hung to
/// dry, and the town went quiet again.": what is compared on.
const TEXT: [u32; 83] = [
    1, 504, 17662, 4642, 1092, 16804, 28, 284, 260, 8725, 13768, 2422, 1478, 582, 990, 1372, 28, 480, 46840, 1361,
    8110, 30, 1985, 260, 613, 341, 260, 19925, 592, 7003, 351, 480, 41814, 28, 15321, 274, 480, 3282, 1523, 260, 4011,
    30, 1069, 10897, 37726, 411, 260, 20510, 284, 12123, 411, 260, 3985, 28, 284, 502, 9167, 690, 897, 32141, 1793,
    260, 2388, 436, 904, 30, 3875, 260, 20958, 592, 16102, 284, 11344, 288, 3498, 28, 284, 260, 3102, 3514, 8354, 1163,
    30,
];

/// Tokens of the text that are taken in at once; the others are decoded one by one.
const PREFILL: usize = 64;

/// Tokens per page of the cache, and pages of it.
const PAGE_SIZE: usize = 16;
const PAGES: usize = TEXT.len().div_ceil(PAGE_SIZE) + 1;

fn main() -> latent_attention_candle::Result<()> {
    let weights = match std::env::args_os().nth(1) {
        Some(path) => read(Path::new(&path))?,
        None => random::weights(),
    };
    let llama = Llama::new(&weights)?;
    let tables = RopeTables::from_frequencies(&weights.frequencies, TEXT.len());
    let vocabulary = weights.embedding.rows() as u32;
    let [calibration, text] = [CALIBRATION, TEXT].map(|tokens| tokens.map(|token| token % vocabulary));

    // The hidden states that each layer sees in the calibration's text.
    let mut seen = weights.attention.iter().map(Calibration::new).collect::<latent_attention::Result<Vec<_>>>()?;
    let mut layers = full_kv(&weights, &tables)?;
    llama.forward(&calibration, |layer, x| {
        let inputs = x.flatten_all()?.to_vec1::<f32>()?;
        seen[layer].observe(&weights.attention[layer], &inputs).map_err(Error::from)?;
        layers[layer].forward(x, 0)
    })?;

    let mut layers = full_kv(&weights, &tables)?;
    let original = logits(&llama, &text, |layer, x, start| layers[layer].forward(x, start))?;
    let (kv_heads, head_dim) = (weights.attention[0].kv_heads, weights.attention[0].head_dim);
    println!("full KV cache in bf16: {} bytes per token and layer", 4 * kv_heads * head_dim);
    println!("{:<26} cache  layers swapped  bytes  largest  cosine  same top token", "latent attention");
    for (rope_dim, d_kv) in [(head_dim, head_dim), (head_dim / 8, head_dim / 2)] {
        let name = format!("d_kv {d_kv}, {rope_dim} of {head_dim} rotated");
        let options = ConvertOptions::new(rope_dim, kv_heads * d_kv);
        let converted = weights.attention.iter().zip(&seen).map(|(layer, seen)| convert(layer, &options, Some(seen)));
        let converted = converted.collect::<latent_attention::Result<Vec<_>>>()?;
        for (format_name, format) in [("bf16", CacheFormat::BF16), ("int4", CacheFormat::INT4)] {
            let mla = Rc::new(operations(&converted[0], format)?);
            let middle = converted.len() / 2;
            for swapped in [middle..middle + 1, 0..converted.len()] {
                let compared = swap(&llama, &text, &weights, &converted, &swapped, &mla, &tables)?;
                let Difference { largest, cosine, agreeing } = Difference::new(&original, &compared)?;
                let layers = format!("{} of {}", swapped.len(), converted.len());
                let bytes = mla.config().layout.bytes_per_token();
                let agreeing = format!("{agreeing} of {}", text.len());
                println!(
                    "{name:<26} {format_name} {layers:>16} {bytes:>6} {largest:>8.3} {cosine:>7.4} {agreeing:>15}"
                );
            }
        }
    }
    Ok(())
}

/// A model from disk.
fn read(path: &Path) -> latent_attention::Result<Weights> {
    let checkpoint = load::open(path)?;
    let config = checkpoint.config();
    if !config.same_frequencies() {
        let what = format!("layers of {} that rotate nothing", path.display());
        return Err(latent_attention::Error::Unsupported { what, why: "all layers share one table here".into() });
    }
    let attention = |layer| match checkpoint.attention(layer)? {
        Attention::Dense(dense) if dense.head_norms.is_some() => {
            let what = format!("norms over heads in {}", path.display());
            Err(latent_attention::Error::Unsupported { what, why: "they are not computed here".into() })
        }
        Attention::Dense(dense) => Ok(dense),
        Attention::Latent(_) => {
            let why = "its attention is latent already".into();
            Err(latent_attention::Error::File { path: path.into(), why })
        }
    };
    Ok(Weights {
        embedding: checkpoint.embedding()?,
        attention: (0..config.layers).map(attention).collect::<latent_attention::Result<_>>()?,
        blocks: (0..config.layers).map(|layer| checkpoint.block(layer)).collect::<latent_attention::Result<_>>()?,
        final_norm: checkpoint.final_norm()?,
        head: checkpoint.lm_head()?,
        frequencies: config.inverse_frequencies.clone(),
    })
}

fn full_kv(weights: &Weights, tables: &RopeTables) -> Result<Vec<FullKv>> {
    weights.attention.iter().map(|layer| FullKv::new(layer, tables)).collect()
}

/// Made once for all layers: they have the same shape.
fn operations(layer: &LatentAttention, format: CacheFormat) -> latent_attention_candle::Result<Mla> {
    let layout = CacheLayout::new(&layer.geometry, format, PAGE_SIZE)?;
    let tokens = PAGES * PAGE_SIZE;
    let config = DecodeConfig::new(layer.geometry, layout, layer.scale as f32, PREFILL, tokens);
    Ok(Mla::new(&Device::Cpu, config)?)
}

/// Logits of the model with some of its layers swapped.
fn swap(
    llama: &Llama,
    text: &[u32],
    weights: &Weights,
    converted: &[LatentAttention],
    swapped: &Range<usize>,
    mla: &Rc<Mla>,
    tables: &RopeTables,
) -> Result<Tensor> {
    let mut full = full_kv(weights, tables)?;
    let latent = |layer| LatentKv::new(mla, layer, tables, PAGES);
    let mut latent = converted[swapped.clone()].iter().map(latent).collect::<Result<Vec<_>>>()?;
    logits(llama, text, |layer, x, start| {
        if swapped.contains(&layer) {
            latent[layer - swapped.start].forward(x, start)
        } else {
            full[layer].forward(x, start)
        }
    })
}

/// Logits after each token: a prefill, then one token at a time.
fn logits(
    llama: &Llama,
    text: &[u32],
    mut attention: impl FnMut(usize, &Tensor, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut start = 0;
    let mut parts = Vec::new();
    let (prefill, decoded) = text.split_at(PREFILL);
    for tokens in std::iter::once(prefill).chain(decoded.chunks(1)) {
        parts.push(llama.forward(tokens, |layer, x| attention(layer, x, start))?);
        start += tokens.len();
    }
    Tensor::cat(&parts, 0)
}

/// How far logits `[T, vocabulary]` are apart.
struct Difference {
    /// Largest difference of two logits.
    largest: f32,
    /// Cosine of the angle between both, the mean of all tokens.
    cosine: f32,
    /// Tokens for which the most likely successor is the same.
    agreeing: u32,
}

impl Difference {
    fn new(a: &Tensor, b: &Tensor) -> Result<Self> {
        let dot = |a: &Tensor, b: &Tensor| (a * b)?.sum(D::Minus1);
        let cosines = (dot(a, b)? / (dot(a, a)? * dot(b, b)?)?.sqrt()?)?;
        let agreeing = a.argmax(D::Minus1)?.eq(&b.argmax(D::Minus1)?)?;
        Ok(Self {
            largest: (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?,
            cosine: cosines.mean_all()?.to_scalar()?,
            agreeing: agreeing.to_dtype(DType::U32)?.sum_all()?.to_scalar()?,
        })
    }
}
