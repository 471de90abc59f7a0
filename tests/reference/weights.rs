//! Matrices and linear maps.

use latent_attention::weights::{Linear, Matrix};

#[test]
fn a_linear_map_is_applied_to_every_row() {
    let weight = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let linear = Linear { weight, bias: Some(vec![0.5, -0.5]) };
    assert_eq!(linear.apply(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap(), [1.5, 3.5, 6.5, 14.5]);
    assert_eq!(linear.select_outputs(&[1]).apply(&[0.0, 0.0, 1.0]).unwrap(), [5.5]);
    assert!(linear.apply(&[]).unwrap().is_empty());
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let error = Matrix::new(2, 3, vec![0.0; 5]).unwrap_err().to_string();
    assert_eq!(error, "matrix: expected [rows 2, cols 3] = 6 elements, got 5 elements");
    let linear = Linear::new(Matrix::from_fn(2, 3, |_, _| 0.0));
    let error = linear.apply(&[0.0; 4]).unwrap_err().to_string();
    assert_eq!(error, "linear input: expected [tokens 1, inputs 3] = 3 elements, got 4 elements");
    let error = Linear { bias: Some(vec![0.0]), ..linear }.apply(&[0.0; 3]).unwrap_err().to_string();
    assert_eq!(error, "linear: expected [bias 2] = 2 elements, got 1 elements");
}
