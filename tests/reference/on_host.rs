//! The reference, as what the properties are held against.

use std::ops::Range;

use latent_attention::Geometry;
use latent_attention::cache::{PagedCache, Sequences};
use latent_attention::reference::{self, Attended, DecodeInputs, Projected, RopeAppendInputs, RopeAppendParams};

use crate::properties::backend::Backend;

/// The reference on the host.
pub struct Reference;

impl Backend for Reference {
    fn cases(&self) -> u32 {
        u32::MAX
    }

    fn number(&self, value: f64) -> f64 {
        value
    }

    fn error(&self, _: f64) -> f64 {
        0.0
    }

    fn lse_error(&self, _: f64) -> f64 {
        0.0
    }

    fn absorb_query(&self, geometry: &Geometry, up_key: &[f32], q_nope: &[f64], tokens: usize) -> Vec<f64> {
        reference::absorb_query(geometry, up_key, q_nope, tokens).unwrap()
    }

    fn expand_output(&self, geometry: &Geometry, up_value: &[f32], bias: &[f32], o_latent: &[f64]) -> Vec<f64> {
        let tokens = o_latent.len() / (geometry.query_heads * geometry.latent_rank);
        reference::expand_output(geometry, up_value, Some(bias), o_latent, tokens).unwrap()
    }

    fn combine(&self, partials: &[Attended]) -> Attended {
        reference::combine(partials).unwrap()
    }

    fn copy_pages(&self, copies: &[[i32; 2]], cache: &mut PagedCache) {
        reference::copy_pages(copies, cache).unwrap();
    }

    fn decode(&self, inputs: &DecodeInputs, cache: &PagedCache) -> Attended {
        reference::decode(inputs, cache).unwrap()
    }

    fn gather(&self, sequences: &Sequences, ranges: Option<&[Range<usize>]>, cache: &PagedCache) -> Vec<f64> {
        reference::gather(sequences, ranges, cache).unwrap()
    }

    fn up_project(
        &self,
        geometry: &Geometry,
        [up_key, up_value, bias]: [&[f32]; 3],
        sequences: &Sequences,
        cache: &PagedCache,
    ) -> Projected {
        reference::up_project(geometry, up_key, up_value, Some(bias), sequences, cache).unwrap()
    }

    fn rope_append(&self, params: &RopeAppendParams, inputs: &RopeAppendInputs, cache: &mut PagedCache) -> usize {
        reference::rope_append(params, inputs, cache).unwrap().saturated
    }
}
