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

// Pairs, `bytes` behind those of m-tile 0.
template <typename S>
__device__ RowPair affine_rows(const Stage &stage, const BlockState<S> &block, unsigned bytes) {
    const uint4 places = block.row_places[thread_index() % WARP];
    const unsigned char *rows = stage.row(bytes);
    return {rows + places.x, rows + places.y};
}

// Pairs of a warp's own fragments.
template <typename S>
__device__ RowPair own_affine_rows(const Stage &stage, const BlockState<S> &block) {
    return affine_rows<S>(stage, block, block.own[thread_index() / WARP].affine);
}

// A k-step of the rotated keys of a lane's two tokens, and their pairs of scale and min.
struct RopeStep {
    FragmentA a0, a1;
    uint32_t affine_low, affine_high;
};

// Loads k-step `step`; `rows` begin with it.
template <unsigned KIND>
__device__ RopeStep load_rope(const DecodeParams &params, const RowPair &rows, const RowPair &affine, unsigned step) {
    const uint4 lo = rope_values<KIND>(rows.low, 0), hi = rope_values<KIND>(rows.high, 0);
    RopeStep keys{{lo.x, hi.x, lo.y, hi.y}, {lo.z, hi.z, lo.w, hi.w}, 0, 0};
    if constexpr (KIND != ROW_BF16) {
        // The pairs of (scale, min) begin behind the latent's.
        const unsigned pair = params.cache.latent_groups + (step >> params.rope_group_log2);
        keys.affine_low = at<uint32_t>(affine.low, 4 * pair);
        keys.affine_high = at<uint32_t>(affine.high, 4 * pair);
    }
    return keys;
}

// Adds the product of a k-step with 8 heads: `query` is theirs, and `sums` the lane's part of its sums.
template <unsigned KIND>
__device__ void multiply_rope(const RopeStep &keys, uint32_t query, const unsigned char *sums, FragmentC &scores) {
    uint32_t b[4];
    ldmatrix_x4(b, query);
    if constexpr (KIND == ROW_BF16) {
        mma_bf16(scores, keys.a0, b[0], b[1]);
        mma_bf16(scores, keys.a1, b[2], b[3]);
    } else {
        FragmentC products = {};
        mma_f16(products, keys.a0, b[0], b[1]);
        mma_f16(products, keys.a1, b[2], b[3]);
        mma_f16_k8(scores, keys.affine_low, keys.affine_high, at<uint32_t>(sums, 0));
        const float low = affine_scale(keys.affine_low) * CODE_UNIT, high = affine_scale(keys.affine_high) * CODE_UNIT;
        scores[0] = fmaf(low, products[0], scores[0]);
        scores[1] = fmaf(low, products[1], scores[1]);
        scores[2] = fmaf(high, products[2], scores[2]);
        scores[3] = fmaf(high, products[3], scores[3]);
    }
}

// Bytes of the query and of its sums from k-step to k-step.
constexpr unsigned ROPE_QUERY_BYTES = 2 * ROPE_STEP, ROPE_SUM_BYTES = 4 * WARP;

// Adds it to a warp's own fragments. Where all heads share one rope head, all of them multiply the same k-steps, and each
// is loaded once.
template <typename S, unsigned KIND>
__device__ void score_rope(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, const RowPair &affine, FragmentC (&scores)[S::OWN]) {
    constexpr unsigned BYTES = rope_step_bytes(KIND);
    const unsigned lane = thread_index() % WARP;
    const OwnPlaces own = block.own[thread_index() / WARP];
    const uint4 places = block.row_places[lane];
    const unsigned char *key = stage.row(own.rope);
    const RowPair rows = {key + places.z, key + places.w};
    const uint32_t query = shared_address(memory.begin()) + block.rope_query_places[lane];
    const unsigned char *sums = memory.q_rope_sums() + 4 * lane;
    const RopeTile *tiles = block.rope_tiles + own.n_tile;
    const auto multiply_all = [&](int i, int count) {
        const RopeTile tile = tiles[i];
        RowPair at_step = {rows.low + BYTES * tile.first, rows.high + BYTES * tile.first};
        uint32_t own_query = query + tile.query;
        const unsigned char *own_sums = sums + tile.sums;
        unsigned step = tile.first;
        const auto multiply_step = [&] {
            const RopeStep keys = load_rope<KIND>(params, at_step, affine, step);
#pragma unroll
            for (int j = 0; j < count; ++j) {
                multiply_rope<KIND>(keys, own_query + 8 * params.shared.q_rope_stride * j,
                                    own_sums + ROPE_SUM_BYTES * params.rope_span * j, scores[i + j]);
            }
        };
        if (tile.count == 0) {
            return;
        }
        // Most have one k-step, which needs no loop.
        const unsigned last = tile.first + tile.count - 1;
#pragma unroll 1
        while (step != last) {
            multiply_step();
            at_step.low += BYTES, at_step.high += BYTES;
            own_query += ROPE_QUERY_BYTES, own_sums += ROPE_SUM_BYTES;
            ++step;
        }
        multiply_step();
    };
    if (S::OWN > 1 && params.geometry.rope_heads == 1) {
        multiply_all(0, S::OWN);
        return;
    }
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        if (OwnFragment<S>(i).exists) {
            multiply_all(i, 1);
        }
    }
}

template <typename S>
__device__ void score_rope(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, const RowPair &affine, FragmentC (&scores)[S::OWN]) {
    // The kind is the layer's: all blocks go the same way, and have no other one's instructions in their loops.
    switch (params.cache.rope_kind) {
        case ROW_INT4:
            return score_rope<S, ROW_INT4>(params, stage, memory, block, affine, scores);
        case ROW_INT8:
            return score_rope<S, ROW_INT8>(params, stage, memory, block, affine, scores);
        default:
            return score_rope<S, ROW_BF16>(params, stage, memory, block, affine, scores);
    }
}
