//! `up_project`: keys and values of cached tokens.

use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::reference::up_project;
use proptest::prelude::*;

use crate::common::{Batch, assert_close, formats, geometry, page_size, ragged, random, rng};

proptest! {
    #[test]
    fn keys_and_values_are_products_with_the_stored_latent(geometry in geometry(), page_size in page_size(), ragged in ragged(), seed: u64, format in 0usize..30) {
        let mut rng = rng(seed);
        let g = geometry;
        let batch = Batch::new(&mut rng, &ragged.0, &ragged.1, page_size);
        let cache = batch.poisoned_cache(&mut rng, &g, formats()[format]);
        let up_key = random(&mut rng, g.kv_heads * g.nope_dim * g.latent_rank);
        let up_value = random(&mut rng, g.kv_heads * g.value_dim * g.latent_rank);
        let bias = random(&mut rng, g.kv_heads * g.value_dim);
        let projected = up_project(&g, &up_key, &up_value, Some(&bias), &batch.sequences(), &cache).unwrap();

        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let product = |weights: &[f32], row: usize, latent: &[f64]| -> f64 {
            weights[row * g.latent_rank..][..g.latent_rank].iter().zip(latent).map(|(w, c)| f64::from(*w) * c).sum()
        };
        for (b, &len) in ragged.0.iter().enumerate() {
            for t in 0..len {
                let (latent, rope) = (cache.latent(batch.slot(b, t)).unwrap(), cache.rope(batch.slot(b, t)).unwrap());
                for head in 0..g.kv_heads {
                    keys.extend((0..g.nope_dim).map(|i| product(&up_key, head * g.nope_dim + i, &latent)));
                    let rope_head = head * g.rope_heads / g.kv_heads;
                    keys.extend(&rope[rope_head * g.rope_dim..][..g.rope_dim]);
                }
                values.extend((0..g.kv_heads * g.value_dim).map(|row| product(&up_value, row, &latent) + f64::from(bias[row])));
            }
        }
        assert_close(&projected.keys, &keys, 1e-13);
        assert_close(&projected.values, &values, 1e-13);
    }
}

#[test]
fn wrong_lengths_are_named() {
    let g = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let batch = Batch::new(&mut rng(1), &[3], &[1], 8);
    let cache = batch.poisoned_cache(&mut rng(2), &g, CacheFormat::INT4);
    let run = |key: usize, value: usize, bias: usize| {
        let (key, value, bias) = (vec![0.0; key], vec![0.0; value], vec![0.0; bias]);
        up_project(&g, &key, &value, Some(&bias), &batch.sequences(), &cache).unwrap_err().to_string()
    };
    assert_eq!(
        run(1, 32, 4),
        "key up-projection: expected [kv heads 2, nope 3, latent 8] = 48 elements, got 1 elements"
    );
    assert_eq!(
        run(48, 1, 4),
        "value up-projection: expected [kv heads 2, value 2, latent 8] = 32 elements, got 1 elements"
    );
    assert_eq!(run(48, 32, 1), "value bias: expected [kv heads 2, value 2] = 4 elements, got 1 elements");
}
