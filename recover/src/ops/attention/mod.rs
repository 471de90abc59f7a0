//! Causal attention, dense or over latents.

mod head;

use candle_core::{Result, Tensor, bail};
use latent_attention::Geometry;
use rayon::prelude::*;

use super::linear::linear;
use super::node::{Gradients, Value, by_type, common_type, constant, node2, with_numbers};
use super::primitives::{self, by_hand};
use super::product::{Cores, View, product};
use super::real::Real;
use head::{HeadGradients, KeyValues, backward, forward};

/// Where the parts of a projected token stand in its row: queries, rotated keys, latent.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub geometry: Geometry,
    pub q_nope: usize,
    pub k_rope: usize,
    latent: usize,
    width: usize,
}

impl Columns {
    fn new(geometry: Geometry) -> Self {
        let g = geometry;
        let q_nope = g.query_heads * g.rope_dim;
        let k_rope = q_nope + g.query_heads * g.nope_dim;
        let latent = k_rope + g.rope_width();
        Self { geometry, q_nope, k_rope, latent, width: latent + g.latent_rank }
    }

    /// Query heads that share a KV head.
    pub fn per_group(&self) -> usize {
        self.geometry.query_heads / self.geometry.kv_heads
    }

    /// First columns of the rotated and of the unrotated part of a query head.
    fn query(&self, head: usize) -> (usize, usize) {
        let g = &self.geometry;
        (head * g.rope_dim, self.q_nope + head * g.nope_dim)
    }

    /// First column of the rotated key that a KV head's queries are scored against.
    fn key(&self, group: usize) -> usize {
        let g = &self.geometry;
        self.k_rope + group / (g.kv_heads / g.rope_heads) * g.rope_dim
    }
}

/// What all of a call's heads share: sizes, and numbers per token.
struct Call<'a, T> {
    columns: Columns,
    scale: f64,
    sequence: usize,
    tokens: usize,
    /// `[tokens, columns.width]`.
    projected: &'a [T],
    /// `[tokens, G*Dn | G*Dv]`: unrotated keys, then values.
    expanded: &'a [T],
}

