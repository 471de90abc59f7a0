//! `rope_append`: rotate, normalise, quantise and store the new tokens of a batch; `src/reference/rope_append.rs` to the
//! bit.

use half::bf16;
use rayon::prelude::*;

use super::cache::{Cache, Part};
use super::memory::{Rows, add_to_counters, numbers, optional_numbers};
use super::product::{round, widen};
use crate::cache::RangeSetting;
use crate::rope::{Pairing, rotate_head_at};
use crate::{sys, warp};

/// Most tasks of a launch. Tokens of one slot are the same task's, in their order, so that no byte of the cache is written
/// by two at a time, whatever the slots are.
const TASKS: usize = 64;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn rope_append(params: &sys::RopeAppendParams, range: RangeSetting) {
    let tokens = params.tokens as usize;
    // SAFETY: promised by the caller.
    let launch = unsafe { Launch::new(params, range) };
    let tasks = tokens.min(TASKS);
    (0..tasks).into_par_iter().for_each(|task| {
        let task_of = |token: usize| usize::try_from(launch.slots[token]).unwrap_or(token) % tasks;
        let mut counts = [0; 2];
        for token in (0..tokens).filter(|&token| task_of(token) == task) {
            // SAFETY: promised by the caller; each token, and each slot, is one task's.
            unsafe { launch.append(token, &mut counts) };
        }
        // SAFETY: promised by the caller, of two counters.
        unsafe { add_to_counters(params.counters, &counts) };
    });
}

/// A parameter block with its arrays.
struct Launch<'a> {
    params: &'a sys::RopeAppendParams,
    cache: Cache<'a>,
    range: RangeSetting,
    pairing: Pairing,
    /// Rows of the tables; none: no rotation.
    positions: Option<&'a [i32]>,
    slots: &'a [i64],
    frequencies: &'a [u32],
    cos: &'a [f32],
    sin: &'a [f32],
    norm_gain: Option<&'a [f32]>,
    /// Of normalised keys: `[tokens, G]`, and `[G, R]`.
    key_norm: Option<[&'a [f32]; 2]>,
    bias: Option<&'a [f32]>,
}

impl<'a> Launch<'a> {
    /// # Safety
    /// As [`rope_append`].
    unsafe fn new(params: &'a sys::RopeAppendParams, range: RangeSetting) -> Self {
        let (g, tokens) = (&params.geometry, params.tokens as usize);
        let rank = g.latent_rank as usize;
        let is_rotated = params.positions != 0;
        let table = if is_rotated { params.table_positions as usize * params.table_frequencies as usize } else { 0 };
        let key_factors = params.cache.key_factors as usize;
        let pairs = if is_rotated { g.rope_heads as usize * (g.rope_dim / 2) as usize } else { 0 };
        // SAFETY: promised by the caller.
        unsafe {
            Self {
                params,
                cache: Cache(&params.cache),
                range,
                pairing: if params.pairing == sys::PAIRING_HALF { Pairing::Half } else { Pairing::Interleaved },
                positions: optional_numbers(params.positions, tokens),
                slots: numbers(params.slots, tokens),
                frequencies: numbers(params.frequency_index, pairs),
                cos: numbers(params.cos, table),
                sin: numbers(params.sin, table),
                norm_gain: optional_numbers(params.norm_gain, rank),
                key_norm: (key_factors > 0).then(|| {
                    let gains = key_factors * g.rope_dim as usize;
                    [numbers(params.key_factors, tokens * key_factors), numbers(params.key_gain, gains)]
                }),
                bias: optional_numbers(params.bias, rank),
            }
        }
    }

