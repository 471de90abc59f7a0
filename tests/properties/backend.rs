//! What the properties are held against.

use std::ops::Range;

use latent_attention::Geometry;
use latent_attention::cache::{CacheLayout, PagedCache, Sequences};
use latent_attention::reference::{Attended, DecodeInputs, Projected, RopeAppendInputs, RopeAppendParams};

use crate::common::assert_close;

/// Every operation, over numbers on the host.
///
/// Inputs have to be numbers that the backend [takes](Backend::number); arguments have to fit, and what does not is a
/// panic.
pub trait Backend {
    /// Random cases that a property is held against.
    fn cases(&self) -> u32;

    /// The nearest number that tensors of this backend hold.
    fn number(&self, value: f64) -> f64;

    /// What its roundings may cost a number that is a sum of terms of such magnitudes together, beyond the reference's f64.
    fn error(&self, magnitudes: f64) -> f64;

    /// What they may cost log-sum-exps, which are f32 in every backend but the reference.
    fn lse_error(&self, lse: f64) -> f64;

    fn absorb_query(&self, geometry: &Geometry, up_key: &[f32], q_nope: &[f64], tokens: usize) -> Vec<f64>;

    fn expand_output(&self, geometry: &Geometry, up_value: &[f32], bias: &[f32], o_latent: &[f64]) -> Vec<f64>;

    /// Merges partials, which have to be f32 numbers.
    fn combine(&self, partials: &[Attended]) -> Attended;

    /// Copies pages that are there, none of them to a page of another copy.
    fn copy_pages(&self, copies: &[[i32; 2]], cache: &mut PagedCache);

    /// Whether it decodes such a cache.
    fn decodes(&self, _geometry: &Geometry, _layout: &CacheLayout) -> bool {
        true
    }

    fn decode(&self, inputs: &DecodeInputs, cache: &PagedCache) -> Attended;

    fn gather(&self, sequences: &Sequences, ranges: Option<&[Range<usize>]>, cache: &PagedCache) -> Vec<f64>;

    /// `weights` are `up_key`, `up_value` and the values' bias.
    fn up_project(
        &self,
        geometry: &Geometry,
        weights: [&[f32]; 3],
        sequences: &Sequences,
        cache: &PagedCache,
    ) -> Projected;

    /// Rotates keys and appends tokens; returns how many values saturated.
    fn rope_append(&self, params: &RopeAppendParams, inputs: &RopeAppendInputs, cache: &mut PagedCache) -> usize;
}

/// f32 numbers that the backend takes.
pub fn numbers(backend: &dyn Backend, values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| backend.number(value.into()) as f32).collect()
}

/// As [`assert_close`], with an error of its own allowed for each number beside the tolerance: the backend's.
#[track_caller]
pub fn assert_within(got: &[f64], want: &[f64], tolerance: f64, errors: impl IntoIterator<Item = f64>) {
    assert_eq!(got.len(), want.len());
    let mut errors = errors.into_iter();
    for (got, want) in got.iter().zip(want) {
        let error = errors.next().expect("an error for each number");
        assert_close(&[*got], &[*want], tolerance + error / want.abs().max(1.0));
    }
}
