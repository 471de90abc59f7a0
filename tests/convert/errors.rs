//! Every wrong input is an error that says what is wrong.

use latent_attention::Error;
use latent_attention::convert::{
    Basis, Calibration, ConvertOptions, Factorization, RopeChoice, centre_latent, convert, rotate_latent,
};
use latent_attention::weights::{DenseAttention, Linear, Matrix};

use crate::samples::{GQA, MHA, Shape, calibration, dense_layer, plain};

fn error(layer: &DenseAttention, options: &ConvertOptions, calibration: Option<&Calibration>) -> Error {
    convert(layer, options, calibration).unwrap_err()
}

fn with_element(matrix: &Matrix, index: usize, value: f32) -> Matrix {
    let cols = matrix.cols();
    Matrix::from_fn(
        matrix.rows(),
        cols,
        |row, col| {
            if row * cols + col == index { value } else { matrix.row(row)[col] }
        },
    )
}

#[test]
fn a_rank_above_the_full_rank_names_both() {
    let text = |layer: &DenseAttention, options: &ConvertOptions| error(layer, options, None).to_string();
    let layer = dense_layer(GQA, 1);
    let expected = "latent rank 25: the full rank is 24: min(24 key and value rows, hidden 24)";
    assert_eq!(text(&layer, &plain(4, 25)), expected);
    let split = plain(4, 25).with_factorization(Factorization::Split);
    assert_eq!(text(&layer, &split), "latent rank 25: the full rank is 24: 8 of the keys and 16 of the values");
    let layer = dense_layer(MHA, 1);
    let expected = "latent rank 21: the full rank is 20: min(36 key and value rows, hidden 20)";
    assert_eq!(text(&layer, &plain(4, 21)), expected);
    assert_eq!(text(&layer, &plain(4, 0)), "geometry: latent_rank must be at least 1, got 0");
}

#[test]
fn a_rope_dim_that_does_not_fit_the_head_is_an_error() {
    let layer = dense_layer(GQA, 1);
    assert_eq!(
        error(&layer, &plain(10, 8), None).to_string(),
        "geometry: rope_dim must be at most head_dim = 8, got 10"
    );
    assert_eq!(error(&layer, &plain(3, 8), None).to_string(), "geometry: rope_dim must be even, got 3");
    let uniform = plain(6, 8).with_rope(RopeChoice::Uniform { start: 0 });
    assert!(matches!(error(&layer, &uniform, None), Error::Config { .. }));
}

#[test]
fn an_option_that_needs_a_calibration_says_so() {
    let layer = dense_layer(GQA, 1);
    let empty = Calibration::new(&layer).unwrap();
    for (options, name) in [
        (plain(4, 8).with_rope(RopeChoice::TwoNorm), "RopeChoice::TwoNorm: "),
        (plain(4, 8).with_whiten(true), "ConvertOptions::whiten: "),
        (plain(4, 8).with_basis(Basis::default().centred()), "Basis::centre: "),
    ] {
        let (none, unused) = (error(&layer, &options, None), error(&layer, &options, Some(&empty)));
        assert!(matches!((&none, &unused), (Error::Config { .. }, Error::Config { .. })));
        for (text, why) in [(none.to_string(), "none was given"), (unused.to_string(), "this one has none")] {
            assert!(text.starts_with(name) && text.contains(why), "{text}");
            assert!(text.contains("Calibration::observe, or "), "{text}");
        }
    }
}

#[test]
fn the_calibration_of_another_layer_is_an_error() {
    let (layer, other) = (dense_layer(GQA, 1), dense_layer(MHA, 1));
    let mut calibration = calibration(&other, 10, 2);
    let expected = "calibration: was made for 3 query heads, 3 KV heads, head_dim 8 and hidden 20, \
                    the layer has 4 query heads, 2 KV heads, head_dim 8 and hidden 24";
    assert_eq!(error(&layer, &plain(4, 8), Some(&calibration)).to_string(), expected);
    assert_eq!(calibration.observe(&layer, &[0.0; 24]).unwrap_err().to_string(), expected);
    assert_eq!(calibration.tokens(), 10);
}

#[test]
fn wrong_calibration_inputs_are_errors_and_add_nothing() {
    let layer = dense_layer(GQA, 1);
    let mut calibration = calibration(&layer, 10, 2);
    let (mean, scores) = (calibration.mean(), calibration.two_norm_scores());
    assert_eq!(
        calibration.observe(&layer, &[0.0; 25]).unwrap_err().to_string(),
        "calibration inputs: expected [tokens, hidden 24], a multiple of 24 elements, got 25 elements"
    );
    let mut states = [0.0; 48];
    states[30] = f32::INFINITY;
    assert_eq!(
        calibration.observe(&layer, &states).unwrap_err().to_string(),
        "calibration inputs: element 30 is inf, must be finite"
    );
    assert_eq!((calibration.tokens(), calibration.mean(), calibration.two_norm_scores()), (10, mean, scores));
}

