//! The layer: whole steps over a growing cache.

use latent_attention::cache::{CacheFormat, Group, RopeFormat};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::{FrequencyIndex, RopeTables};
use latent_attention::weights::{LatentAttention, Linear, Matrix, QueryDown, RmsNorm};
use latent_attention::{Geometry, reference};
use proptest::prelude::*;
use rand::RngExt;

use crate::common::layers::{Sequence, weights};
use crate::common::{assert_close, geometry, page_size, rng, widen};

fn layer(rng: &mut rand::rngs::ChaCha8Rng, g: Geometry) -> ReferenceLayer {
    ReferenceLayer::new(weights(rng, g)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn steps_of_any_size_give_the_same_output_and_cache(g in geometry(), page_size in page_size(), tokens in 1usize..40, seed: u64) {
        let mut rng = rng(seed);
        let layer = layer(&mut rng, g);
        let tables = RopeTables::from_theta(1e4, 10, 64);
        let sequence = Sequence::new(&mut rng, g, tokens, page_size);
        for format in [CacheFormat::INT4, CacheFormat::BF16, CacheFormat::int4(Group::G32).with_rope(RopeFormat::Int8)] {
            let mut prefilled = layer.new_cache(format, page_size, sequence.batch.pages).unwrap();
            let all = layer.step(&sequence.rows(0..tokens), &sequence.batch.sequences(), &tables, &mut prefilled).unwrap();

            let mut grown = layer.new_cache(format, page_size, sequence.batch.pages).unwrap();
            let (mut done, mut out) = (0, Vec::new());
            while done < tokens {
                let count = rng.random_range(1..=tokens - done);
                let (starts, len) = ([0, count as i32], [(done + count) as i32]);
                let mut batch = sequence.batch.sequences();
                (batch.query_starts, batch.seq_lens) = (&starts, &len);
                out.extend(layer.step(&sequence.rows(done..done + count), &batch, &tables, &mut grown).unwrap().out);
                done += count;
            }
            prop_assert_eq!(&all.out, &out);
            prop_assert!(prefilled == grown);
        }
    }

    #[test]
    fn a_step_is_the_formula_of_the_weights(g in geometry(), seed: u64) {
        let mut rng = rng(seed);
        let layer = layer(&mut rng, g);
        let weights = layer.weights();
        let tables = RopeTables::from_theta(1e4, 10, 64);
        let sequence = Sequence::new(&mut rng, g, 5, 8);
        let mut cache = layer.new_cache(CacheFormat::BF16, 8, sequence.batch.pages).unwrap();
        let out = layer.step(&sequence.rows(0..5), &sequence.batch.sequences(), &tables, &mut cache).unwrap().out;

        // The last token attends to all five: softmax over explicit keys and values.
        let projected = reference::up_project(&g, weights.up_key.data(), weights.up_value.data(), weights.value_bias.as_deref(), &sequence.batch.sequences(), &cache).unwrap();
        let key_dim = g.nope_dim + g.rope_dim;
        for head in 0..g.query_heads {
            let row = 4 * g.query_heads + head;
            let mut q_rope = sequence.q_rope[row * g.rope_dim..][..g.rope_dim].to_vec();
            latent_attention::rope::rotate_head(&mut q_rope, weights.frequencies.head(g.rope_head_of(head)), weights.pairing, &tables, 4);
            let query = [widen(&sequence.q_nope[row * g.nope_dim..][..g.nope_dim]), widen(&q_rope)].concat();
            let at = |t: usize| t * g.kv_heads + g.kv_head_of(head);
            let exps: Vec<f64> = (0..5)
                .map(|t| (weights.scale * query.iter().zip(&projected.keys[at(t) * key_dim..]).map(|(q, k)| q * k).sum::<f64>()).exp())
                .collect();
            let want: Vec<f64> = (0..g.value_dim)
                .map(|i| (0..5).map(|t| exps[t] * projected.values[at(t) * g.value_dim + i]).sum::<f64>() / exps.iter().sum::<f64>())
                .collect();
            assert_close(&widen(&out[row * g.value_dim..][..g.value_dim]), &want, 2f64.powi(-23));
        }
    }
}

#[test]
fn a_step_that_is_refused_leaves_the_cache_untouched() {
    let mut rng = rng(1);
    let g = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let layer = layer(&mut rng, g);
    let tables = RopeTables::from_theta(1e4, 10, 64);
    let sequence = Sequence::new(&mut rng, g, 3, 8);
    let mut cache = layer.new_cache(CacheFormat::INT4, 8, sequence.batch.pages).unwrap();
    let before = cache.clone();
    let mut refused =
        |inputs: ReferenceInputs, batch| layer.step(&inputs, &batch, &tables, &mut cache).unwrap_err().to_string();

    let inputs = sequence.rows(0..3);
    let batch = sequence.batch.sequences();
    let too_few = latent_attention::cache::Sequences { query_starts: &[0, 2], ..batch };
    assert_eq!(refused(inputs, too_few), "query tokens of the batch: expected [slots 3] = 3 elements, got 2 elements");
    let too_long = latent_attention::cache::Sequences { seq_lens: &[100], ..batch };
    assert_eq!(
        refused(inputs, too_long),
        "page table: expected 13 pages for the 100 tokens of sequence 0, got 2 pages"
    );
    assert!(refused(ReferenceInputs { q_nope: &[], ..inputs }, batch).starts_with("q_nope: expected [tokens 3"));
    assert!(refused(ReferenceInputs { q_rope: &[], ..inputs }, batch).starts_with("q_rope: expected [tokens 3"));
    assert!(refused(ReferenceInputs { positions: &[0, 1, 64], ..inputs }, batch).starts_with("positions [2] = 64"));
    assert!(cache == before);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let g = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let good = layer(&mut rng(1), g).weights().clone();
    let refused = |change: fn(&mut LatentAttention)| {
        let mut weights = good.clone();
        change(&mut weights);
        ReferenceLayer::new(weights).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|w| w.up_key = Matrix::from_fn(1, 1, |_, _| 0.0)),
        "key up-projection: expected [6, 8], got [1, 1]"
    );
    assert_eq!(
        refused(|w| w.up_value = Matrix::from_fn(4, 7, |_, _| 0.0)),
        "value up-projection: expected [4, 8], got [4, 7]"
    );
    assert_eq!(
        refused(|w| w.value_bias = Some(vec![])),
        "value bias: expected [kv heads 2, value 2] = 4 elements, got 0 elements"
    );
    assert_eq!(
        refused(|w| w.latent_bias = Some(vec![])),
        "latent bias: expected [latent 8] = 8 elements, got 0 elements"
    );
    assert!(
        refused(|w| w.frequencies = FrequencyIndex::all(1, 4))
            .starts_with("frequency index: expected [rope heads 1, pairs 1]")
    );
    assert_eq!(refused(|w| w.scale = f64::NAN), "scale NaN: must be finite");
    assert_eq!(refused(|w| w.scale = f64::INFINITY), "scale inf: must be finite");
    assert_eq!(
        refused(|w| w.latent_norm = Some(RmsNorm { gain: vec![1.0; w.geometry.latent_rank], epsilon: f32::NAN })),
        "epsilon NaN of the latent norm: must be finite and not negative"
    );
    assert_eq!(
        refused(|w| {
            let norm = RmsNorm { gain: vec![1.0; w.hidden()], epsilon: -1.0 };
            let down = Linear::new(Matrix::from_fn(w.hidden(), w.hidden(), |_, _| 0.0));
            w.query_down = Some(QueryDown { down, norm, with_unnormed: false });
        }),
        "epsilon -1 of the query norm: must be finite and not negative"
    );
    assert!(refused(|w| w.geometry.kv_heads = 0).starts_with("geometry: kv_heads must be at least 1"));
}
