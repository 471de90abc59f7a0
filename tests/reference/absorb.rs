//! `absorb_query` and `expand_output`: products with the up-projection of the right KV head.

use latent_attention::Geometry;
use latent_attention::reference::{absorb_query, expand_output};

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
