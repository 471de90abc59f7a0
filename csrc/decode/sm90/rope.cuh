// What the rotated key gives to the scores, from what the cache holds. All rope heads of a token form one row, which is
// multiplied with a query that is zero but in the columns of a head's own. Codes are multiplied as they are, as
// subnormal f16 (cache/int4.cuh), and the sums are scaled then, without a second set of them: with keys in groups either
// each head has one group, whose scale its sums get in the end, or all heads have all groups, one after the other, and
// the sums are taken from a group's unit to that of the next by the ratio of their scales.
//
// The sums are what those of mins go on with, in their unit (mins.cuh).
#pragma once

#include "../../cache/layout.cuh"
#include "../../ptx/special.cuh"
#include "../../ptx/wgmma.cuh"
#include "../rope_values.cuh"
#include "mins.cuh"
#include "shared.cuh"

// A thread's two tokens: their rotated keys, and their pairs of (scale, min).
struct RopeRows {
    const unsigned char *low, *high;
    PairRows pairs;
};

// Adds the products of ROUNDS k-steps of 32 values.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void multiply_rope_steps(const RopeRows &rows, unsigned step, uint64_t query, Sums<S> &scores) {
    FragmentA a[ROUNDS][2];
#pragma unroll
    for (int i = 0; i < ROUNDS; ++i) {
        const uint4 low = rope_values<KIND>(rows.low, step + i), high = rope_values<KIND>(rows.high, step + i);
        a[i][0][0] = low.x, a[i][0][1] = high.x, a[i][0][2] = low.y, a[i][0][3] = high.y;
        a[i][1][0] = low.z, a[i][1][1] = high.z, a[i][1][2] = low.w, a[i][1][3] = high.w;
    }
    // Two k-steps are a block of the query.
    query += step / 2 * descriptor_bytes(S::BLOCK_BYTES) + step % 2 * 2 * DESCRIPTOR_STEP;
    settle(a);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 2 * ROUNDS; ++i) {
        wgmma<KIND == ROW_BF16, S::N_TILES>(scores, a[i / 2][i % 2], query + i * DESCRIPTOR_STEP);
    }
    wgmma_commit();
    wgmma_wait<0>();
}

// Those of the k-steps `first` to `end - 1`, ROUNDS at a time, of which those past the key meet zeros.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void multiply_rope(const RopeRows &rows, unsigned first, unsigned end, uint64_t query, Sums<S> &scores) {
#pragma unroll 1
    for (unsigned step = first; step < end; step += ROUNDS) {
        multiply_rope_steps<S, KIND, ROUNDS>(rows, step, query, scores);
    }
}

// Codes whose groups all heads have: group after group, of 32 values, which are one k-step, or of more.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void score_group_by_group(const DecodeParams &params, const RopeRows &rows, uint64_t query,
                                     Sums<S> &scores) {
    const unsigned steps = ROUNDS == 1 ? params.rope_steps : 2 * params.sm90.rope_blocks;
    const unsigned group_steps = params.cache.rope_group / ROPE_STEP;
    unsigned word = S::first_rope_pair(params);
    float2 scale = rows.pairs.scales(word);
#pragma unroll 1
    for (unsigned first = 0; first < steps; first += group_steps) {
        const bool is_last = first + group_steps >= steps;
        multiply_rope<S, KIND, ROUNDS>(rows, first, is_last ? steps : first + group_steps, query, scores);
        float2 factor = {scale.x * CODE_UNIT, scale.y * CODE_UNIT};
        if (!is_last) {
            const float2 next = rows.pairs.scales(++word);
            factor = {scale.x * reciprocal_approximate(next.x), scale.y * reciprocal_approximate(next.y)};
            scale = next;
        }
        scale_rows<S>(factor, scores);
    }
}

// Codes in groups of which each pair of heads has one; at least two blocks of them.
template <typename S>
__device__ void score_by_heads(const DecodeParams &params, const RopeRows &rows, uint64_t query,
                               const BlockState<S> &state, unsigned first_tile, Sums<S> &scores) {
    multiply_rope_steps<S, ROW_INT4, 2>(rows, 0, query, scores);
    multiply_rope_steps<S, ROW_INT4, 2>(rows, 2, query, scores);
    multiply_rope<S, ROW_INT4, 2>(rows, 4, 2 * params.sm90.rope_blocks, query, scores);
    const uint64_t words =
        *reinterpret_cast<const uint64_t *>(state.rope_words[thread_index() % 4]) >> 8 * first_tile;
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const uint2 pairs = rows.pairs.pairs(words >> 8 * n & 0xFF);
        const float2 factor = {affine_scale(pairs.x) * CODE_UNIT, affine_scale(pairs.y) * CODE_UNIT};
        scores[4 * n] *= factor.x, scores[4 * n + 1] *= factor.x;
        scores[4 * n + 2] *= factor.y, scores[4 * n + 3] *= factor.y;
    }
}

// What the rotated keys of a thread's two tokens give to the scores of the heads from n-tile `first_tile` on. Those of bf16
// beside latents of bf16 give nothing here: they are multiplied as these are (bf16.cuh).
template <typename S>
__device__ void score_rope(const DecodeParams &params, const RopeRows &rows, const SharedMemory<S> &memory,
                           unsigned first_tile, Sums<S> &scores) {
    const unsigned kind = params.cache.rope_kind, way = params.sm90.rope_way;
    const uint64_t query = swizzled_descriptor(shared_address(memory.q_rope()) + 1024 * first_tile);
    clear(scores);
    settle(scores);
    if (way == 3) {
        score_by_heads<S>(params, rows, query, memory.state(), first_tile, scores);
    } else if (way == 1) {
        score_group_by_group<S, ROW_INT4, 1>(params, rows, query, scores);
    } else if (way == 2 && kind == ROW_BF16 && S::LATENTS != Latents::Bf16) {
        multiply_rope<S, ROW_BF16, 2>(rows, 0, 2 * params.sm90.rope_blocks, query, scores);
    } else if (way == 2 && kind == ROW_INT8) {
        score_group_by_group<S, ROW_INT8, 2>(params, rows, query, scores);
    } else if (way == 2) {
        score_group_by_group<S, ROW_INT4, 2>(params, rows, query, scores);
    }
}
