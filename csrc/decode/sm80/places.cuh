// Where a lane's and a warp's numbers lie: what does not change from tile to tile of the addresses in the loops over
// tokens, computed once and kept in shared memory, from where 16 bytes at a time are read back as they are needed.
// Registers are the output's, and computing them again costs more than the loops themselves.
//
// A lane's bytes from the start of a stage are of m-tile 0; a warp's add those of its own m-tile.
#pragma once

#include "../rope_values.cuh"
#include "fragments.cuh"
#include "load.cuh"
#include "scores.cuh"
#include "shared.cuh"

template <typename S>
__device__ void prepare_places(const DecodeParams &params, const SharedMemory<S> &memory, BlockState<S> &block) {
    const DecodeShared &map = params.shared;
    const unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    // A tile of fewer than 16 tokens has the same ones in rows g and g + 8.
    const auto token = [&](unsigned position) { return token_at(position) & (params.tile_tokens - 1); };
    // The rows of four matrices for `ldmatrix`: 8 heads, of which lanes 8 i .. 8 i + 7 have the i-th 16 bytes.
    const auto matrix_row = [&](unsigned stride) { return lane % 8 * stride + lane / 8 * 16; };
    const unsigned low = token(g), high = token(g + 8);
    if (threadIdx.x < WARP) {
        // Latents of rows g and g + 8, or the lane's row in the matrices of bf16.
        if constexpr (S::LATENTS == Latents::Bf16) {
            block.score_places[lane] = token(lane % 16) * map.latent_stride + lane / 16 * 16;
        } else {
            // Whole: two neighbouring words of a k-step. Groups: the first of a word of each half of it.
            const unsigned word = S::LATENTS == Latents::Whole ? 8 * t : 4 * t + (lane & 16);
            block.score_places[lane] = {low * map.latent_stride + word, high * map.latent_stride + word};
        }
        block.query_places[lane] = map.q_latent + matrix_row(map.q_latent_stride);
        block.rope_query_places[lane] = map.q_rope + matrix_row(map.q_rope_stride);
    } else if (threadIdx.x < 2 * WARP) {
        // Pairs of scale and min, and rotated keys, of rows g and g + 8.
        const unsigned in_step = rope_step_bytes(params.cache.rope_kind) / 4 * t;
        block.row_places[lane] = {map.affine + low * map.affine_stride, map.affine + high * map.affine_stride,
                                  map.rope + low * map.rope_stride + in_step,
                                  map.rope + high * map.rope_stride + in_step};
    } else if (threadIdx.x < 3 * WARP) {
        if constexpr (S::LATENTS == Latents::Bf16) {
            // The lane's row of the matrices: 2 and 3 are k + 8, 1 and 3 eight latents further.
            block.code_places[lane] = token(lane % 8 + lane / 16 * 8) * map.latent_stride + lane / 8 % 2 * 16;
        } else {
            // Words of positions 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
            const unsigned word = 4 * (S::HALVES == 1 ? g : g / 2);
            const auto row = [&](unsigned position) { return token(2 * t + position) * map.latent_stride + word; };
            block.code_places[lane] = {row(0), row(1), row(8), row(9)};
        }
    } else if (lane < WARPS && threadIdx.x < 4 * WARP) {
        const unsigned warp = lane, first = warp * warp_tokens<S>(params);
        const ScoreTile<S> scores(warp);
        const OwnFragment<S> own(0, warp);
        const Steps<S> steps(params, scores.k_slice);
        WarpPlaces &to = block.warps[warp];
        to.to_latents = first * map.latent_stride;
        to.to_rope = map.rope + first * map.rope_stride;
        to.to_affine = map.affine + first * map.affine_stride;
        to.codes = 16 * scores.m_tile(0) * map.latent_stride + STEP_BYTES<S> * steps.begin;
        to.query = 2 * STEP * steps.begin;
        to.steps = steps.end - steps.begin;
        block.own[warp] = {own.m_tile * S::N_TILES + own.n_tile, own.n_tile, 16 * own.m_tile * map.affine_stride,
                           16 * own.m_tile * map.rope_stride};
    }
}
