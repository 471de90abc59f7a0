use super::*;
use latent_attention::weights::Linear;

const HIDDEN: usize = 8;
const VOCABULARY: usize = 20;

/// An attention that answers each token with the running mean of all inputs so far, which makes it easy to check
/// and yet depend on the past.
#[derive(Default)]
struct Mean {
    layers: Vec<(usize, Vec<f32>)>,
}

impl AttentionStep for Mean {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: Range<usize>) -> Result<Vec<f32>> {
        self.layers.resize_with(self.layers.len().max(layer + 1), || (0, vec![0.0; HIDDEN]));
        let (count, sum) = &mut self.layers[layer];
        ensure!(*count == positions.start, "gap");
        let mut out = Vec::new();
        for row in normed.chunks_exact(HIDDEN) {
            *count += 1;
            sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            out.extend(sum.iter().map(|s| s / *count as f32));
        }
        Ok(out)
    }

    fn reset(&mut self) {
        self.layers.clear();
    }
}

fn norm() -> RmsNorm {
    RmsNorm { gain: vec![1.5; HIDDEN], epsilon: 1e-5 }
}

fn block(seed: usize) -> Result<Block> {
    let weight = |rows, cols, salt: usize| {
        Linear::new(Matrix::from_fn(rows, cols, |r, c| ((r * 7 + c * 13 + seed * 5 + salt) as f32).sin()))
    };
    Ok(Block {
        attention_norm: norm(),
        mlp_norm: norm(),
        gate: weight(12, HIDDEN, 1),
        up: weight(12, HIDDEN, 2),
        down: weight(HIDDEN, 12, 3),
    })
}

fn embedding() -> Matrix {
    Matrix::from_fn(VOCABULARY, HIDDEN, |r, c| ((r * 31 + c * 17) as f32).cos())
}

fn model() -> Transformer {
    Transformer::new(embedding(), [block(1), block(2)], &norm(), None).unwrap()
}

#[test]
fn a_block_is_what_the_architecture_says() {
    let model = Transformer::new(embedding(), [block(1)], &norm(), None).unwrap();
    let hidden = to_vec(&model.forward(&mut Mean::default(), &[5], 0).unwrap()).unwrap();

    let rms = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        x.iter().map(|v| v / (mean + 1e-5).sqrt() * 1.5).collect()
    };
    let apply = |m: &Linear, x: &[f64]| -> Vec<f64> {
        let row = |r: usize| m.weight.row(r).iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
        (0..m.weight.rows()).map(row).collect()
    };
    let weights = block(1).unwrap();
    let mut x: Vec<f64> = embedding().row(5).iter().map(|&v| f64::from(v)).collect();
    let attended = rms(&x);
    x.iter_mut().zip(attended).for_each(|(x, a)| *x += a);
    let normed = rms(&x);
    let (gate, up) = (apply(&weights.gate, &normed), apply(&weights.up, &normed));
    let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    x.iter_mut().zip(apply(&weights.down, &inner)).for_each(|(x, f)| *x += f);
    for (got, expected) in hidden.iter().zip(rms(&x)) {
        assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} and {expected}");
    }
}

#[test]
fn prefill_equals_token_by_token() {
    let (model, tokens) = (model(), [3, 1, 4, 1, 5, 9]);
    let mut attention = Mean::default();
    let whole = to_vec(&model.forward(&mut attention, &tokens, 0).unwrap()).unwrap();
    attention.reset();
    let mut parts = Vec::new();
    for (position, token) in tokens.iter().enumerate() {
        parts.extend(to_vec(&model.forward(&mut attention, &[*token], position).unwrap()).unwrap());
    }
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn uniform_logits_have_the_vocabulary_as_perplexity() {
    let head = Matrix::from_fn(VOCABULARY, HIDDEN, |_, c| c as f32);
    let model = Transformer::new(embedding(), [block(1)], &norm(), Some(head)).unwrap();
    // More tokens than are taken through the output head at once.
    let tokens: Vec<u32> = (0..LOGIT_ROWS as u32 * 2 + 5).map(|i| i * 7 % VOCABULARY as u32).collect();
    let hidden = model.forward(&mut Mean::default(), &tokens, 0).unwrap();
    let loss = model.log_likelihood_loss(&hidden, &tokens).unwrap();
    let perplexity = (loss / tokens.len() as f64).exp();
    assert!((perplexity - VOCABULARY as f64).abs() < 1e-3, "{perplexity}");
}

#[test]
fn the_greedy_token_has_the_smallest_loss() {
    let model = model();
    let hidden = model.forward(&mut Mean::default(), &[7, 2], 0).unwrap();
    let last = hidden.narrow(0, 1, 1).unwrap();
    let loss = |token: u32| model.log_likelihood_loss(&last, &[token]).unwrap();
    let best = (0..VOCABULARY as u32).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!(model.greedy(&hidden).unwrap(), best);
}

#[test]
fn an_observer_sees_every_layer() {
    let mut seen = Vec::new();
    let mut mean = Mean::default();
    let mut observed = Observed::new(&mut mean, |layer, normed: &[f32], output: &[f32]| {
        seen.push((layer, normed.len(), output.len()));
        Ok(())
    });
    model().forward(&mut observed, &[1, 2, 3], 0).unwrap();
    assert_eq!(seen, [(0, 3 * HIDDEN, 3 * HIDDEN), (1, 3 * HIDDEN, 3 * HIDDEN)]);
}

#[test]
fn mistakes_are_errors() {
    let model = model();
    assert!(model.forward(&mut Mean::default(), &[VOCABULARY as u32], 0).is_err());
    let error = model.forward(&mut Mean::default(), &[1], 3).unwrap_err();
    assert!(format!("{error:#}").contains("layer 0"), "{error:#}");
    let hidden = model.forward(&mut Mean::default(), &[1], 0).unwrap();
    assert!(model.log_likelihood_loss(&hidden, &[1, 2]).is_err());
}
