//! `decode`: attention in the latent space equals attention over up-projected keys and values.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, PageTable};
use latent_attention::reference::{
    DecodeInputs, absorb_query, combine, decode, decode_split, expand_output, up_project,
};
use proptest::prelude::*;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::common::{Batch, assert_close, formats, geometry, page_size, ragged, random, rng, widen};
use crate::on_host::Reference;
use crate::properties::decode::Case;

fn case(
    rng: &mut ChaCha8Rng,
    geometry: Geometry,
    format: CacheFormat,
    page_size: usize,
    (lens, queries): &(Vec<usize>, Vec<usize>),
) -> Case {
    let batch = Batch::new(rng, lens, queries, page_size);
    Case::new(&Reference, rng, geometry, format, batch)
}

/// Attention written down naively: all scores, then a softmax without any shift.
fn naive(q: &[f64], keys: &[&[f64]], values: &[&[f64]], scale: f64) -> (Vec<f64>, f64) {
    let weights: Vec<f64> =
        keys.iter().map(|key| (scale * q.iter().zip(*key).map(|(q, k)| q * k).sum::<f64>()).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let width = values.first().map_or(0, |value| value.len());
    let mean = (0..width).map(|i| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f64>() / sum).collect();
    (mean, sum.ln())
}

proptest! {
    #[test]
    fn absorbed_attention_equals_up_projected_attention(geometry in geometry(), page_size in page_size(), ragged in ragged(), seed: u64, format in 0usize..30) {
        let mut rng = rng(seed);
        let g = geometry;
        let mut case = case(&mut rng, g, formats()[format], page_size, &ragged);
        let tokens = case.batch.query_tokens();
        let up_key = random(&mut rng, g.kv_heads * g.nope_dim * g.latent_rank);
        let up_value = random(&mut rng, g.kv_heads * g.value_dim * g.latent_rank);
        let bias = random(&mut rng, g.kv_heads * g.value_dim);
        let q_nope = widen(&random(&mut rng, tokens * g.query_heads * g.nope_dim));
        case.q_latent = absorb_query(&g, &up_key, &q_nope, tokens).unwrap();
        let attended = decode(&case.inputs(), &case.cache).unwrap();
        let out = expand_output(&g, &up_value, Some(&bias), &attended.o_latent, tokens).unwrap();

        let projected = up_project(&g, &up_key, &up_value, Some(&bias), &case.batch.sequences(), &case.cache).unwrap();
        let key_dim = g.nope_dim + g.rope_dim;
        let mut first_token = 0;
        for (b, (&len, &queries)) in ragged.0.iter().zip(&ragged.1).enumerate() {
            for j in 0..queries {
                let seen = (len + j + 1).saturating_sub(queries);
                for head in 0..g.query_heads {
                    let row = (case.batch.query_starts[b] as usize + j) * g.query_heads + head;
                    let kv_head = g.kv_head_of(head);
                    let at = |t: usize| (first_token + t) * g.kv_heads + kv_head;
                    let keys: Vec<&[f64]> = (0..seen).map(|t| &projected.keys[at(t) * key_dim..][..key_dim]).collect();
                    let values: Vec<&[f64]> = (0..seen).map(|t| &projected.values[at(t) * g.value_dim..][..g.value_dim]).collect();
                    let query = [&q_nope[row * g.nope_dim..][..g.nope_dim], &case.q_rope[row * g.rope_dim..][..g.rope_dim]].concat();
                    let (want, lse) = naive(&query, &keys, &values, case.inputs().scale);
                    assert_close(&[attended.lse[row]], &[lse], 1e-12);
                    if seen > 0 {
                        assert_close(&out[row * g.value_dim..][..g.value_dim], &want, 1e-11);
                    }
                }
            }
            first_token += len;
        }
    }

    #[test]
    fn splitting_anywhere_and_combining_is_the_whole(geometry in geometry(), page_size in page_size(), ragged in ragged(), seed: u64) {
        let mut rng = rng(seed);
        let case = case(&mut rng, geometry, CacheFormat::INT4, page_size, &ragged);
        let mut cuts: Vec<usize> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..70)).collect();
        cuts.extend([0, usize::MAX]);
        cuts.sort_unstable();
        let mut parts: Vec<_> =
            cuts.windows(2).map(|cut| decode_split(&case.inputs(), &case.cache, cut[0]..cut[1]).unwrap()).collect();
        // What an empty part holds must not matter.
        for part in &mut parts {
            for (row, lse) in part.lse.iter().enumerate().filter(|(_, lse)| **lse == f64::NEG_INFINITY) {
                prop_assert!(part.o_latent[row * geometry.latent_rank..][..geometry.latent_rank].iter().all(|o| *o == 0.0), "{}", lse);
                part.o_latent[row * geometry.latent_rank..][..geometry.latent_rank].fill(f64::NAN);
            }
        }
        let merged = combine(&parts).unwrap();
        let whole = decode(&case.inputs(), &case.cache).unwrap();
        assert_close(&merged.lse, &whole.lse, 1e-13);
        assert_close(&merged.o_latent, &whole.o_latent, 1e-12);
    }

    #[test]
    fn query_tokens_are_causal_among_themselves(geometry in geometry(), page_size in page_size(), len in 1usize..70, queries in 1usize..5, seed: u64) {
        let mut rng = rng(seed);
        let case = case(&mut rng, geometry, CacheFormat::INT4, page_size, &(vec![len], vec![queries]));
        let together = decode(&case.inputs(), &case.cache).unwrap();
        let (latent_row, rope_row) = (geometry.query_heads * geometry.latent_rank, geometry.query_heads * geometry.rope_dim);
        for j in 0..queries {
            // Alone, as the last token of a sequence cut off behind it.
            let seen = (len + j + 1).saturating_sub(queries) as i32;
            let mut inputs = case.inputs();
            (inputs.sequences.query_starts, inputs.sequences.seq_lens) = (&[0, 1], std::slice::from_ref(&seen));
            inputs.q_latent = &case.q_latent[j * latent_row..][..latent_row];
            inputs.q_rope = &case.q_rope[j * rope_row..][..rope_row];
            let alone = decode(&inputs, &case.cache).unwrap();
            prop_assert_eq!(&together.o_latent[j * latent_row..][..latent_row], alone.o_latent);
            prop_assert_eq!(&together.lse[j * geometry.query_heads..][..geometry.query_heads], alone.lse);
        }
    }
}

