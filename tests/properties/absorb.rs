//! `absorb_query` and `expand_output`: products with the up-projection of the right KV head.

use proptest::prelude::*;

use super::backend::{Backend, assert_within, numbers};
use super::for_all;
use crate::common::{geometry, random, rng, widen};

pub fn absorbing_moves_the_up_projection_across_the_dot_product(backend: &dyn Backend) {
    for_all(backend, (geometry(), any::<u64>(), 0usize..4), |(g, seed, tokens)| {
        let mut rng = rng(seed);
        let mut numbers = |len: usize| numbers(backend, random(&mut rng, len));
        let up_key = numbers(g.kv_heads * g.nope_dim * g.latent_rank);
        let q_nope = widen(&numbers(tokens * g.query_heads * g.nope_dim));
        let latent = widen(&numbers(g.latent_rank));
        let q_latent = backend.absorb_query(&g, &up_key, &q_nope, tokens);
        for row in 0..tokens * g.query_heads {
            let absorbed: f64 = (0..g.latent_rank).map(|l| q_latent[row * g.latent_rank + l] * latent[l]).sum();
            let kv_head = g.kv_head_of(row % g.query_heads);
            let (mut up_projected, mut magnitudes) = (0.0, 0.0);
            for i in 0..g.nope_dim {
                let weights = &up_key[(kv_head * g.nope_dim + i) * g.latent_rank..][..g.latent_rank];
                let products = || weights.iter().zip(&latent).map(|(w, c)| f64::from(*w) * c);
                let query = q_nope[row * g.nope_dim + i];
                up_projected += query * products().sum::<f64>();
                magnitudes += query.abs() * products().map(f64::abs).sum::<f64>();
            }
            assert_within(&[absorbed], &[up_projected], 1e-12, [backend.error(magnitudes)]);
        }
        Ok(())
    });
}

pub fn expanding_a_mean_is_the_mean_of_expanded_values(backend: &dyn Backend) {
    for_all(backend, (geometry(), any::<u64>(), 0.0f64..1.0), |(g, seed, weight)| {
        let mut rng = rng(seed);
        let up_value = numbers(backend, random(&mut rng, g.kv_heads * g.value_dim * g.latent_rank));
        let bias = random(&mut rng, g.kv_heads * g.value_dim);
        let expand = |latents: &[f64]| backend.expand_output(&g, &up_value, &bias, latents);
        let [a, b] = [(); 2].map(|()| widen(&numbers(backend, random(&mut rng, g.query_heads * g.latent_rank))));
        let mix =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| weight * a + (1.0 - weight) * b).collect::<Vec<_>>();
        // The mean of the latents is rounded, and so is each of the three results.
        let errors = (0..g.query_heads * g.value_dim).map(|row| {
            let (head, i) = (row / g.value_dim, row % g.value_dim);
            let at = g.kv_head_of(head) * g.value_dim + i;
            let weights = up_value[at * g.latent_rank..][..g.latent_rank].iter().map(|w| f64::from(w.abs()));
            let latents = (head * g.latent_rank..).map(|l| a[l].abs().max(b[l].abs()));
            let products: f64 = weights.zip(latents).map(|(w, c)| w * c).sum();
            2.0 * backend.error(products + f64::from(bias[at].abs()))
        });
        assert_within(&expand(&mix(&a, &b)), &mix(&expand(&a), &expand(&b)), 1e-12, errors);
        Ok(())
    });
}
