//! Partial RoPE: which pairs stay, and what rotation means.

use latent_attention::rope::{FrequencyIndex, Pairing, PartialRope, RopeTables, rotate_head, theta_frequencies};
use proptest::prelude::*;

use crate::common::{random, rng};

const PAIRINGS: [Pairing; 2] = [Pairing::Half, Pairing::Interleaved];

#[test]
fn strategies_keep_the_pairs_of_the_paper() {
    // head_dim 16 has pairs 0..8; rope_dim 4 keeps 2 of them.
    let select = |rule: PartialRope| rule.select(2, 16, 4).unwrap().as_slice().to_vec();
    assert_eq!(select(PartialRope::High), [0, 1, 0, 1]);
    assert_eq!(select(PartialRope::Low), [6, 7, 6, 7]);
    assert_eq!(select(PartialRope::Uniform { start: 0 }), [0, 4, 0, 4]);
    assert_eq!(select(PartialRope::Uniform { start: 3 }), [3, 7, 3, 7]);
    let scores = [
        0.0, 5.0, 1.0, 1.0, 0.0, 9.0, 2.0, 0.0, /* head 1: a tie goes to the smaller pair */ 1.0, 7.0, 1.0, 1.0,
        1.0, 1.0, 1.0, 1.0,
    ];
    assert_eq!(select(PartialRope::TwoNorm { scores: &scores }), [1, 5, 0, 1]);
}

#[test]
fn impossible_selections_are_refused() {
    let message = |rule: PartialRope, rope_dim| rule.select(1, 16, rope_dim).unwrap_err().to_string();
    assert!(message(PartialRope::High, 5).contains("rope_dim must be even and at most head_dim = 16, got 5"));
    assert!(message(PartialRope::High, 18).contains("got 18"));
    assert!(message(PartialRope::Uniform { start: 4 }, 4).contains("start before pair pairs/kept"));
    assert!(message(PartialRope::Uniform { start: 0 }, 6).contains("3 kept pairs must divide 8 pairs"));
    assert!(
        message(PartialRope::TwoNorm { scores: &[1.0; 7] }, 4).contains("[kv heads 1, pairs 8] = 8 elements, got 7")
    );
    assert!(message(PartialRope::TwoNorm { scores: &[f32::NAN; 8] }, 4).contains("must be finite"));
}

#[test]
fn with_every_pair_kept_rotation_is_ordinary_rope() {
    let (dim, theta) = (16, 10_000.0);
    let tables = RopeTables::from_theta(theta, dim, 100);
    let frequencies = FrequencyIndex::all(1, dim);
    for pairing in PAIRINGS {
        let head = random(&mut rng(1), dim);
        let mut rotated = head.clone();
        rotate_head(&mut rotated, frequencies.head(0), pairing, &tables, 77);
        for pair in 0..dim / 2 {
            // The complex form: (a + ib) e^(i m theta^(-2p/d)).
            let angle = 77.0 * f64::from(theta).powf(-2.0 * pair as f64 / dim as f64);
            let (i, j) = pairing.dims(pair, dim);
            let (a, b) = (f64::from(head[i]), f64::from(head[j]));
            let want = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos());
            // Angles up to 77 rad carry the f32 rounding of their frequency: 77 * 2^-24 = 5e-6.
            approx::assert_abs_diff_eq!(f64::from(rotated[i]), want.0, epsilon = 6e-6);
            approx::assert_abs_diff_eq!(f64::from(rotated[j]), want.1, epsilon = 6e-6);
        }
    }
}

#[test]
fn a_gathered_frequency_turns_like_its_original_pair() {
    let (head_dim, rope_dim) = (32, 6);
    let tables = RopeTables::from_theta(1e5, head_dim, 50);
    let kept = [2u32, 7, 15];
    let full = random(&mut rng(2), head_dim);
    let mut rotated = full.clone();
    rotate_head(&mut rotated, FrequencyIndex::all(1, head_dim).head(0), Pairing::Half, &tables, 49);
    for pairing in PAIRINGS {
        let mut compressed = vec![0.0; rope_dim];
        let mut want = vec![0.0; rope_dim];
        for (j, &pair) in kept.iter().enumerate() {
            let (from, to) = (Pairing::Half.dims(pair as usize, head_dim), pairing.dims(j, rope_dim));
            (compressed[to.0], compressed[to.1]) = (full[from.0], full[from.1]);
            (want[to.0], want[to.1]) = (rotated[from.0], rotated[from.1]);
        }
        rotate_head(&mut compressed, &kept, pairing, &tables, 49);
        assert_eq!(compressed, want);
    }
}

proptest! {
    #[test]
    fn a_score_depends_on_the_distance_of_positions_only(seed: u64, q_at in 0usize..200, k_at in 0usize..200, shift in 0usize..200) {
        let rope_dim = 8;
        let tables = RopeTables::from_theta(1e4, 64, 400);
        let kept = [0u32, 3, 9, 31];
        let mut rng = rng(seed);
        let (q, k) = (random(&mut rng, rope_dim), random(&mut rng, rope_dim));
        for pairing in PAIRINGS {
            let score = |shift: usize| {
                let (mut q, mut k) = (q.clone(), k.clone());
                rotate_head(&mut q, &kept, pairing, &tables, q_at + shift);
                rotate_head(&mut k, &kept, pairing, &tables, k_at + shift);
                q.iter().zip(&k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
            };
            // 8 products of rotated f32 numbers below sqrt(2).
            prop_assert!((score(0) - score(shift)).abs() < 16.0 * f64::from(f32::EPSILON));
        }
    }
}

#[test]
fn tables_hold_what_they_say() {
    let frequencies = theta_frequencies(100.0, 4);
    assert_eq!(frequencies, [1.0, 0.1]);
    let tables = RopeTables::from_frequencies(&frequencies, 3);
    assert_eq!((tables.positions(), tables.frequencies()), (3, 2));
    assert_eq!(tables.at(2, 0), (2f64.cos() as f32, 2f64.sin() as f32));
    let error = RopeTables::new(3, vec![0.0; 7], vec![0.0; 7]).unwrap_err().to_string();
    assert_eq!(error, "rope tables: expected two tables of [positions, frequencies 3], got 7 cosines and 7 sines");
    let error = RopeTables::new(2, vec![1.0; 4], vec![0.0, 0.0, f32::NAN, 0.0]).unwrap_err().to_string();
    assert_eq!(error, "sine of position 1 and frequency 0: NaN: must be finite");
    let error = RopeTables::new(2, vec![1.0, f32::INFINITY], vec![0.0; 2]).unwrap_err().to_string();
    assert_eq!(error, "cosine of position 0 and frequency 1: inf: must be finite");
    assert!(FrequencyIndex::new(2, vec![0; 3]).is_err());
}
