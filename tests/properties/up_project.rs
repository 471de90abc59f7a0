//! `up_project`: keys and values of cached tokens.

use latent_attention::reference::Projected;
use proptest::prelude::*;

use super::backend::{Backend, assert_within, numbers};
use super::for_all;
use crate::common::{Batch, formats, geometry, page_size, ragged, random, rng};

pub fn keys_and_values_are_products_with_the_stored_latent(backend: &dyn Backend) {
    let cases = (geometry(), page_size(), ragged(), any::<u64>(), 0usize..30);
    for_all(backend, cases, |(g, page_size, (lens, queries), seed, format)| {
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, &lens, &queries, page_size);
        let cache = batch.poisoned_cache(&mut rng, &g, formats()[format]);
        let up_key = numbers(backend, random(&mut rng, g.kv_heads * g.nope_dim * g.latent_rank));
        let up_value = numbers(backend, random(&mut rng, g.kv_heads * g.value_dim * g.latent_rank));
        let bias = random(&mut rng, g.kv_heads * g.value_dim);
        let projected = backend.up_project(&g, [&up_key, &up_value, &bias], &batch.sequences(), &cache);

        // What is wanted, and the sums of the magnitudes of its terms.
        let mut want = [(); 2].map(|()| Projected { keys: Vec::new(), values: Vec::new() });
        // The product of a row of weights and a latent. For the magnitudes the latent counts as 1/256 more than it is: a
        // backend that dequantises in smaller types errs by some of its group's step, however small the number.
        let product = |weights: &[f32], row: usize, latent: &[f64]| -> [f64; 2] {
            let weights = &weights[row * g.latent_rank..][..g.latent_rank];
            let pairs = || weights.iter().map(|&w| f64::from(w)).zip(latent);
            [pairs().map(|(w, c)| w * c).sum(), pairs().map(|(w, c)| w.abs() * (c.abs() + 1.0 / 256.0)).sum()]
        };
        for (b, &len) in lens.iter().enumerate() {
            for t in 0..len {
                let (latent, rope) = (cache.latent(batch.slot(b, t)).unwrap(), cache.rope(batch.slot(b, t)).unwrap());
                for head in 0..g.kv_heads {
                    let nope = (0..g.nope_dim).map(|i| product(&up_key, head * g.nope_dim + i, &latent));
                    let rope_head = head * g.rope_heads / g.kv_heads;
                    let rope = rope[rope_head * g.rope_dim..][..g.rope_dim].iter();
                    for numbers in nope.chain(rope.map(|&k| [k, k.abs() + 1.0 / 256.0])) {
                        want.iter_mut().zip(numbers).for_each(|(all, number)| all.keys.push(number));
                    }
                }
                for (row, &bias) in bias.iter().enumerate() {
                    let [value, magnitudes] = product(&up_value, row, &latent);
                    want[0].values.push(value + f64::from(bias));
                    want[1].values.push(magnitudes + f64::from(bias.abs()));
                }
            }
        }
        let [want, magnitudes] = want;
        let errors = |magnitudes: Vec<f64>| magnitudes.into_iter().map(|magnitudes| backend.error(magnitudes));
        assert_within(&projected.keys, &want.keys, 1e-13, errors(magnitudes.keys));
        assert_within(&projected.values, &want.values, 1e-13, errors(magnitudes.values));
        Ok(())
    });
}