impl<T: Real> Call<'_, T> {
    /// One KV head of one sequence: its first row, and the head.
    fn tasks(&self) -> impl IndexedParallelIterator<Item = (usize, usize)> {
        let groups = self.columns.geometry.kv_heads;
        let sequence = self.sequence;
        (0..self.tokens / sequence * groups).into_par_iter().map(move |task| (task / groups * sequence, task % groups))
    }

    /// Copies two ranges of columns of a sequence side by side, times a factor.
    fn gather(&self, start: usize, parts: [(&[T], usize, usize, usize); 2], factor: T) -> Vec<T> {
        let mut out = Vec::with_capacity(self.sequence * (parts[0].3 + parts[1].3));
        for row in start..start + self.sequence {
            for (numbers, width, column, count) in parts {
                out.extend(numbers[row * width + column..][..count].iter().map(|x| *x * factor));
            }
        }
        out
    }

    fn expanded_width(&self) -> usize {
        let g = &self.columns.geometry;
        g.kv_heads * (g.nope_dim + g.value_dim)
    }

    /// Keys and values of a KV head.
    fn key_values(&self, (start, group): (usize, usize)) -> KeyValues<T> {
        let (g, width) = (&self.columns.geometry, self.expanded_width());
        let rope = (self.projected, self.columns.width, self.columns.key(group), g.rope_dim);
        let nope = (self.expanded, width, group * g.nope_dim, g.nope_dim);
        let value = (self.expanded, width, g.kv_heads * g.nope_dim + group * g.value_dim, g.value_dim);
        let none = (self.expanded, width, 0, 0);
        KeyValues {
            keys: self.gather(start, [rope, nope], T::one()),
            values: self.gather(start, [value, none], T::one()),
            key_dim: g.rope_dim + g.nope_dim,
            value_dim: g.value_dim,
        }
    }

    /// A query head, times the scale of scores.
    fn queries(&self, start: usize, head: usize) -> Vec<T> {
        let (g, (rope, nope)) = (&self.columns.geometry, self.columns.query(head));
        let rope = (self.projected, self.columns.width, rope, g.rope_dim);
        let nope = (self.projected, self.columns.width, nope, g.nope_dim);
        self.gather(start, [rope, nope], T::from_f64(self.scale))
    }

    /// `[tokens, H*Dv]`.
    fn attend(&self) -> Vec<T> {
        let (g, per_group) = (&self.columns.geometry, self.columns.per_group());
        let task = |(start, group): (usize, usize)| {
            let key_values = self.key_values((start, group));
            let heads = group * per_group..(group + 1) * per_group;
            let outputs: Vec<Vec<T>> = heads.map(|head| forward(&self.queries(start, head), &key_values)).collect();
            (start, group, outputs)
        };
        let results: Vec<_> = self.tasks().map(task).collect();
        let width = g.query_heads * g.value_dim;
        let mut out = vec![T::zero(); self.tokens * width];
        for (start, group, outputs) in results {
            for (i, output) in outputs.iter().enumerate() {
                scatter(&mut out, width, start, (group * per_group + i) * g.value_dim, output, g.value_dim);
            }
        }
        out
    }

    /// Gradients of `projected`, latents left at zero, and of `expanded`.
    fn attend_backward(&self, gradient: &[T]) -> (Vec<T>, Vec<T>) {
        let (g, per_group) = (&self.columns.geometry, self.columns.per_group());
        let out_width = g.query_heads * g.value_dim;
        let task = |(start, group): (usize, usize)| {
            let key_values = self.key_values((start, group));
            let mut gradients = HeadGradients::zeros(&key_values);
            let head = |head: usize| {
                let part = (gradient, out_width, head * g.value_dim, g.value_dim);
                let gradient = self.gather(start, [part, (gradient, out_width, 0, 0)], T::one());
                backward(&self.queries(start, head), &key_values, &gradient, T::from_f64(self.scale), &mut gradients)
            };
            let queries: Vec<Vec<T>> = (group * per_group..(group + 1) * per_group).map(head).collect();
            (start, group, queries, gradients)
        };
        let results: Vec<_> = self.tasks().map(task).collect();
        let (columns, width) = (self.columns, self.expanded_width());
        let mut projected = vec![T::zero(); self.tokens * columns.width];
        let mut expanded = vec![T::zero(); self.tokens * width];
        // In the order of tasks, whatever core was first: sums over heads then have the same bits in every run.
        for (start, group, queries, gradients) in results {
            for (i, query) in queries.iter().enumerate() {
                let (rope, nope) = columns.query(group * per_group + i);
                let parts = [(rope, 0, g.rope_dim), (nope, g.rope_dim, g.nope_dim)];
                add_parts(&mut projected, columns.width, start, query, g.rope_dim + g.nope_dim, &parts);
            }
            let key_dim = g.rope_dim + g.nope_dim;
            add_parts(
                &mut projected,
                columns.width,
                start,
                &gradients.keys,
                key_dim,
                &[(columns.key(group), 0, g.rope_dim)],
            );
            add_parts(
                &mut expanded,
                width,
                start,
                &gradients.keys,
                key_dim,
                &[(group * g.nope_dim, g.rope_dim, g.nope_dim)],
            );
            scatter(
                &mut expanded,
                width,
                start,
                g.kv_heads * g.nope_dim + group * g.value_dim,
                &gradients.values,
                g.value_dim,
            );
        }
        (projected, expanded)
    }
}

/// Writes rows of `count` numbers into columns of wider rows.
fn scatter<T: Copy>(out: &mut [T], width: usize, start: usize, column: usize, rows: &[T], count: usize) {
    for (row, numbers) in rows.chunks_exact(count).enumerate() {
        out[(start + row) * width + column..][..count].copy_from_slice(numbers);
    }
}

