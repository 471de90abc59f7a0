//! A whole model, from tokens to logits.

use latent_attention::load::{Checkpoint, GatedMlp};
use latent_attention::weights::RmsNorm;

use super::attention::{direct, linear, multiply, norm};
use super::{Tokens, latent, tables};

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn add(x: &mut Tokens, y: &Tokens) {
    x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
}

fn gated(mlp: &GatedMlp, x: &[f64]) -> Vec<f64> {
    let (gate, up) = (linear(&mlp.gate, x), linear(&mlp.up, x));
    let inner: Vec<f64> = gate.iter().zip(&up).map(|(&gate, up)| silu(gate) * up).collect();
    linear(&mlp.down, &inner)
}

/// What a layer has besides its attention: the norm in front of that, and what the MLP and its norms add to the residual
/// stream.
type Rest = (RmsNorm, Box<dyn Fn(&[f64]) -> Vec<f64>>);

fn rest(checkpoint: &Checkpoint, layer: usize) -> Rest {
    let Some(mixture) = checkpoint.mixture(layer).unwrap() else {
        let block = checkpoint.block(layer).unwrap();
        let mlp = GatedMlp { gate: block.gate, up: block.up, down: block.down };
        return (block.attention_norm, Box::new(move |x| gated(&mlp, &norm(&block.mlp_norm, x))));
    };
    let experts: Vec<_> =
        (0..mixture.router.weight.rows()).map(|expert| checkpoint.expert(layer, expert).unwrap()).collect();
    let attention_norm = mixture.attention_norm.clone();
    let mlp = move |x: &[f64]| {
        let x = norm(&mixture.mlp_norm, x);
        let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let mut sum = mixture.shared.as_ref().map_or_else(|| vec![0.0; x.len()], |shared| gated(shared, &x));
        for choice in mixture.router.choose(&narrow).unwrap() {
            let output = gated(&experts[choice.expert], &x);
            sum.iter_mut().zip(output).for_each(|(sum, y)| *sum += choice.weight * y);
        }
        mixture.output_norm.as_ref().map_or_else(|| sum.clone(), |gain| norm(gain, &sum))
    };
    (attention_norm, Box::new(mlp))
}

/// The logits of every token.
pub fn logits(checkpoint: &Checkpoint, tokens: &[usize], positions: &[usize]) -> Tokens {
    let config = checkpoint.config();
    let embedding = checkpoint.embedding().unwrap();
    let mut x: Tokens =
        tokens.iter().map(|&token| embedding.row(token).iter().map(|&x| f64::from(x)).collect()).collect();
    for layer in 0..config.layers {
        let (attention_norm, mlp) = rest(checkpoint, layer);
        let tables = tables(config, layer, positions);
        let normed: Tokens = x.iter().map(|x| norm(&attention_norm, x)).collect();
        add(&mut x, &direct(&latent(checkpoint, layer), config, &tables, &normed, positions));
        let outputs = x.iter().map(|x| mlp(x)).collect();
        add(&mut x, &outputs);
    }
    let final_norm = checkpoint.final_norm().unwrap();
    let head = checkpoint.lm_head().unwrap().unwrap_or(embedding);
    x.iter().map(|x| multiply(&head, &norm(&final_norm, x))).collect()
}