    /// Takes in a token. `counts` are those of saturated values and of refused tokens.
    ///
    /// # Safety
    /// As [`rope_append`]; no other token of the same number or slot may be taken in meanwhile.
    unsafe fn append(&self, token: usize, counts: &mut [u64; 2]) {
        let (params, g) = (self.params, &self.params.geometry);
        let slots = u64::from(params.cache.page_count) * u64::from(params.cache.page_size);
        let position = self.positions.map(|positions| positions[token]);
        let is_outside = position.is_some_and(|position| position as u32 >= params.table_positions);
        let slot = self.slots[token];
        if is_outside || slot < -1 || slot >= slots as i64 {
            counts[1] += 1;
            return;
        }
        let rope_heads = g.rope_heads as usize;
        if params.q_rotated != 0 {
            let strides = [params.q_rope_token_stride, params.q_rope_head_stride];
            let q_rope = Rows::<bf16>::new(params.q_rope, strides, g.rope_dim);
            let strides = [params.q_rotated_token_stride, params.q_rotated_head_stride];
            let q_rotated = Rows::<bf16>::new(params.q_rotated, strides, g.rope_dim);
            let (heads, mut values) = (g.query_heads as usize, vec![0.0; g.rope_dim as usize]);
            for head in 0..heads {
                // SAFETY: promised by the caller. A row is read before it is written, as it may be the same.
                widen(unsafe { q_rope.row(token, head) }, &mut values);
                self.rotate(&mut values, head / (heads / rope_heads), position);
                // SAFETY: as above.
                round(&values, unsafe { q_rotated.row_mut(token, head) });
            }
        }
        let Ok(slot) = usize::try_from(slot) else { return };
        let place = self.cache.place(slot);

        let strides = [params.k_rope_token_stride, params.k_rope_head_stride];
        let k_rope = Rows::<bf16>::new(params.k_rope, strides, g.rope_dim);
        let mut keys = vec![0.0; rope_heads * g.rope_dim as usize];
        for (head, key) in keys.chunks_exact_mut((g.rope_dim as usize).max(1)).enumerate() {
            // SAFETY: promised by the caller.
            widen(unsafe { k_rope.row(token, head) }, key);
            if let Some([factors, gain]) = self.key_norm {
                let factor = factors[token * rope_heads + head];
                let gain = &gain[head * key.len()..];
                key.iter_mut().zip(gain).for_each(|(value, gain)| *value = *value * factor * gain);
            }
            self.rotate(key, head, position);
        }
        let c_kv = Rows::<bf16>::new(params.c_kv, [params.c_kv_token_stride, 0], g.latent_rank);
        let mut latent = vec![0.0; g.latent_rank as usize];
        // SAFETY: promised by the caller.
        widen(unsafe { c_kv.row(token, 0) }, &mut latent);
        if let Some(gain) = self.norm_gain {
            let inverse = warp::inverse_rms(&latent, params.norm_epsilon);
            latent.iter_mut().zip(gain).for_each(|(value, gain)| *value = *value * inverse * gain);
        }
        if let Some(bias) = self.bias {
            latent.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
        if let Some([factors, _]) = self.key_norm {
            let of_token = params.cache.key_factors as usize;
            // SAFETY: as below.
            counts[0] += unsafe { self.cache.write_factors(place, &factors[token * of_token..][..of_token]) } as u64;
        }
        for (part, values) in [(Part::Latent, &latent), (Part::Rope, &keys)] {
            // SAFETY: the slot is in the cache; the rest is promised by the caller.
            counts[0] += unsafe { self.cache.write(place, part, self.range, values) } as u64;
        }
    }

    /// Rotates a head at a position, if there is one.
    fn rotate(&self, head: &mut [f32], rope_head: usize, position: Option<i32>) {
        let Some(position) = position else { return };
        let (pairs, columns) = (head.len() / 2, self.params.table_frequencies as usize);
        let frequencies = &self.frequencies[rope_head * pairs..][..pairs];
        let [cos, sin] = [self.cos, self.sin].map(|table| &table[position as usize * columns..][..columns]);
        rotate_head_at(head, frequencies, self.pairing, cos, sin);
    }
}
