use super::*;
use latent_attention::cache::CacheFormat;
use latent_attention::load::Block;
use latent_attention::rope::theta_frequencies;
use latent_attention::weights::{Linear, Matrix, RmsNorm};

use crate::latent::LatentProducts;
use crate::noise::noise;

const HIDDEN: usize = 24;
const VOCABULARY: usize = 40;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const DIM: usize = 8;
const LAYERS: usize = 2;
/// All KV heads' dimensions, and keys and values together.
const ALL: usize = GROUPS * DIM;

fn linear(rows: usize, cols: usize, seed: u32, bias: bool) -> Linear {
    let mut next = noise(seed);
    let weight = Matrix::from_fn(rows, cols, |_, _| next() * 0.4);
    Linear { weight, bias: bias.then(|| (0..rows).map(|_| next() * 0.3).collect()) }
}

pub fn transformer() -> Transformer {
    let norm = || RmsNorm { gain: vec![1.0; HIDDEN], epsilon: 1e-5 };
    let block = |layer: u32| {
        Ok(Block {
            attention_norm: norm(),
            mlp_norm: norm(),
            gate: linear(32, HIDDEN, 10 + layer, false),
            up: linear(32, HIDDEN, 20 + layer, false),
            down: linear(HIDDEN, 32, 30 + layer, false),
        })
    };
    let embedding = linear(VOCABULARY, HIDDEN, 40, false).weight;
    Transformer::new(embedding, (0..LAYERS as u32).map(block), &norm(), None).unwrap()
}

pub fn dense(bias: bool) -> Vec<DenseAttention> {
    let layer = |index: u32| DenseAttention {
        query_heads: HEADS,
        kv_heads: GROUPS,
        head_dim: DIM,
        query: linear(HEADS * DIM, HIDDEN, 50 + index, bias),
        key: linear(ALL, HIDDEN, 60 + index, bias),
        value: linear(ALL, HIDDEN, 70 + index, bias),
        output: linear(HIDDEN, HEADS * DIM, 80 + index, false),
        head_norms: None,
    };
    (0..LAYERS as u32).map(layer).collect()
}

pub fn text(sequences: u32, length: usize) -> Vec<Vec<u32>> {
    let sequence = |seed: u32| {
        let mut next = noise(100 + seed);
        (0..length).map(|_| ((next() + 1.0) * 0.5 * VOCABULARY as f32) as u32).collect()
    };
    (0..sequences).map(sequence).collect()
}

/// Hidden states of a text that no conversion has seen, by the original and by converted layers whose cache does not round.
fn hidden(layers: &[DenseAttention], converted: &[LatentAttention]) -> (Vec<f32>, Vec<f32>) {
    let (transformer, tokens) = (transformer(), &text(31, 40)[30]);
    let tables = RopeTables::from_frequencies(&theta_frequencies(1e4, DIM), tokens.len());
    let mut original = DenseSteps::with_rounding(layers, &tables, |_| ()).unwrap();
    let mut latent = LatentProducts::new(converted, &tables, None).unwrap();
    let read = |attention: &mut dyn AttentionStep| to_vec(&transformer.forward(attention, tokens, 0).unwrap()).unwrap();
    (read(&mut original), read(&mut latent))
}

fn relative_error((expected, got): &(Vec<f32>, Vec<f32>)) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let wrong: f64 = expected.iter().zip(got).map(|(e, g)| square(e - g)).sum();
    (wrong / expected.iter().map(|&e| square(e)).sum::<f64>()).sqrt()
}

fn convert(
    layers: &[DenseAttention],
    sequences: &[Vec<u32>],
    plans: &[Vec<Sizes>],
    options: &ModelOptions,
) -> Result<Vec<Vec<LatentAttention>>> {
    let (transformer, frequencies) = (transformer(), theta_frequencies(1e4, DIM));
    let mut done = 0;
    let source = Source { transformer: &transformer, layers, frequencies: &frequencies };
    let converted = convert_model(source, sequences, plans, options, || done += 1)?;
    assert_eq!(done, layers.len());
    Ok(converted)
}

#[test]
fn with_all_sizes_the_model_is_the_original_to_rounding() {
    for bias in [false, true] {
        let layers = dense(bias);
        let full = Sizes { rope_dim: ALL, latent_rank: HIDDEN.min(2 * ALL) }.everywhere(LAYERS);
        for refit in [None, Some(0.1)] {
            let options = ModelOptions { refit, ..ModelOptions::default() };
            let converted = convert(&layers, &text(10, 30), std::slice::from_ref(&full), &options).unwrap();
            let error = relative_error(&hidden(&layers, &converted[0]));
            assert!(error < 1e-4, "biases {bias}, refit {refit:?}: {error:e}");
        }
    }
}

