// What the rotated key adds to the scores. All rope heads of a token form one row; an n-tile of 8 query heads multiplies
// only the k-steps in which its rope heads lie, with a block-diagonal query. Codes are multiplied as they are, as
// subnormal f16 (cache/int4.cuh), and a k-step's product is scaled then: exact up to the sums, and cheap enough for the
// few numbers of a rotated key. The warp that makes weights of a fragment of scores adds it there, once all k-slices of
// the latent have been added up.
#pragma once

#include "../../cache/layout.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "../rope_values.cuh"
#include "fragments.cuh"
#include "shared.cuh"

// What a lane has of rows g and g + 8 of an m-tile: their pairs of (scale, min), or their rotated keys, from the lane's
// first value of a k-step on.
struct RowPair {
    const unsigned char *low, *high;
};

template <typename S>
__device__ RowPair affine_rows(const DecodeParams &params, const Stage &stage, const BlockState<S> &block,
                               unsigned m_tile) {
    const uint2 places = block.affine_places[thread_index() % WARP];
    const unsigned char *rows = stage.m_tile(m_tile, params.shared.affine_stride);
    return {rows + places.x, rows + places.y};
}

template <typename S>
__device__ RowPair rope_rows(const DecodeParams &params, const Stage &stage, const BlockState<S> &block,
                             unsigned m_tile) {
    const uint2 places = block.rope_places[thread_index() % WARP];
    const unsigned char *rows = stage.m_tile(m_tile, params.shared.rope_stride);
    return {rows + places.x, rows + places.y};
}

// A k-step of the rotated keys of a lane's two tokens, and their pairs of scale and min.
struct RopeStep {
    FragmentA a0, a1;
    uint32_t affine_low, affine_high;
};

template <unsigned KIND>
__device__ RopeStep load_rope(const DecodeParams &params, const RowPair &rows, const RowPair &affine, unsigned step) {
    const uint4 lo = rope_values<KIND>(rows.low, step), hi = rope_values<KIND>(rows.high, step);
    RopeStep keys{{lo.x, hi.x, lo.y, hi.y}, {lo.z, hi.z, lo.w, hi.w}, 0, 0};
    if constexpr (KIND != ROW_BF16) {
        // The pairs of (scale, min) begin behind the latent's.
        const unsigned pair = params.cache.latent_groups + (step >> params.rope_group_log2);
        keys.affine_low = at<uint32_t>(affine.low, 4 * pair);
        keys.affine_high = at<uint32_t>(affine.high, 4 * pair);
    }
    return keys;
}

// Adds the product of a k-step with 8 heads: `query` is theirs, and `sums` that of a lane's two columns, `sum_stride`
// bytes apart.
template <unsigned KIND>
__device__ void multiply_rope(const RopeStep &keys, uint32_t query, const unsigned char *sums, unsigned sum_stride,
                              FragmentC &scores) {
    uint32_t b[4];
    ldmatrix_x4(b, query);
    if constexpr (KIND == ROW_BF16) {
        mma_bf16(scores, keys.a0, b[0], b[1]);
        mma_bf16(scores, keys.a1, b[2], b[3]);
    } else {
        FragmentC products = {};
        mma_f16(products, keys.a0, b[0], b[1]);
        mma_f16(products, keys.a1, b[2], b[3]);
        const float sum_x = at<float>(sums, 0), sum_y = at<float>(sums, sum_stride);
        const float scale_low = affine_scale(keys.affine_low) * SUBNORMAL, min_low = affine_min(keys.affine_low);
        scores[0] = fmaf(scale_low, products[0], fmaf(min_low, sum_x, scores[0]));
        scores[1] = fmaf(scale_low, products[1], fmaf(min_low, sum_y, scores[1]));
        const float scale_high = affine_scale(keys.affine_high) * SUBNORMAL, min_high = affine_min(keys.affine_high);
        scores[2] = fmaf(scale_high, products[2], fmaf(min_high, sum_x, scores[2]));
        scores[3] = fmaf(scale_high, products[3], fmaf(min_high, sum_y, scores[3]));
    }
}

// Adds it to a warp's own fragments. Where all heads share one rope head, all of them multiply the same k-steps, and each
// is loaded once.
template <typename S, unsigned KIND>
__device__ void score_rope(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, FragmentC (&scores)[S::OWN]) {
    const unsigned lane = thread_index() % WARP;
    const unsigned query_stride = params.shared.q_rope_stride, sum_stride = 4 * (params.rope_span | 1);
    const uint32_t query = shared_address(memory.begin()) + block.rope_query_places[lane];
    const unsigned m_tile = OwnFragment<S>(0).m_tile;
    const RowPair rows = rope_rows<S>(params, stage, block, m_tile);
    const RowPair affine = affine_rows<S>(params, stage, block, m_tile);
    const auto multiply = [&](int i, unsigned own, const RopeStep &keys) {
        const OwnFragment<S> fragment(i);
        multiply_rope<KIND>(keys, query + 8 * fragment.n_tile * query_stride + 64 * own,
                            memory.q_rope_sums() + fragment.head() * sum_stride + 4 * own, sum_stride, scores[i]);
    };
    if (S::OWN > 1 && params.geometry.rope_heads == 1) {
#pragma unroll 1
        for (unsigned step = 0; step < params.rope_span; ++step) {
            const RopeStep keys = load_rope<KIND>(params, rows, affine, step);
#pragma unroll
            for (int i = 0; i < S::OWN; ++i) {
                if (OwnFragment<S>(i).exists) {
                    multiply(i, step, keys);
                }
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const OwnFragment<S> fragment(i);
        if (!fragment.exists) {
            continue;
        }
        const uint2 steps = block.rope_steps[fragment.n_tile];
#pragma unroll 1
        for (unsigned own = 0; own < steps.y; ++own) {
            multiply(i, own, load_rope<KIND>(params, rows, affine, steps.x + own));
        }
    }
}

template <typename S>
__device__ void score_rope(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, FragmentC (&scores)[S::OWN]) {
    // The kind is the layer's: all blocks go the same way, and have no other one's instructions in their loops.
    switch (params.cache.rope_kind) {
        case ROW_INT4:
            return score_rope<S, ROW_INT4>(params, stage, memory, block, scores);
        case ROW_INT8:
            return score_rope<S, ROW_INT8>(params, stage, memory, block, scores);
        default:
            return score_rope<S, ROW_BF16>(params, stage, memory, block, scores);
    }
}
