//! `absorb`: the up-projections, moved from every cached token to the query and the output.
//!
//! A task has some columns of the outputs of some rows, a row being a query token and one of the KV head's query heads.
//! Each row of weights is widened to f32 once for all of them. The order of a sum depends on its length alone, so that a
//! row has the same bits whatever other rows there are.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::level::{Arithmetic, LANES, Level, Task};
use super::memory::{Rows, optional_numbers};
use super::product::{Matrix, SUM_COLUMNS, add_weighted, padded, project, round, widen};
use crate::sys;

/// Rows and columns of a task.
const ROWS: usize = 32;
const COLUMNS: usize = 128;

/// Rows of weights that are widened at a time, and stay in the first cache.
const WEIGHTS: usize = 32;

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn absorb_query(params: &sys::AbsorbParams, level: Level) {
    // SAFETY: promised by the caller; a tile is one task's.
    for_tiles(params, |tile| level.run(Query(unsafe { tile.with_weights(params.outputs) })));
}

/// # Safety
/// As [`cpu`](super).
pub(super) unsafe fn expand_output(params: &sys::AbsorbParams, level: Level) {
    // SAFETY: as above.
    for_tiles(params, |tile| level.run(Output(unsafe { tile.with_weights(params.contracted) })));
}

fn for_tiles(params: &sys::AbsorbParams, run: impl Fn(Tile) + Sync) {
    let heads = (params.query_heads / params.kv_heads) as usize;
    let (rows, outputs) = (params.tokens as usize * heads, params.outputs as usize);
    let (row_tiles, column_tiles) = (rows.div_ceil(ROWS), outputs.div_ceil(COLUMNS));
    (0..params.kv_heads as usize * row_tiles * column_tiles).into_par_iter().for_each(|task| {
        let (rest, column_tile) = (task / column_tiles, task % column_tiles);
        let (kv_head, row_tile) = (rest / row_tiles, rest % row_tiles);
        let part = |tile: usize, size: usize, all: usize| tile * size..all.min((tile + 1) * size);
        run(Tile { params, kv_head, rows: part(row_tile, ROWS, rows), columns: part(column_tile, COLUMNS, outputs) });
    });
}

/// What a task has.
struct Tile<'a> {
    params: &'a sys::AbsorbParams,
    kv_head: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// A tile and the tensors.
struct Product<'a> {
    tile: Tile<'a>,
    weights: Rows<bf16>,
    input: Rows<bf16>,
    output: Rows<bf16>,
}

impl<'a> Tile<'a> {
    /// The tensors of a tile, whose weights have rows of `width` numbers.
    ///
    /// # Safety
    /// As [`absorb_query`]; the tile must be one task's.
    unsafe fn with_weights(self, width: u32) -> Product<'a> {
        let p = self.params;
        Product {
            weights: Rows::new(p.weights, [p.weight_head_stride, p.weight_row_stride], width),
            input: Rows::new(p.input, [p.input_token_stride, p.input_head_stride], p.contracted),
            output: Rows::new(p.output, [p.output_token_stride, p.output_head_stride], p.outputs),
            tile: self,
        }
    }
}

impl Product<'_> {
    /// Query token and head of each row.
    #[inline(always)]
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (params, kv_head) = (self.tile.params, self.tile.kv_head);
        let heads = (params.query_heads / params.kv_heads) as usize;
        self.tile.rows.clone().map(move |row| (row / heads, kv_head * heads + row % heads))
    }

    /// The rows' inputs as f32, `[rows, contracted]`, which are followed by zeros up to a multiple of [`LANES`].
    #[inline(always)]
    fn inputs(&self) -> (Vec<f32>, usize) {
        let width = self.tile.params.contracted as usize;
        let stride = width.next_multiple_of(LANES);
        let mut inputs = vec![0.0; self.tile.rows.len() * stride];
        for (to, (token, head)) in inputs.chunks_exact_mut(stride.max(1)).zip(self.places()) {
            // SAFETY: promised when the product was made.
            widen(unsafe { self.input.row(token, head) }, &mut to[..width]);
        }
        (inputs, stride)
    }

    /// Writes the tile, whose rows are `stride` apart.
    #[inline(always)]
    fn store(&self, sums: &[f32], stride: usize) {
        for (from, (token, head)) in sums.chunks_exact(stride).zip(self.places()) {
            let columns = self.tile.columns.clone();
            // SAFETY: promised when the product was made.
            round(&from[..columns.len()], unsafe { self.output.part_mut(token, head, columns) });
        }
    }
}

/// `output[row, l] = sum_i weights[i, l] input[row, i]`.
struct Query<'a>(Product<'a>);

impl Task for Query<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let Tile { params, kv_head, rows, columns } = &self.0.tile;
        let ((inputs, input_stride), contracted) = (self.0.inputs(), params.contracted as usize);
        let width = columns.len().next_multiple_of(SUM_COLUMNS);
        let stride = padded(width);
        let (mut weights, mut sums) = (vec![0.0; WEIGHTS * stride], vec![0.0; rows.len() * stride]);
        for first in (0..contracted).step_by(WEIGHTS) {
            let count = WEIGHTS.min(contracted - first);
            for (i, weights) in weights.chunks_exact_mut(stride).take(count).enumerate() {
                // SAFETY: promised when the product was made.
                let row = unsafe { self.0.weights.row(*kv_head, first + i) };
                widen(&row[columns.clone()], weights);
            }
            let inputs = Matrix { numbers: &inputs[first..], stride: input_stride };
            let weights = Matrix { numbers: &weights, stride };
            add_weighted::<A>((&mut sums, stride), &[1.0; ROWS][..rows.len()], inputs, weights, count, width);
        }
        self.0.store(&sums, stride);
    }
}

/// `output[row, i] = sum_l weights[i, l] input[row, l] + bias[i]`.
struct Output<'a>(Product<'a>);

impl Task for Output<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let Tile { params, kv_head, rows, columns } = &self.0.tile;
        let (inputs, stride) = self.0.inputs();
        let mut sums = vec![0.0; rows.len() * columns.len()];
        // SAFETY: promised when the product was made.
        let bias = unsafe { optional_numbers::<f32>(params.bias, (params.kv_heads * params.outputs) as usize) };
        let bias = |i: usize| bias.map_or(0.0, |bias| bias[kv_head * params.outputs as usize + i]);
        let inputs = (Matrix { numbers: &inputs, stride }, rows.len());
        // SAFETY: as above.
        let weights = |i: usize| unsafe { self.0.weights.row(*kv_head, i) };
        project::<A>(inputs, columns.clone(), weights, |four, row, products| {
            for (i, product) in four.zip(products) {
                sums[row * columns.len() + i - columns.start] = product + bias(i);
            }
        });
        self.0.store(&sums, columns.len());
    }
}