/// Adds parts `(column of out, column of rows, count)` of rows to those of wider ones.
fn add_parts<T: Real>(
    out: &mut [T],
    width: usize,
    start: usize,
    rows: &[T],
    row_width: usize,
    parts: &[(usize, usize, usize)],
) {
    for (row, numbers) in rows.chunks_exact(row_width).enumerate() {
        for &(to, from, count) in parts {
            let out = &mut out[(start + row) * width + to..][..count];
            out.iter_mut().zip(&numbers[from..]).for_each(|(out, x)| *out += *x);
        }
    }
}

/// Latent attention as [`LatentAttention`](latent_attention::weights::LatentAttention) defines it, between its
/// projections: without the value bias, which is a constant added to every token.
///
/// - `projected`: `[tokens, H*R + H*Dn + Gr*R + L]`: rotated queries, unrotated queries, rotated keys, latents, the latter
///   two as the cache gives them back;
/// - `up`: `[G*Dn + G*Dv, L]`: the key up-projection over the value up-projection;
/// - the result is `[tokens, H*Dv]`, before the output projection.
///
/// Each of the sequences of `sequence` tokens attends to itself alone, each token to itself and those before it. On the
/// CPU, keys and values are expanded and scores computed once more in the backward pass; on a GPU scores are kept until
/// then, `[H, sequence, sequence]` numbers for every sequence.
///
/// # Errors
/// If the shapes or types do not fit the geometry.
pub fn latent_attention(
    projected: &Tensor,
    up: &Tensor,
    geometry: &Geometry,
    scale: f64,
    sequence: usize,
) -> Result<Tensor> {
    let dtype = common_type("latent attention", &[projected, up])?;
    let (columns, (tokens, width)) = (Columns::new(*geometry), projected.dims2()?);
    let up_rows = geometry.kv_heads * (geometry.nope_dim + geometry.value_dim);
    if width != columns.width || up.dims() != [up_rows, geometry.latent_rank] {
        let expected = (columns.width, up_rows, geometry.latent_rank);
        bail!(
            "latent attention of {:?} and {:?}, expected [tokens, {}] and [{}, {}]",
            projected.dims(),
            up.dims(),
            expected.0,
            expected.1,
            expected.2
        )
    }
    if sequence == 0 || tokens % sequence != 0 {
        bail!("latent attention of {tokens} tokens in sequences of {sequence}")
    }
    if !by_hand(projected) {
        let expanded = linear(&projected.narrow(1, columns.latent, geometry.latent_rank)?, up, None)?;
        return primitives::attention(projected, &expanded, &columns, scale, sequence);
    }
    by_type!(dtype, run(&projected.contiguous()?, &up.contiguous()?, columns, scale, sequence))
}

/// `[tokens, G*Dn + G*Dv]`: unrotated keys and values of the latents.
fn expand<T: Real>(projected: &[T], up: &[T], columns: Columns) -> Vec<T> {
    let (rank, rows) = (columns.geometry.latent_rank, up.len() / columns.geometry.latent_rank);
    let latents = View::new(projected, columns.width).cols(columns.latent..columns.width);
    let mut out = vec![T::zero(); projected.len() / columns.width * rows];
    product(latents, View::new(up, rank).t(), &mut out, rows, false, Cores::All);
    out
}

fn run<T: Real>(projected: &Tensor, up: &Tensor, columns: Columns, scale: f64, sequence: usize) -> Result<Tensor> {
    let tokens = projected.dim(0)?;
    let out = with_numbers([projected, up], |[projected, up]: [&[T]; 2]| {
        let expanded = expand(projected, up, columns);
        Ok(Call { columns, scale, sequence, tokens, projected, expanded: &expanded }.attend())
    })?;
    let value = Value::new(out, (tokens, columns.geometry.query_heads * columns.geometry.value_dim));
    node2("latent attention", [projected, up], value, move |[projected, up], gradient| {
        gradients::<T>(projected, up, gradient, columns, scale, sequence)
    })
}

