//! `up_project`: keys and values of cached tokens.

use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::reference::up_project;

use crate::common::{Batch, rng};

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