#[test]
fn an_empty_sequence_gives_zeros_and_minus_infinity() {
    let geometry = Geometry::smollm_135m(8).unwrap();
    let case = case(&mut rng(1), geometry, CacheFormat::INT4, 8, &(vec![0, 1], vec![2, 3]));
    let attended = decode(&case.inputs(), &case.cache).unwrap();
    // Tokens 0 and 1 belong to the empty sequence; of three query tokens on one cached token only the last sees it.
    assert!(attended.o_latent[..4 * 9 * 24].iter().all(|o| *o == 0.0));
    assert!(attended.lse[..4 * 9].iter().all(|lse| *lse == f64::NEG_INFINITY));
    assert!(attended.lse[4 * 9..].iter().all(|lse| lse.is_finite()));
    let latent = case.cache.latent(case.batch.slot(1, 0)).unwrap();
    assert_close(&attended.o_latent[4 * 9 * 24..][..24], &latent, 1e-15);
}

#[test]
fn scores_beyond_the_range_of_exp_are_no_problem() {
    let geometry = Geometry::deepseek(1, 4, 2, 1, 1).unwrap();
    let mut case = case(&mut rng(2), geometry, CacheFormat::BF16, 8, &(vec![20], vec![1]));
    case.q_latent.fill(1e4);
    let attended = decode(&case.inputs(), &case.cache).unwrap();
    assert!(attended.lse[0].is_finite() && attended.lse[0].abs() > 1000.0);
    assert!(attended.o_latent.iter().all(|o| o.is_finite()));
}

fn refusal<'a>(case: &'a Case, change: impl Fn(&mut DecodeInputs<'a>)) -> String {
    let mut inputs = case.inputs();
    change(&mut inputs);
    decode(&inputs, &case.cache).unwrap_err().to_string()
}

#[test]
fn wrong_arguments_are_named() {
    let (geometry, other) = (Geometry::smollm_135m(8).unwrap(), Geometry::smollm_135m(16).unwrap());
    let case = case(&mut rng(1), geometry, CacheFormat::INT4, 8, &(vec![20, 9], vec![1, 1]));
    assert_eq!(
        refusal(&case, |i| i.q_rope = &[]),
        "q_rope: expected [query tokens 2, query heads 9, rope 8] = 144 elements, got 0 elements"
    );
    assert_eq!(
        refusal(&case, |i| i.q_latent = &[0.0]),
        "q_latent: expected [query tokens 2, query heads 9, latent 24] = 432 elements, got 1 elements"
    );
    for scale in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(refusal(&case, |i| i.scale = scale), format!("scale {scale}: must be finite"));
    }
    assert_eq!(refusal(&case, |i| i.sequences.seq_lens = &[20, -1]), "seq_lens [1] = -1 is outside of 0 and above");
    assert_eq!(
        refusal(&case, |i| i.sequences.seq_lens = &[20, 40]),
        "page table: expected 5 pages for the 40 tokens of sequence 1, got 4 pages"
    );
    assert_eq!(
        refusal(&case, |i| i.sequences.query_starts = &[0, 2, 1]),
        "query starts: expected 3 ascending numbers from 0, got [0, 2, 1]"
    );
    assert_eq!(
        refusal(&case, |i| i.sequences.query_starts = &[0, 2]),
        "query starts: expected 3 ascending numbers from 0, got [0, 2]"
    );
    let huge = PageTable::Dense { table: &[0; 8], max_pages: usize::MAX };
    assert!(refusal(&case, |i| i.sequences.pages = huge).starts_with("page table: expected 3 pages for the 20 tokens"));
    // The second sequence has 2 pages; a third is an unused entry of the table.
    assert_eq!(
        refusal(&case, |i| i.sequences.seq_lens = &[20, 17]),
        "page table [sequence 1, page 2] = 2147480000 is outside of 0..7 pages"
    );
    assert!(refusal(&case, |i| i.geometry = &other).contains("cache layout: latent rank: expected 48"));
}