#[test]
fn weights_that_are_not_finite_are_named() {
    type Part = fn(&mut DenseAttention) -> &mut Linear;
    let parts: [(&str, Part); 4] = [
        ("query projection", |layer| &mut layer.query),
        ("key projection", |layer| &mut layer.key),
        ("value projection", |layer| &mut layer.value),
        ("output projection", |layer| &mut layer.output),
    ];
    for (name, part) in parts {
        let mut layer = dense_layer(GQA.biased(), 1);
        let linear = part(&mut layer);
        linear.weight = with_element(&linear.weight, 5, f32::NAN);
        let expected = format!("{name}: element 5 is NaN, must be finite");
        assert_eq!(error(&layer, &plain(4, 8), None).to_string(), expected);
        assert_eq!(Calibration::new(&layer).unwrap_err().to_string(), expected);

        let mut layer = dense_layer(GQA.biased(), 1);
        part(&mut layer).bias.as_mut().unwrap()[2] = f32::NEG_INFINITY;
        let expected = format!("{name}'s bias: element 2 is -inf, must be finite");
        assert_eq!(error(&layer, &plain(4, 8), None).to_string(), expected);
    }
}

#[test]
fn what_would_change_a_normalised_key_is_an_error() {
    let layer = dense_layer(GQA.normed(), 1);
    let calibration = calibration(&layer, 60, 2);
    let centred = plain(4, 8).with_basis(Basis::rotated(3).centred());
    let message = error(&layer, &centred, Some(&calibration)).to_string();
    assert!(message.starts_with("Basis::centre: "), "{message}");
    let converted = convert(&layer, &plain(4, 8), None).unwrap();
    let message = centre_latent(&converted, &[0.5; 8]).unwrap_err().to_string();
    assert!(message.starts_with("centring a latent: "), "{message}");

    let biased = dense_layer(GQA.normed().biased(), 1);
    let message = error(&biased, &plain(4, 8), None).to_string();
    assert!(message.starts_with("a bias on keys: "), "{message}");
    let mut short = dense_layer(GQA.normed(), 1);
    short.head_norms.as_mut().unwrap().key.pop();
    let message = error(&short, &plain(4, 8), None).to_string();
    assert!(message.starts_with("key head norm: expected [head 8]"), "{message}");
}

#[test]
fn inconsistent_layers_are_errors() {
    let mut layer = dense_layer(GQA, 1);
    layer.key.weight = layer.key.weight.select_rows(&[0, 1, 2]);
    let expected = "key projection: expected [16, 24], got [3, 24]";
    assert_eq!(error(&layer, &plain(4, 8), None).to_string(), expected);
    assert_eq!(Calibration::new(&layer).unwrap_err().to_string(), expected);
    let odd = dense_layer(Shape { head_dim: 7, ..GQA }, 1);
    assert!(matches!(error(&odd, &plain(4, 8), None), Error::Geometry { .. }));
    let ungrouped = dense_layer(Shape { kv_heads: 3, ..GQA }, 1);
    assert!(matches!(error(&ungrouped, &plain(4, 8), None), Error::Geometry { .. }));
    let empty = dense_layer(Shape { hidden: 0, ..GQA }, 1);
    assert_eq!(error(&empty, &plain(4, 8), None).to_string(), "dense attention: its hidden size is 0");
    assert!(Calibration::new(&empty).is_err());
}

#[test]
fn weights_of_zeros_convert_and_inputs_of_zeros_cannot_whiten() {
    let mut layer = dense_layer(GQA, 1);
    layer.value.weight = Matrix::from_fn(16, 24, |_, _| 0.0);
    layer.key.weight = layer.value.weight.clone();
    let converted = convert(&layer, &plain(4, 8), None).unwrap();
    assert!(converted.up_key.data().iter().chain(converted.up_value.data()).all(|&x| x == 0.0));

    let mut calibration = Calibration::new(&layer).unwrap();
    calibration.observe(&layer, &[0.0; 240]).unwrap();
    let whitened = error(&layer, &plain(4, 8).with_whiten(true), Some(&calibration)).to_string();
    assert!(whitened.starts_with("Cholesky of a 24 x 24 matrix failed: "), "{whitened}");
}

#[test]
fn results_outside_of_f32_are_errors() {
    let mut layer = dense_layer(GQA, 1);
    layer.value.weight = Matrix::from_fn(16, 24, |_, _| f32::MAX);
    let text = error(&layer, &plain(4, 8), None).to_string();
    assert!(text.starts_with("rounding the value up-projection of a 16 x 8 matrix failed"), "{text}");
}

#[test]
fn changes_of_basis_check_their_layer_and_mean() {
    let layer = convert(&dense_layer(GQA, 1), &plain(4, 8), None).unwrap();
    assert_eq!(
        centre_latent(&layer, &[0.0; 7]).unwrap_err().to_string(),
        "latent mean: expected [latent 8] = 8 elements, got 7 elements"
    );
    let mut mean = [0.0; 8];
    mean[3] = f64::NAN;
    assert_eq!(centre_latent(&layer, &mean).unwrap_err().to_string(), "latent mean: element 3 is NaN, must be finite");

    let mut broken = layer.clone();
    broken.up_key = with_element(&broken.up_key, 9, f32::INFINITY);
    let expected = "key up-projection: element 9 is inf, must be finite";
    assert_eq!(rotate_latent(&broken, 1).unwrap_err().to_string(), expected);
    assert_eq!(centre_latent(&broken, &[0.0; 8]).unwrap_err().to_string(), expected);

    let mut broken = layer;
    broken.up_value = broken.up_value.select_rows(&[0]);
    let expected = "value up-projection: expected [16, 8], got [1, 8]";
    assert_eq!(rotate_latent(&broken, 1).unwrap_err().to_string(), expected);
}
