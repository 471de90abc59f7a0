//! Loads every weight of a model as f32, keeps all of them, and prints how long that took and what it needed.
//!
//! `cargo run --release --example load --features gguf -- MODEL`, where MODEL is a `.gguf` file or a directory in
//! Hugging Face's layout.

use std::path::Path;
use std::time::Instant;

use latent_attention::load::{self, Attention, Checkpoint, GatedMlp};
use latent_attention::weights::{Linear, Matrix};
use latent_attention::{Error, Result};

fn main() -> Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        let why = "must be the path of a .gguf file or of a directory in Hugging Face's layout".into();
        return Err(Error::Config { what: "first argument".into(), why });
    };
    let start = Instant::now();
    let checkpoint = load::open(Path::new(&path))?;
    let opened = start.elapsed();
    let embedding = checkpoint.embedding()?;
    let head = checkpoint.lm_head()?;
    let final_norm = checkpoint.final_norm()?;
    let layers = 0..checkpoint.config().layers;
    let layers = layers.map(|layer| Ok((checkpoint.attention(layer)?, Rest::read(&checkpoint, layer)?)));
    let layers: Vec<_> = layers.collect::<Result<_>>()?;
    let loaded = start.elapsed();

    let of_layers = layers.iter().map(|(attention, rest)| {
        let mlps = rest.mlps.iter().map(|mlp| linears(&[&mlp.gate, &mlp.up, &mlp.down]));
        rest.norms_and_router + mlps.sum::<usize>() + of_attention(attention)
    });
    let outside = matrices(&[&embedding]) + head.as_ref().map_or(0, |head| matrices(&[head])) + final_norm.gain.len();
    let bytes = size_of::<f32>() * (outside + of_layers.sum::<usize>());
    println!("{} layers, {:.1} MB of f32 weights", layers.len(), bytes as f64 / 1e6);
    println!("opened after {:.3} s, loaded after {:.3} s", opened.as_secs_f64(), loaded.as_secs_f64());
    match peak_bytes() {
        Some(peak) => println!("peak memory {:.1} MB, {:.2} of the weights", peak / 1e6, peak / bytes as f64),
        None => println!("peak memory: this system does not say"),
    }
    Ok(())
}

/// What a layer has besides attention.
struct Rest {
    /// One, or the shared one and all experts.
    mlps: Vec<GatedMlp>,
    /// Numbers of everything else.
    norms_and_router: usize,
}

impl Rest {
    fn read(checkpoint: &Checkpoint, layer: usize) -> Result<Self> {
        let Some(mixture) = checkpoint.mixture(layer)? else {
            let block = checkpoint.block(layer)?;
            let norms_and_router = block.attention_norm.gain.len() + block.mlp_norm.gain.len();
            let mlps = vec![GatedMlp { gate: block.gate, up: block.up, down: block.down }];
            return Ok(Self { mlps, norms_and_router });
        };
        let experts = mixture.router.weight.rows();
        let mut mlps = (0..experts).map(|expert| checkpoint.expert(layer, expert)).collect::<Result<Vec<_>>>()?;
        mlps.extend(mixture.shared);
        let correction = mixture.router.correction.map_or(0, |correction| correction.len());
        let norms = [Some(mixture.attention_norm), Some(mixture.mlp_norm), mixture.output_norm];
        let norms = norms.iter().flatten().map(|norm| norm.gain.len()).sum::<usize>();
        Ok(Self { mlps, norms_and_router: norms + matrices(&[&mixture.router.weight]) + correction })
    }
}

/// The number of weights in one layer's attention.
fn of_attention(attention: &Attention) -> usize {
    match attention {
        Attention::Dense(dense) => linears(&[&dense.query, &dense.key, &dense.value, &dense.output]),
        Attention::Latent(latent) => {
            let query_down = latent.query_down.as_ref().map_or(0, |stage| linears(&[&stage.down]));
            let query = linears(&[&latent.query_rope, &latent.query_nope]);
            let cached = linears(&[&latent.key_rope, &latent.down, &latent.output]);
            query_down + query + cached + matrices(&[&latent.up_key, &latent.up_value])
        }
    }
}

fn linears(linears: &[&Linear]) -> usize {
    linears.iter().map(|linear| matrices(&[&linear.weight]) + linear.bias.as_ref().map_or(0, Vec::len)).sum()
}

fn matrices(matrices: &[&Matrix]) -> usize {
    matrices.iter().map(|matrix| matrix.data().len()).sum()
}

/// The most memory that this process has had resident so far, mapped files included, as Linux counts it.
fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}
