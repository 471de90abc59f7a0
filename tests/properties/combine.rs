//! `combine`: merging partial attention.

use latent_attention::reference::Attended;
use proptest::prelude::*;

use super::backend::{Backend, assert_within};
use super::for_all;
use crate::common::{random, rng, widen};

/// Numbers in a row of the partials.
pub const WIDTH: usize = 3;

/// A random partial, of which some rows saw nothing.
pub fn partial(seed: u64, rows: usize) -> Attended {
    let mut rng = rng(seed);
    let lse: Vec<f32> =
        random(&mut rng, rows).into_iter().map(|x| if x < -0.6 { f32::NEG_INFINITY } else { 30.0 * x }).collect();
    Attended { o_latent: widen(&random(&mut rng, rows * WIDTH)), lse: widen(&lse) }
}

pub fn merging_is_associative_and_commutative(backend: &dyn Backend) {
    for_all(backend, (any::<u64>(), 1usize..6), |(seed, rows)| {
        let [a, b, c] = [0, 1, 2].map(|i| partial(seed.wrapping_add(i), rows));
        let all = backend.combine(&[a.clone(), b.clone(), c.clone()]);
        let stepwise = backend.combine(&[backend.combine(&[a.clone(), b.clone()]), c.clone()]);
        let reversed = backend.combine(&[c, b, a]);
        for other in [stepwise, reversed] {
            let errors: Vec<_> = other.lse.iter().map(|lse| 2.0 * backend.lse_error(*lse)).collect();
            assert_within(&all.lse, &other.lse, 1e-13, errors);
            // Means of numbers of up to 1, rounded once, or twice where two steps were taken.
            assert_within(&all.o_latent, &other.o_latent, 1e-13, [2.0 * backend.error(1.0)].into_iter().cycle());
        }
        Ok(())
    });
}

pub fn one_partial_is_itself_where_it_saw_anything(backend: &dyn Backend) {
    for_all(backend, (any::<u64>(), 1usize..6), |(seed, rows)| {
        let partial = partial(seed, rows);
        let merged = backend.combine(std::slice::from_ref(&partial));
        for row in 0..rows {
            let (got, own) = (&merged.o_latent[row * WIDTH..][..WIDTH], &partial.o_latent[row * WIDTH..][..WIDTH]);
            let want = if partial.lse[row] == f64::NEG_INFINITY {
                vec![0.0; WIDTH]
            } else {
                own.iter().map(|&number| backend.number(number)).collect()
            };
            prop_assert_eq!(got, want);
        }
        prop_assert_eq!(merged.lse, partial.lse);
        Ok(())
    });
}
