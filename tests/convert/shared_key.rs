//! The conversion to one shared rotated key, as a whole: what it keeps, what it refuses, and that it repeats itself.

use latent_attention::convert::shared_key::{LayerInputs, OutputFit, Sampling, Step, Survey};
use latent_attention::convert::{ConvertOptions, convert};
use latent_attention::rope::theta_frequencies;
use latent_attention::weights::{DenseAttention, LatentAttention, Linear, Matrix};
use latent_attention::{Error, Result};

use crate::oracle::{THETA, dense, latent_layer, relative_error, tokens};
use crate::samples::{GQA, MHA, Shape, calibration, dense_layer, hidden_states};

/// Weights are rounded to f32 once; the balanced latent's coordinates differ in size, which costs a few bits more.
const F32_ROUNDING: f64 = 2e-5;

const WIDE_GROUPS: Shape = Shape { query_heads: 8, kv_heads: 2, head_dim: 8, hidden: 40, biased: false, normed: false };

fn frequencies(layer: &DenseAttention) -> Vec<f32> {
    theta_frequencies(THETA, layer.head_dim)
}

/// Sequences of text whose tokens follow on each other, as real states do.
fn text(sequences: usize, length: usize, hidden: usize, seed: u64) -> Vec<Vec<f32>> {
    (0..sequences as u64).map(|index| hidden_states(length, hidden, seed + index % 3)).collect()
}

fn shared_key(
    layer: &DenseAttention,
    inputs: &dyn LayerInputs,
    rope_dim: usize,
    rank: usize,
) -> Result<LatentAttention> {
    let survey = Survey::new(layer, &frequencies(layer), inputs, &Sampling::default())?;
    survey.choose(inputs, rope_dim, rank)?.attention(inputs)
}

fn error(layer: &DenseAttention, converted: &LatentAttention, x: &[f32]) -> f64 {
    let x = tokens(x, layer.hidden());
    relative_error(&latent_layer(converted, &x), &dense(layer, &x, |_, _| true))
}

#[test]
fn with_all_rotations_and_the_full_rank_the_layer_is_the_original() {
    for shape in [GQA, MHA, WIDE_GROUPS, GQA.biased(), MHA.biased()] {
        let layer = dense_layer(shape, 5);
        let inputs = text(8, 40, shape.hidden, 70);
        let all = shape.kv_heads * shape.head_dim;
        let converted = shared_key(&layer, &inputs, all, shape.hidden.min(2 * all)).unwrap();
        converted.validate().unwrap();
        // To the bit what a loader takes from the configuration: saving refuses another.
        assert_eq!(converted.scale, 1.0 / (shape.head_dim as f64).sqrt());
        // Inputs that the fit has not seen.
        let error = error(&layer, &converted, &hidden_states(30, shape.hidden, 99));
        assert!(error < F32_ROUNDING, "{error:e} on {shape:?}");
    }
}

const STEPS: [Step; 6] = [Step::Costs, Step::Mixing, Step::Ranking, Step::Sensitivity, Step::Decoders, Step::Balance];

fn without(step: Option<Step>) -> Sampling {
    let mut sampling = Sampling::default();
    sampling.without = step;
    sampling
}

#[test]
fn without_any_one_step_the_full_size_is_the_original_and_a_small_one_another_layer() {
    let shape = Shape { query_heads: 6, kv_heads: 3, head_dim: 16, hidden: 64, biased: true, normed: false };
    let layer = dense_layer(shape, 17);
    let inputs = text(12, 60, shape.hidden, 75);
    let convert = |step, rope_dim, rank| {
        let survey = Survey::new(&layer, &frequencies(&layer), &inputs, &without(step)).unwrap();
        survey.choose(&inputs, rope_dim, rank).unwrap().attention(&inputs).unwrap()
    };
    for step in STEPS {
        let error = error(&layer, &convert(Some(step), 48, 64), &hidden_states(30, shape.hidden, 99));
        assert!(error < F32_ROUNDING, "{step:?}: {error:e}");
        // Of few components, the largest may be those that lose most.
        let differs = |rope_dim| convert(Some(step), rope_dim, 30) != convert(None, rope_dim, 30);
        assert!([2, 6, 12, 20].into_iter().any(differs), "{step:?}");
    }
}

