// The rotated key's part of the scores. All rope heads of a token form one row; an n-tile of 8 query heads multiplies
// only the steps in which its rope heads lie, with a block-diagonal query. Codes are multiplied as they are, as
// subnormal f16 (common/int4.cuh), and a step's product is scaled then: exact up to the sums, and cheap enough for the
// few numbers of a rotated key.
#pragma once

#include "../common/int4.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "block.cuh"
#include "latents.cuh"

// For lane t of a quarter, values 8 t .. 8 t + 7 of step `step` of a token's rotated key: bf16, or codes as subnormal
// f16.
__device__ inline uint4 rope_values(const DecodeParams &params, const unsigned char *stage, unsigned t, unsigned token, unsigned step) {
    const unsigned char *row = stage + params.shared.rope + token * params.shared.rope_stride;
    if (params.cache.rope_kind == ROW_BF16) {
        return at<uint4>(row, 64 * step + 16 * t);
    }
    if (params.cache.rope_kind == ROW_INT8) {
        const uint2 bytes = at<uint2>(row, 32 * step + 8 * t);
        return {subnormal_bytes<0>(bytes.x), subnormal_bytes<1>(bytes.x), subnormal_bytes<0>(bytes.y), subnormal_bytes<1>(bytes.y)};
    }
    const uint32_t word = at<uint32_t>(row, 16 * step + 4 * t);
    return {subnormal_pair<0>(word), subnormal_pair<1>(word), subnormal_pair<2>(word), subnormal_pair<3>(word)};
}

// The (scale, min) of a step of a token's rotated key.
__device__ inline uint32_t rope_affine(const DecodeParams &params, const unsigned char *stage, unsigned token, unsigned step) {
    const unsigned pair = params.cache.latent_groups + step * ROPE_STEP / params.cache.rope_group;
    return at<uint32_t>(stage, params.shared.affine + token * params.shared.affine_stride + 4 * pair);
}

template <typename S>
__device__ void score_rope(const DecodeParams &params, const unsigned char *stage, const unsigned char *shared,
                           const SmallArrays<S> &small, unsigned m_tile, unsigned part,
                           float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, t = lane % 4, steps = params.rope_steps;
    const uint32_t query = shared_address(shared + map.q_rope) + lane % 8 * map.q_rope_stride + lane / 8 * 16;
    const float *sums = reinterpret_cast<const float *>(shared + map.q_rope_sums);
    const bool coded = params.cache.rope_kind != ROW_BF16;
    const Rows token(params, lane, m_tile);
#pragma unroll 1
    for (unsigned step = part; step < steps; step += params.score_parts) {
        uint32_t affine_low = 0, affine_high = 0;
        if (coded) {
            affine_low = rope_affine(params, stage, token.low, step);
            affine_high = rope_affine(params, stage, token.high, step);
        }
        const uint4 lo = rope_values(params, stage, t, token.low, step);
        const uint4 hi = rope_values(params, stage, t, token.high, step);
        const uint32_t a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
        const float scale_low = affine_scale(affine_low) * SUBNORMAL, scale_high = affine_scale(affine_high) * SUBNORMAL;
        const float min_low = affine_min(affine_low), min_high = affine_min(affine_high);
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            const unsigned own = step - small.rope_first[n];
            if (own >= small.rope_end[n] - small.rope_first[n]) {
                continue;
            }
            uint32_t b[4];
            ldmatrix_x4(b, query + 8 * n * map.q_rope_stride + 64 * own);
            if (coded) {
                float products[4] = {};
                mma_f16(products, a0, b[0], b[1]);
                mma_f16(products, a1, b[2], b[3]);
                const float2 sum = {sums[(8 * n + 2 * t) * (params.rope_span | 1) + own],
                                    sums[(8 * n + 2 * t + 1) * (params.rope_span | 1) + own]};
                scores[n][0] += fmaf(scale_low, products[0], min_low * sum.x);
                scores[n][1] += fmaf(scale_low, products[1], min_low * sum.y);
                scores[n][2] += fmaf(scale_high, products[2], min_high * sum.x);
                scores[n][3] += fmaf(scale_high, products[3], min_high * sum.y);
            } else {
                mma_bf16(scores[n], a0, b[0], b[1]);
                mma_bf16(scores[n], a1, b[2], b[3]);
            }
        }
    }
}