fn gradients<T: Real>(
    projected: &Tensor,
    up: &Tensor,
    gradient: &Tensor,
    columns: Columns,
    scale: f64,
    sequence: usize,
) -> Result<Gradients<2>> {
    let (tokens, (rows, rank)) = (projected.dim(0)?, up.dims2()?);
    let (want_projected, want_up) = (projected.track_op(), up.track_op());
    let (by_projected, by_up) = with_numbers([projected, up, gradient], |[projected, up, gradient]: [&[T]; 3]| {
        let expanded = expand(projected, up, columns);
        let call = Call { columns, scale, sequence, tokens, projected, expanded: &expanded };
        let (mut by_projected, by_expanded) = call.attend_backward(gradient);
        let by_expanded = View::new(&by_expanded, rows);
        if want_projected {
            let latents = &mut by_projected[columns.latent..];
            product(by_expanded, View::new(up, rank), latents, columns.width, false, Cores::All);
        }
        let mut by_up = vec![T::zero(); if want_up { rows * rank } else { 0 }];
        if want_up {
            let latents = View::new(projected, columns.width).cols(columns.latent..columns.width);
            product(by_expanded.t(), latents, &mut by_up, rank, false, Cores::All);
        }
        Ok((by_projected, by_up))
    })?;
    let by_projected = want_projected.then(|| constant(Value::new(by_projected, (tokens, columns.width))));
    let by_up = want_up.then(|| constant(Value::new(by_up, (rows, rank))));
    Ok([by_projected.transpose()?, by_up.transpose()?])
}

/// Dense attention between its projections, without gradients: `[tokens, H*d + G*d + G*d]`, rotated queries, rotated keys
/// and values, to `[tokens, H*d]`.
///
/// # Errors
/// If the shapes do not fit, or a gradient would be needed.
pub fn causal_attention(
    projected: &Tensor,
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    sequence: usize,
) -> Result<Tensor> {
    let dtype = common_type("attention", &[projected])?;
    let (tokens, width) = projected.dims2()?;
    let values = (query_heads + kv_heads) * head_dim;
    let geometry =
        Geometry::mha2mla(query_heads, kv_heads, head_dim, head_dim, head_dim).map_err(candle_core::Error::wrap)?;
    if width != values + kv_heads * head_dim || sequence == 0 || tokens % sequence != 0 {
        bail!(
            "attention of {:?} with {query_heads} and {kv_heads} heads of {head_dim} in sequences of {sequence}",
            projected.dims()
        )
    }
    if projected.track_op() {
        bail!("dense attention has no gradient here")
    }
    // All dimensions are rotated, so the latent's place in a row is that of the values, which need no expansion.
    let columns = Columns::new(geometry);
    let parts = (projected.contiguous()?, projected.narrow(1, values, kv_heads * head_dim)?.contiguous()?);
    if !by_hand(projected) {
        return primitives::attention(&parts.0, &parts.1, &columns, geometry.default_scale(), sequence);
    }
    by_type!(dtype, dense(&parts.0, &parts.1, columns, sequence))
}

fn dense<T: Real>(projected: &Tensor, values: &Tensor, columns: Columns, sequence: usize) -> Result<Tensor> {
    let tokens = projected.dim(0)?;
    let scale = columns.geometry.default_scale();
    let out = with_numbers([projected, values], |[projected, expanded]: [&[T]; 2]| {
        Ok(Call { columns, scale, sequence, tokens, projected, expanded }.attend())
    })?;
    constant(Value::new(out, (tokens, columns.geometry.query_heads * columns.geometry.value_dim)))
}

#[cfg(test)]
mod tests;