#[test]
fn without_position_a_latent_of_full_rank_is_enough() {
    // Frequencies of 0 turn nothing: no rotated key is needed.
    let layer = dense_layer(GQA, 6);
    let inputs = text(8, 40, GQA.hidden, 71);
    let still = vec![0.0; GQA.head_dim / 2];
    let survey = Survey::new(&layer, &still, &inputs, &Sampling::default()).unwrap();
    let converted = survey.choose(&inputs, 0, GQA.hidden).unwrap().attention(&inputs).unwrap();
    let x = tokens(&hidden_states(30, GQA.hidden, 98), GQA.hidden);
    let error = relative_error(&latent_layer(&converted, &x), &dense(&layer, &x, |_, _| false));
    assert!(error < F32_ROUNDING, "{error:e}");
}

#[test]
fn at_equal_cached_numbers_the_error_is_a_fraction_of_that_of_mha2mla() {
    let shape = Shape { query_heads: 6, kv_heads: 3, head_dim: 16, hidden: 64, biased: false, normed: false };
    let layer = dense_layer(shape, 7);
    let inputs = text(12, 60, shape.hidden, 72);
    let ours = shared_key(&layer, &inputs, 24, 40).unwrap();
    let options = ConvertOptions::new(8, 40).with_whiten(true);
    let theirs = convert(&layer, &options, Some(&calibration(&layer, 720, 72))).unwrap();
    let cached = |layer: &LatentAttention| layer.geometry.latent_rank + layer.geometry.rope_width();
    assert_eq!(cached(&ours), cached(&theirs));
    let (ours, theirs) = (error(&layer, &ours, &inputs[0]), error(&layer, &theirs, &inputs[0]));
    assert!(ours < 0.8 * theirs, "{ours} against {theirs}");
}

#[test]
fn more_numbers_never_cost_accuracy() {
    let layer = dense_layer(GQA, 8);
    let inputs = text(10, 60, GQA.hidden, 73);
    let error_of = |rope_dim, rank| error(&layer, &shared_key(&layer, &inputs, rope_dim, rank).unwrap(), &inputs[1]);
    let by_rank: Vec<f64> = [4, 8, 16, 24].map(|rank| error_of(8, rank)).to_vec();
    let by_rotation: Vec<f64> = [0, 4, 8, 16].map(|rope_dim| error_of(rope_dim, 24)).to_vec();
    for errors in [by_rank, by_rotation] {
        assert!(errors.is_sorted_by(|a, b| b < a), "{errors:?}");
    }
}

#[test]
fn the_same_text_gives_the_same_bits_on_any_number_of_threads() {
    let layer = dense_layer(GQA.biased(), 9);
    let inputs = text(9, 40, GQA.hidden, 74);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| shared_key(&layer, &inputs, 8, 12).unwrap())
    };
    let one = on(1);
    assert_eq!(one, on(3));
    assert_eq!(one, on(8));
    let sampling = Sampling::default().with_seed(1);
    let survey = Survey::new(&layer, &frequencies(&layer), &inputs, &sampling).unwrap();
    let other = survey.choose(&inputs, 8, 12).unwrap().attention(&inputs).unwrap();
    assert_ne!(one, other);
}

#[test]
fn frequencies_are_the_kept_ones_and_may_repeat() {
    let layer = dense_layer(WIDE_GROUPS, 10);
    let inputs = text(8, 40, WIDE_GROUPS.hidden, 75);
    let converted = shared_key(&layer, &inputs, 12, 20).unwrap();
    let kept = converted.frequencies.as_slice();
    assert_eq!(kept.len(), 6);
    assert!(kept.is_sorted() && kept.iter().all(|&f| f < 4));
    for frequency in 0..4 {
        assert!(kept.iter().filter(|&&f| f == frequency).count() <= WIDE_GROUPS.kv_heads);
    }
}

