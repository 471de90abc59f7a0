// The rotated key's part of the scores. All rope heads of a token form one row; an n-tile of 8 query heads multiplies
// only the steps in which its rope heads lie, with a block-diagonal query. Codes are multiplied as they are, as
// subnormal f16 (cache/int4.cuh), and a step's product is scaled then: exact up to the sums, and cheap enough for the
// few numbers of a rotated key.
#pragma once

#include "../cache/int4.cuh"
#include "../cache/layout.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "block.cuh"
#include "scores.cuh"

// For lane t of a quarter, values 8 t .. 8 t + 7 of step `step` of a token's rotated key: bf16, or codes as subnormal
// f16.
__device__ inline uint4 rope_values(const DecodeParams &params, const unsigned char *row, unsigned t, unsigned step) {
    if (params.cache.rope_kind == ROW_BF16) {
        return at<uint4>(row, 64 * step + 16 * t);
    }
    if (params.cache.rope_kind == ROW_INT8) {
        const uint2 bytes = at<uint2>(row, 32 * step + 8 * t);
        return {subnormal_bytes<0>(bytes.x), subnormal_bytes<1>(bytes.x), subnormal_bytes<0>(bytes.y),
                subnormal_bytes<1>(bytes.y)};
    }
    const uint32_t word = at<uint32_t>(row, 16 * step + 4 * t);
    return {subnormal_pair<0>(word), subnormal_pair<1>(word), subnormal_pair<2>(word), subnormal_pair<3>(word)};
}

// A step of the rotated keys of a lane's two tokens, and their pairs of scale and min.
struct RopeStep {
    uint32_t a0[4], a1[4], affine_low, affine_high;
};

// Multiplies a step with 8 heads: `query` and `sums` are theirs.
__device__ inline void multiply_rope(const RopeStep &keys, bool coded, uint32_t query, const unsigned char *sums,
                                     unsigned sum_stride, float (&scores)[4]) {
    uint32_t b[4];
    ldmatrix_x4(b, query);
    if (!coded) {
        mma_bf16(scores, keys.a0, b[0], b[1]);
        mma_bf16(scores, keys.a1, b[2], b[3]);
        return;
    }
    float products[4] = {};
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

// Where it lies is found anew: registers are short while it is multiplied.
__device__ inline RopeStep load_rope(const DecodeParams &params, const unsigned char *stage, unsigned step) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, t = lane % 4;
    const Rows token(params, lane, Share(params).m_tile);
    const unsigned char *rows = stage + map.rope;
    const uint4 lo = rope_values(params, rows + token.low * map.rope_stride, t, step);
    const uint4 hi = rope_values(params, rows + token.high * map.rope_stride, t, step);
    RopeStep keys{{lo.x, hi.x, lo.y, hi.y}, {lo.z, hi.z, lo.w, hi.w}, 0, 0};
    if (params.cache.rope_kind != ROW_BF16) {
        // The pairs of (scale, min) begin behind the latent's.
        const unsigned pair = params.cache.latent_groups + (step * ROPE_STEP >> (__ffs(params.cache.rope_group) - 1));
        const unsigned char *pairs = stage + map.affine + 4 * pair;
        keys.affine_low = at<uint32_t>(pairs, token.low * map.affine_stride);
        keys.affine_high = at<uint32_t>(pairs, token.high * map.affine_stride);
    }
    return keys;
}

template <typename S>
__device__ void score_rope(const DecodeParams &params, const unsigned char *stage, const unsigned char *shared,
                           const SmallArrays<S> &small, float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    if (params.rope_steps == 0) {
        return;
    }
    const unsigned lane = thread_index() % WARP, parts = params.score_parts, part = Share(params).part;
    const bool coded = params.cache.rope_kind != ROW_BF16;
    const unsigned query_stride = anew(map.q_rope_stride), sum_stride = 4 * (anew(params.rope_span) | 1);
    uint32_t query = shared_address(shared + map.q_rope) + lane % 8 * query_stride + lane / 8 * 16;
    const unsigned char *sums = shared + map.q_rope_sums + 2 * (lane % 4) * sum_stride;
    // Parts take turns. If all n-tiles multiply all steps, a part has the same steps for all, and few: it keeps the
    // last. Otherwise n-tiles often have one step, and the parts begin with another n-tile each.
    const bool alike = params.geometry.rope_heads == 1;
    unsigned loaded = ~0u;
    RopeStep keys{};
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        const uint2 own_steps = small.rope_steps[n];
#pragma unroll 1
        for (unsigned own = (alike ? part : part + n) & (parts - 1); own < own_steps.y; own += parts) {
            if (own_steps.x + own != loaded) {
                loaded = own_steps.x + own;
                keys = load_rope(params, stage, loaded);
            }
            multiply_rope(keys, coded, query + 64 * own, sums + 4 * own, sum_stride, scores[n]);
        }
        query += 8 * query_stride;
        sums += 8 * sum_stride;
    }
}
