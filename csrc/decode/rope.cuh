// The rotated key's part of the scores. All rope heads of a token form one row; an n-tile of 8 query heads multiplies
// only the steps in which its rope heads lie, with a block-diagonal query. Codes are multiplied as they are, as
// subnormal f16 (common/int4.cuh), and a step's product is scaled then: exact up to the sums, and cheap enough for the
// few numbers of a rotated key.
#pragma once

#include "../common/int4.cuh"
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

template <typename S>
__device__ void score_rope(const DecodeParams &params, const unsigned char *stage, const unsigned char *shared,
                           const SmallArrays<S> &small, float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    if (params.rope_steps == 0) {
        return;
    }
    const unsigned lane = thread_index() % WARP, t = lane % 4, parts = params.score_parts;
    const Share share(params);
    const unsigned query_stride = anew(map.q_rope_stride), sum_stride = 4 * (anew(params.rope_span) | 1);
    const bool coded = params.cache.rope_kind != ROW_BF16;
    const Rows token(params, lane, share.m_tile);
    const unsigned char *low = stage + map.rope + token.low * map.rope_stride;
    const unsigned char *high = stage + map.rope + token.high * map.rope_stride;
    // The pairs of (scale, min) begin behind the latent's.
    const unsigned char *pairs = stage + map.affine + 4 * params.cache.latent_groups;
    const unsigned char *low_pairs = pairs + token.low * map.affine_stride;
    const unsigned char *high_pairs = pairs + token.high * map.affine_stride;
    const unsigned group_log2 = __ffs(params.cache.rope_group) - 1;
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        const uint2 own_steps = small.rope_steps[n];
        // Parts take turns, and begin with another n-tile each: often an n-tile has one step.
        unsigned own = (share.part + n) & (parts - 1);
        uint32_t query = shared_address(shared + map.q_rope) + (8 * n + lane % 8) * query_stride + lane / 8 * 16;
        const unsigned char *sums = shared + map.q_rope_sums + (8 * n + 2 * t) * sum_stride;
#pragma unroll 1
        for (; own < own_steps.y; own += parts) {
            const unsigned step = own_steps.x + own;
            const uint4 lo = rope_values(params, low, t, step), hi = rope_values(params, high, t, step);
            const uint32_t a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
            uint32_t b[4];
            ldmatrix_x4(b, query + 64 * own);
            if (!coded) {
                mma_bf16(scores[n], a0, b[0], b[1]);
                mma_bf16(scores[n], a1, b[2], b[3]);
                continue;
            }
            float products[4] = {};
            mma_f16(products, a0, b[0], b[1]);
            mma_f16(products, a1, b[2], b[3]);
            const unsigned pair = 4 * (step * ROPE_STEP >> group_log2);
            const uint32_t affine_low = at<uint32_t>(low_pairs, pair), affine_high = at<uint32_t>(high_pairs, pair);
            const float scale_low = affine_scale(affine_low) * SUBNORMAL, min_low = affine_min(affine_low);
            const float scale_high = affine_scale(affine_high) * SUBNORMAL, min_high = affine_min(affine_high);
            const float sum_x = at<float>(sums, 4 * own), sum_y = at<float>(sums, 4 * own + sum_stride);
            scores[n][0] = fmaf(scale_low, products[0], fmaf(min_low, sum_x, scores[n][0]));
            scores[n][1] = fmaf(scale_low, products[1], fmaf(min_low, sum_y, scores[n][1]));
            scores[n][2] = fmaf(scale_high, products[2], fmaf(min_high, sum_x, scores[n][2]));
            scores[n][3] = fmaf(scale_high, products[3], fmaf(min_high, sum_y, scores[n][3]));
        }
    }
}
