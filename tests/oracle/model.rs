//! A whole model, from tokens to logits.

use latent_attention::load::Checkpoint;

use super::attention::{direct, linear, multiply, norm};
use super::{Tokens, latent, tables};

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn add(x: &mut Tokens, y: &Tokens) {
    x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
}

/// The logits of every token.
pub fn logits(checkpoint: &Checkpoint, tokens: &[usize], positions: &[usize]) -> Tokens {
    let config = checkpoint.config();
    let embedding = checkpoint.embedding().unwrap();
    let mut x: Tokens =
        tokens.iter().map(|&token| embedding.row(token).iter().map(|&x| f64::from(x)).collect()).collect();
    for layer in 0..config.layers {
        let (block, tables) = (checkpoint.block(layer).unwrap(), tables(config, layer, positions));
        let normed: Tokens = x.iter().map(|x| norm(&block.attention_norm, x)).collect();
        add(&mut x, &direct(&latent(checkpoint, layer), config, &tables, &normed, positions));
        let mlp = |x: &Vec<f64>| {
            let x = norm(&block.mlp_norm, x);
            let (gate, up) = (linear(&block.gate, &x), linear(&block.up, &x));
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(&gate, up)| silu(gate) * up).collect();
            linear(&block.down, &inner)
        };
        let outputs = x.iter().map(mlp).collect();
        add(&mut x, &outputs);
    }
    let final_norm = checkpoint.final_norm().unwrap();
    let head = checkpoint.lm_head().unwrap().unwrap_or(embedding);
    x.iter().map(|x| multiply(&head, &norm(&final_norm, x))).collect()
}
