//! `absorb_query` and `expand_output`: products with the up-projection of the right KV head.

use latent_attention::Geometry;
use latent_attention::reference::{absorb_query, expand_output};
use proptest::prelude::*;

use crate::common::{assert_close, geometry, random, rng, widen};

proptest! {
    #[test]
    fn absorbing_moves_the_up_projection_across_the_dot_product(geometry in geometry(), seed: u64, tokens in 0usize..4) {
        let mut rng = rng(seed);
        let g = geometry;
        let up_key = random(&mut rng, g.kv_heads * g.nope_dim * g.latent_rank);
        let q_nope = widen(&random(&mut rng, tokens * g.query_heads * g.nope_dim));
        let latent = widen(&random(&mut rng, g.latent_rank));
        let q_latent = absorb_query(&g, &up_key, &q_nope, tokens).unwrap();
        for row in 0..tokens * g.query_heads {
            let absorbed: f64 = (0..g.latent_rank).map(|l| q_latent[row * g.latent_rank + l] * latent[l]).sum();
            let kv_head = g.kv_head_of(row % g.query_heads);
            let up_projected: f64 = (0..g.nope_dim)
                .map(|i| {
                    let weights = &up_key[(kv_head * g.nope_dim + i) * g.latent_rank..][..g.latent_rank];
                    let key: f64 = weights.iter().zip(&latent).map(|(w, c)| f64::from(*w) * c).sum();
                    q_nope[row * g.nope_dim + i] * key
                })
                .sum();
            assert_close(&[absorbed], &[up_projected], 1e-12);
        }
    }

    #[test]
    fn expanding_a_mean_is_the_mean_of_expanded_values(geometry in geometry(), seed: u64, weight in 0.0f64..1.0) {
        let mut rng = rng(seed);
        let g = geometry;
        let up_value = random(&mut rng, g.kv_heads * g.value_dim * g.latent_rank);
        let bias = random(&mut rng, g.kv_heads * g.value_dim);
        let expand = |latents: &[f64]| expand_output(&g, &up_value, Some(&bias), latents, 1).unwrap();
        let a = widen(&random(&mut rng, g.query_heads * g.latent_rank));
        let b = widen(&random(&mut rng, g.query_heads * g.latent_rank));
        let mix = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| weight * a + (1.0 - weight) * b).collect::<Vec<_>>();
        assert_close(&expand(&mix(&a, &b)), &mix(&expand(&a), &expand(&b)), 1e-12);
    }
}

#[test]
fn each_query_head_uses_its_kv_head() {
    // 4 query heads on 2 KV heads, one dimension each: the weight tells the KV head.
    let g = Geometry::mha2mla(4, 2, 1, 0, 1).unwrap().with_latent_rank(1).unwrap();
    assert_eq!(absorb_query(&g, &[10.0, 20.0], &[1.0, 2.0, 3.0, 4.0], 1).unwrap(), [10.0, 20.0, 60.0, 80.0]);
    assert_eq!(
        expand_output(&g, &[10.0, 20.0], Some(&[0.5, 0.25]), &[1.0, 2.0, 3.0, 4.0], 1).unwrap(),
        [10.5, 20.5, 60.25, 80.25]
    );
}

#[test]
fn wrong_lengths_are_named() {
    let g = Geometry::smollm_135m(8).unwrap();
    let error = absorb_query(&g, &[0.0; 3], &[], 0).unwrap_err().to_string();
    assert_eq!(error, "key up-projection: expected [kv heads 3, nope 56, latent 24] = 4032 elements, got 3 elements");
    let error = absorb_query(&g, &[0.0; 4032], &[0.0; 5], 1).unwrap_err().to_string();
    assert_eq!(error, "q_nope: expected [tokens 1, query heads 9, nope 56] = 504 elements, got 5 elements");
    let error = expand_output(&g, &[0.0; 4608], Some(&[0.0]), &[0.0; 216], 1).unwrap_err().to_string();
    assert_eq!(error, "value bias: expected [kv heads 3, value 64] = 192 elements, got 1 elements");
    let error = expand_output(&g, &[0.0; 4608], None, &[0.0; 217], 1).unwrap_err().to_string();
    assert_eq!(error, "o_latent: expected [tokens 1, query heads 9, latent 24] = 216 elements, got 217 elements");
}
