//! `head_norm`: norms over whole heads of queries and keys; `src/reference/head_norm.rs` to the bit.

use half::bf16;
use rayon::prelude::*;

use super::memory::{Rows, numbers, numbers_mut};
use super::product::{round, widen};
use crate::{sys, warp};

/// Tokens of a task.
const TOKENS: usize = 16;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn head_norm(params: &sys::HeadNormParams) {
    let tokens = params.tokens as usize;
    (0..tokens.div_ceil(TOKENS)).into_par_iter().for_each(|task| {
        let mut head = vec![0.0; (params.geometry.rope_dim + params.geometry.nope_dim) as usize];
        for token in task * TOKENS..tokens.min((task + 1) * TOKENS) {
            // SAFETY: promised by the caller; a token is one task's.
            unsafe {
                write_factors(params, token, &mut head);
                if params.query_gain != 0 {
                    normalise_queries(params, token, &mut head);
                }
            }
        }
    });
}

/// # Safety
/// As [`head_norm`]; no other call may have the token meanwhile.
unsafe fn write_factors(params: &sys::HeadNormParams, token: usize, head: &mut [f32]) {
    let (g, p) = (&params.geometry, params);
    let rope = Rows::<bf16>::new(p.k_rope, [p.k_rope_token_stride, p.k_rope_head_stride], g.rope_dim);
    let nope = Rows::<bf16>::new(p.k_nope, [p.k_nope_token_stride, p.k_nope_head_stride], g.nope_dim);
    let kv_heads = g.kv_heads as usize;
    // SAFETY: promised by the caller.
    let factors: &mut [f32] = unsafe { numbers_mut(p.key_factors + 4 * (token * kv_heads) as u64, kv_heads) };
    for (kv_head, factor) in factors.iter_mut().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { read(rope, nope, token, kv_head, head) };
        *factor = warp::inverse_rms(head, p.epsilon);
    }
}

/// # Safety
/// As [`head_norm`]; no other call may have the token meanwhile.
unsafe fn normalise_queries(params: &sys::HeadNormParams, token: usize, head: &mut [f32]) {
    let (g, p) = (&params.geometry, params);
    let rope = Rows::<bf16>::new(p.q_rope, [p.q_rope_token_stride, p.q_rope_head_stride], g.rope_dim);
    let nope = Rows::<bf16>::new(p.q_nope, [p.q_nope_token_stride, p.q_nope_head_stride], g.nope_dim);
    let strides = [p.q_rope_out_token_stride, p.q_rope_out_head_stride];
    let rope_out = Rows::<bf16>::new(p.q_rope_out, strides, g.rope_dim);
    let strides = [p.q_nope_out_token_stride, p.q_nope_out_head_stride];
    let nope_out = Rows::<bf16>::new(p.q_nope_out, strides, g.nope_dim);
    // SAFETY: promised by the caller.
    let gains: &[f32] = unsafe { numbers(p.query_gain, g.kv_heads as usize * head.len()) };
    for query_head in 0..g.query_heads as usize {
        // SAFETY: promised by the caller. A head is read before it is written, as it may be the same.
        unsafe { read(rope, nope, token, query_head, head) };
        let inverse = warp::inverse_rms(head, p.epsilon);
        let gain = &gains[query_head / (g.query_heads / g.kv_heads) as usize * head.len()..];
        head.iter_mut().zip(gain).for_each(|(value, gain)| *value = *value * inverse * gain);
        let (first, rest) = head.split_at(g.rope_dim as usize);
        // SAFETY: as above.
        unsafe {
            round(first, rope_out.row_mut(token, query_head));
            round(rest, nope_out.row_mut(token, query_head));
        }
    }
}

/// Both parts of a head, widened.
///
/// # Safety
/// As [`Rows::row`].
unsafe fn read(rope: Rows<bf16>, nope: Rows<bf16>, token: usize, index: usize, head: &mut [f32]) {
    // SAFETY: promised by the caller.
    let (rope, nope) = unsafe { (rope.row(token, index), nope.row(token, index)) };
    let (first, rest) = head.split_at_mut(rope.len());
    widen(rope, first);
    widen(nope, rest);
}