#[test]
fn an_output_projection_takes_back_what_the_heads_tell() {
    let (tokens, width, hidden) = (50, 6, 4);
    let heads = hidden_states(tokens, width, 76);
    let (true_output, output) =
        (Linear::new(Matrix::from_fn(hidden, width, |r, c| (r * 7 + c * 3) as f32 % 5.0 - 2.0)), zeros(hidden, width));
    let lacking = true_output.apply(&heads).unwrap();
    let mut fit = OutputFit::new(width, hidden);
    // A token of weight 0 does not count, whatever it says.
    fit.observe(&heads, &lacking, &vec![1.0; tokens]).unwrap();
    fit.observe(&heads[..width], &vec![1e6; hidden], &[0.0]).unwrap();
    let solved = fit.solve(&output, 1e-9).unwrap();
    for (got, expected) in solved.weight.data().iter().zip(true_output.weight.data()) {
        assert!((got - expected).abs() < 1e-4, "{got} {expected}");
    }
    let held = fit.solve(&output, 1e9).unwrap();
    assert!(held.weight.data().iter().all(|x| x.abs() < 1e-3));
    assert!(matches!(fit.solve(&zeros(hidden, width + 1), 0.1), Err(Error::Shape { .. })));
    assert!(matches!(fit.observe(&heads, &lacking, &[1.0]), Err(Error::Shape { .. })));
}

fn zeros(rows: usize, cols: usize) -> Linear {
    Linear::new(Matrix::from_fn(rows, cols, |_, _| 0.0))
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let layer = dense_layer(GQA, 11);
    let inputs = text(4, 40, GQA.hidden, 77);
    let message = |rope_dim, rank, inputs: &Vec<Vec<f32>>| {
        shared_key(&layer, inputs, rope_dim, rank).expect_err("does not fit").to_string()
    };
    let odd = message(7, 8, &inputs);
    assert!(odd.contains("rope_dim must be even and at most 16") && odd.contains("got 7"), "{odd}");
    assert!(message(18, 8, &inputs).contains("got 18"));
    assert!(message(8, 0, &inputs).contains("must be 1 to 24"));
    assert!(message(8, 25, &inputs).contains("latent rank 25: must be 1 to 24"));
    let short = message(8, 20, &text(1, 27, GQA.hidden, 77));
    assert!(short.contains("27 tokens are fewer than the 28 unknowns"), "{short}");
    assert!(message(8, 8, &vec![]).contains("no tokens"));
    assert!(message(8, 8, &vec![vec![0.0; 25]]).contains("25 elements in sequence 0"));
    let mut broken = inputs.clone();
    broken[2][5] = f32::NAN;
    let broken = message(8, 8, &broken);
    assert!(broken.contains("sequence 2: element 5 is NaN"), "{broken}");
    let mut weights = layer.clone();
    weights.key.weight = Matrix::from_fn(16, 24, |_, _| f32::INFINITY);
    assert!(matches!(shared_key(&weights, &inputs, 8, 8), Err(Error::NotFinite { .. })));
    let normed = Survey::new(&dense_layer(GQA.normed(), 1), &frequencies(&layer), &inputs, &Sampling::default());
    let message = normed.err().expect("refused").to_string();
    assert!(message.starts_with("a shared key of keys with norms over heads"), "{message}");
    let few = Survey::new(&layer, &[1.0], &inputs, &Sampling::default());
    assert!(matches!(few.map(|_| ()), Err(Error::Shape { .. })));
    for option in [0, 1, 2] {
        let mut sampling = Sampling::default();
        *[&mut sampling.queries, &mut sampling.keys, &mut sampling.averages][option] = 0;
        let refused = Survey::new(&layer, &frequencies(&layer), &inputs, &sampling);
        assert!(refused.map(|_| ()).unwrap_err().to_string().contains("must be at least 1"));
    }
}

#[test]
fn a_layer_of_zeros_stays_one() {
    let mut layer = dense_layer(GQA, 12);
    layer.key.weight = Matrix::from_fn(16, 24, |_, _| 0.0);
    layer.value.weight = Matrix::from_fn(16, 24, |_, _| 0.0);
    let inputs = text(4, 40, GQA.hidden, 78);
    let converted = shared_key(&layer, &inputs, 8, 8).unwrap();
    assert!(converted.up_value.data().iter().all(|&x| x == 0.0));
}
