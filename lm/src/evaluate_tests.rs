use super::*;
use latent_attention::load::Block;
use latent_attention::weights::{Linear, Matrix, RmsNorm};

use crate::noise::noise;

const HIDDEN: usize = 8;
const VOCABULARY: usize = 30;

/// An attention that answers with its input, some of it left out.
struct Echo(f32);

impl AttentionStep for Echo {
    fn forward(&mut self, _: usize, normed: &[f32], _: Range<usize>) -> Result<Vec<f32>> {
        Ok(normed.iter().map(|x| x * self.0).collect())
    }

    fn reset(&mut self) {}
}

fn transformer() -> Transformer {
    let matrix = |rows, cols, seed| {
        let mut next = noise(seed);
        Matrix::from_fn(rows, cols, |_, _| next())
    };
    let norm = || RmsNorm { gain: vec![1.0; HIDDEN], epsilon: 1e-5 };
    let block = Block {
        attention_norm: norm(),
        mlp_norm: norm(),
        gate: Linear::new(matrix(12, HIDDEN, 1)),
        up: Linear::new(matrix(12, HIDDEN, 2)),
        down: Linear::new(matrix(HIDDEN, 12, 3)),
    };
    Transformer::new(matrix(VOCABULARY, HIDDEN, 4), [Ok(block)], &norm(), None).unwrap()
}

#[test]
fn relative_errors_are_relative() {
    assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
    assert_eq!(relative_error(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
    assert_eq!(relative_error(&[3.0, 4.5], &[3.0, 4.0]), 0.1);
}

#[test]
fn ranges_add_up_to_the_whole_and_must_lie_in_it() {
    let model = transformer();
    let tokens: Vec<u32> = (0..200).map(|i| i * 7 % VOCABULARY as u32).collect();
    let original = Original::new(&model, &mut Echo(1.0), &tokens).unwrap();
    let whole = measure("test", &model, &mut Echo(0.5), &tokens, Some(&original)).unwrap();
    let ranges = [0..70, 70..199];
    let parts = measure_ranges("test", &model, &mut Echo(0.5), &tokens, Some(&original), &ranges).unwrap();
    let mean = |of: &dyn Fn(&Measured) -> f64| {
        parts.iter().zip(&ranges).map(|(part, range)| of(part) * range.len() as f64).sum::<f64>() / 199.0
    };
    let (loss, divergence) = (mean(&|part| part.perplexity.ln()), mean(&|part| part.divergence.unwrap()));
    assert!((loss - whole.perplexity.ln()).abs() < 1e-5, "{loss} against {}", whole.perplexity.ln());
    assert!((divergence - whole.divergence.unwrap()).abs() < 1e-5 && divergence > 1e-3, "{divergence}");
    let own = original.perplexities(&model, &tokens, &ranges).unwrap();
    let loss: f64 = own.iter().zip(&ranges).map(|(perplexity, range)| perplexity.ln() * range.len() as f64).sum();
    assert!((loss / 199.0 - original.perplexity.ln()).abs() < 1e-5);
    for bad in [[0..70, 5..5], [0..70, 100..200]] {
        assert!(measure_ranges("test", &model, &mut Echo(0.5), &tokens, None, &bad).is_err());
    }
}
