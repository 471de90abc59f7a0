//! What `head_norm` means, and what it refuses.

use latent_attention::Geometry;
use latent_attention::reference::{HeadNormInputs, HeadNormQueries, head_norm};

use crate::common::{assert_close, random, rng, widen};

/// Three tokens of four query heads over two KV heads, 6 rotated dimensions of 16.
fn geometry() -> Geometry {
    Geometry::mha2mla(4, 2, 16, 6, 8).unwrap().with_key_norm(true)
}

#[test]
fn heads_are_what_rms_norm_makes_of_both_parts_together() {
    let (g, rng) = (geometry(), &mut rng(1));
    let (q_rope, q_nope) = (random(rng, 3 * 4 * 6), random(rng, 3 * 4 * 10));
    let (k_rope, k_nope) = (random(rng, 3 * 2 * 6), random(rng, 3 * 2 * 10));
    let gain = random(rng, 2 * 16);
    let queries = Some(HeadNormQueries { q_rope: &q_rope, q_nope: &q_nope, gain: &gain });
    let normed = head_norm(&g, &HeadNormInputs { queries, k_rope: &k_rope, k_nope: &k_nope, epsilon: 1e-5 }).unwrap();
    let factor = |rope: &[f32], nope: &[f32]| {
        let squares = widen(rope).iter().chain(&widen(nope)).map(|x| x * x).sum::<f64>();
        1.0 / (squares / 16.0 + 1e-5).sqrt()
    };
    for head in 0..12 {
        let (rope, nope) = (&q_rope[6 * head..][..6], &q_nope[10 * head..][..10]);
        let (factor, gain) = (factor(rope, nope), widen(&gain[head % 4 / 2 * 16..][..16]));
        let want: Vec<f64> =
            widen(&[rope, nope].concat()).iter().zip(gain).map(|(x, gain)| x * factor * gain).collect();
        let got = [&normed.q_rope[6 * head..][..6], &normed.q_nope[10 * head..][..10]].concat();
        assert_close(&widen(&got), &want, 1e-6);
    }
    for key in 0..6 {
        let want = factor(&k_rope[6 * key..][..6], &k_nope[10 * key..][..10]);
        assert_close(&[f64::from(normed.key_factors[key])], &[want], 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (rope, nope) = (vec![0.0; 3 * 2 * 6], vec![0.0; 3 * 2 * 10]);
    let refused = |g: Geometry, k_rope: &[f32], k_nope: &[f32], epsilon: f32, expected: &str| {
        let inputs = HeadNormInputs { queries: None, k_rope, k_nope, epsilon };
        let message = head_norm(&g, &inputs).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let g = geometry();
    refused(g.with_key_norm(false), &rope, &nope, 1e-6, "key norm");
    refused(g, &rope[1..], &nope, 1e-6, "k_rope");
    refused(g, &rope, &nope[1..], 1e-6, "k_nope");
    refused(g, &rope, &nope, f32::NAN, "head norm");
    refused(g, &rope, &nope, -1e-6, "head norm");
    let shared = Geometry::unchecked(4, 2, 8, 1, 6, 10, 8).with_key_norm(true);
    refused(shared, &rope, &nope, 1e-6, "rope_heads");
}

#[test]
fn a_cache_of_normalised_keys_holds_factors_as_f16_and_says_so() {
    use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
    for format in [CacheFormat::INT4, CacheFormat::BF16] {
        // An odd number of KV heads: the row goes on to a multiple of 4 bytes.
        let plain = Geometry::mha2mla(3, 3, 16, 6, 8).unwrap();
        let g = plain.with_key_norm(true);
        let layout = CacheLayout::new(&g, format, 8).unwrap();
        let without = CacheLayout::new(&plain, format, 8).unwrap();
        assert_eq!(layout.bytes_per_token(), without.bytes_per_token() + 8);
        assert!(without.check(&g).unwrap_err().to_string().contains("factors of keys"));
        let mut cache = PagedCache::new(layout, 1).unwrap();
        let (latent, rope) = (vec![0.5; 24], vec![0.25; 18]);
        assert!(cache.write(3, &latent, &rope).unwrap_err().to_string().contains("factors of keys"));
        let saturated = cache.write_normalised(3, &latent, &rope, &[0.1, 1e9, f32::NAN]).unwrap();
        assert_eq!(saturated, 2);
        let f16 = |x: f32| half::f16::from_f32(x).to_f64();
        assert_eq!(cache.factors(3).unwrap(), [f16(0.1), 65504.0, 0.0]);
        assert_eq!(cache.latent(3).unwrap(), [0.5; 24]);
        assert_eq!(cache.rope(3).unwrap(), [0.25; 18]);
    }
}