#[test]
fn layers_have_the_sizes_of_their_plan_and_several_plans_do_not_disturb_each_other() {
    let layers = dense(false);
    let (small, large) = (Sizes { rope_dim: 2, latent_rank: 9 }, Sizes { rope_dim: 6, latent_rank: 14 });
    let plans = [vec![small, large], vec![large, small], large.everywhere(LAYERS)];
    let together = convert(&layers, &text(10, 30), &plans, &ModelOptions::default()).unwrap();
    for (plan, converted) in plans.iter().zip(&together) {
        let sizes = |layer: &LatentAttention| Sizes {
            rope_dim: layer.geometry.rope_width(),
            latent_rank: layer.geometry.latent_rank,
        };
        assert_eq!(converted.iter().map(sizes).collect::<Vec<_>>(), *plan);
        let alone = convert(&layers, &text(10, 30), std::slice::from_ref(plan), &ModelOptions::default()).unwrap();
        assert_eq!(alone[0], *converted);
    }
    // More numbers, a smaller error.
    let error = |converted| relative_error(&hidden(&layers, converted));
    assert!(error(&together[2]) < error(&together[0]).min(error(&together[1])));
}

#[test]
fn the_refit_helps_on_text_that_it_has_not_seen() {
    let layers = dense(false);
    let plan = [Sizes { rope_dim: 4, latent_rank: 10 }.everywhere(LAYERS)];
    let error = |refit| {
        let options = ModelOptions { refit, ..ModelOptions::default() };
        let converted = convert(&layers, &text(30, 30), &plan, &options).unwrap();
        relative_error(&hidden(&layers, &converted[0]))
    };
    let (without, with) = (error(None), error(ModelOptions::default().refit));
    assert!(with < without, "{with} with the refit, {without} without");
}

#[test]
fn long_sequences_are_converted_in_chunks() {
    let layers = dense(false);
    let full = [Sizes { rope_dim: ALL, latent_rank: HIDDEN.min(2 * ALL) }.everywhere(LAYERS)];
    let converted = convert(&layers, &text(1, CHUNK + 60), &full, &ModelOptions::default()).unwrap();
    let error = relative_error(&hidden(&layers, &converted[0]));
    assert!(error < 1e-4, "{error:e}");
}

#[test]
fn an_int4_cache_reads_what_the_conversion_made() {
    let layers = dense(false);
    let plan = [Sizes { rope_dim: 8, latent_rank: 20 }.everywhere(LAYERS)];
    let converted = convert(&layers, &text(10, 30), &plan, &ModelOptions::default()).unwrap().remove(0);
    let tables = RopeTables::from_frequencies(&theta_frequencies(1e4, DIM), 40);
    let read = |format| {
        let mut attention = LatentProducts::new(&converted, &tables, format).unwrap();
        to_vec(&transformer().forward(&mut attention, &text(1, 40)[0], 0).unwrap()).unwrap()
    };
    let error = relative_error(&(read(None), read(Some(CacheFormat::INT4))));
    assert!(error > 1e-3 && error < 0.3, "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_layer() {
    let layers = dense(false);
    let fits = Sizes { rope_dim: 2, latent_rank: 9 };
    let refused = |sequences: &[Vec<u32>], plan: Vec<Sizes>| {
        format!("{:#}", convert(&layers, sequences, &[plan], &ModelOptions::default()).unwrap_err())
    };
    let text = text(4, 20);
    let short = refused(&text, vec![fits]);
    assert!(short.contains("sizes for 1 layers, the model has 2"), "{short}");
    let odd = refused(&text, vec![fits, Sizes { rope_dim: 3, ..fits }]);
    assert!(odd.contains("layer 1") && odd.contains("rope_dim"), "{odd}");
    let large = refused(&text, Sizes { latent_rank: 2 * ALL + 1, ..fits }.everywhere(LAYERS));
    assert!(large.contains("layer 0") && large.contains("latent rank"), "{large}");
    assert!(refused(&[], fits.everywhere(LAYERS)).contains("no text"));
    let little = refused(&[vec![1; 5]], fits.everywhere(LAYERS));
    assert!(little.contains("5 tokens are fewer than the 11 unknowns"), "{little}");
    assert!(!refused(&[vec![VOCABULARY as u32; 30]], fits.everywhere(LAYERS)).is_empty());
}
