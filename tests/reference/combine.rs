//! `combine`: merging partial attention.

use latent_attention::reference::{Attended, combine};

use crate::common::assert_close;
use crate::properties::combine::partial;

#[test]
fn two_equal_parts_weigh_the_same() {
    let partial = |value: f64| Attended { o_latent: vec![value], lse: vec![1.0] };
    let merged = combine(&[partial(2.0), partial(4.0)]).unwrap();
    assert_close(&merged.o_latent, &[3.0], 1e-15);
    assert_close(&merged.lse, &[1.0 + 2f64.ln()], 1e-15);
}

#[test]
fn a_part_of_infinite_lse_saw_nothing() {
    let seen = Attended { o_latent: vec![1.0, 2.0, 3.0], lse: vec![0.5] };
    for nothing in [f64::NEG_INFINITY, f64::INFINITY] {
        let nothing = Attended { o_latent: vec![f64::NAN; 3], lse: vec![nothing] };
        assert_eq!(combine(&[nothing.clone(), seen.clone(), nothing.clone()]).unwrap(), seen);
        let merged = combine(&[nothing.clone(), nothing]).unwrap();
        assert_eq!(merged, Attended { o_latent: vec![0.0; 3], lse: vec![f64::NEG_INFINITY] });
    }
}

#[test]
fn a_nan_among_the_lse_makes_its_row_nan_and_no_other() {
    let partial = |lse: [f64; 2]| Attended { o_latent: vec![1.0; 2], lse: lse.to_vec() };
    for other in [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 0.5] {
        for partials in
            [[partial([f64::NAN, 1.0]), partial([other, 1.0])], [partial([other, 1.0]), partial([f64::NAN, 1.0])]]
        {
            let merged = combine(&partials).unwrap();
            assert!(merged.lse[0].is_nan() && merged.o_latent[0].is_nan(), "{merged:?}");
            assert_eq!((merged.lse[1], merged.o_latent[1]), (1.0 + 2f64.ln(), 1.0));
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    assert_eq!(combine(&[]).unwrap_err().to_string(), "combine: needs at least one partial");
    let error = combine(&[partial(1, 2), partial(1, 3)]).unwrap_err().to_string();
    assert_eq!(error, "lse of a partial: expected [rows 2] = 2 elements, got 3 elements");
    let odd = Attended { o_latent: vec![0.0; 7], lse: vec![0.0; 2] };
    let error = combine(&[partial(1, 2), odd]).unwrap_err().to_string();
    assert_eq!(error, "o_latent of a partial: expected [rows 2, width 3] = 6 elements, got 7 elements");
}
