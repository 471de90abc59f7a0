// What the rotated key adds to the scores. All rope heads of a token form one row; an n-tile of 8 query heads multiplies
// only the k-steps in which its rope heads lie, with a block-diagonal query. Codes are multiplied as they are, as
// subnormal f16 (cache/int4.cuh), and a k-step's product is scaled then: exact up to the sums, and cheap enough for the
// few numbers of a rotated key.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "shared.cuh"

// For lane t of a quarter, values 8 t .. 8 t + 7 of k-step `step` of a token's rotated key: bf16, or codes as subnormal
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

// A k-step of the rotated keys of a lane's two tokens, and their pairs of scale and min.
struct RopeStep {
    FragmentA a0, a1;
    uint32_t affine_low, affine_high;
};

// Multiplies a k-step with 8 heads: `query` is theirs, and `sums` that of a lane's two columns, `sum_stride` bytes apart.
__device__ inline void multiply_rope(const RopeStep &keys, bool coded, uint32_t query, const unsigned char *sums,
                                     unsigned sum_stride, FragmentC &scores) {
    uint32_t b[4];
    ldmatrix_x4(b, query);
    if (!coded) {
        mma_bf16(scores, keys.a0, b[0], b[1]);
        mma_bf16(scores, keys.a1, b[2], b[3]);
        return;
    }
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

// Where the k-step lies is computed for each: registers are short while it is multiplied.
__device__ inline RopeStep load_rope(const DecodeParams &params, const Stage &stage, unsigned step) {
    const unsigned lane = thread_index() % WARP, t = lane % 4;
    const RowTokens token(params, lane, ScoreTile(params).m_tile);
    const Rows rows = stage.rope();
    const uint4 lo = rope_values(params, rows[token.low], t, step);
    const uint4 hi = rope_values(params, rows[token.high], t, step);
    RopeStep keys{{lo.x, hi.x, lo.y, hi.y}, {lo.z, hi.z, lo.w, hi.w}, 0, 0};
    if (params.cache.rope_kind != ROW_BF16) {
        // The pairs of (scale, min) begin behind the latent's.
        const unsigned pair = params.cache.latent_groups + (step * ROPE_STEP >> (__ffs(params.cache.rope_group) - 1));
        const Rows pairs = stage.affine(pair);
        keys.affine_low = at<uint32_t>(pairs[token.low], 0);
        keys.affine_high = at<uint32_t>(pairs[token.high], 0);
    }
    return keys;
}

template <typename S>
__device__ void score_rope(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, FragmentC (&scores)[S::N_TILES]) {
    if (params.rope_steps == 0) {
        return;
    }
    const unsigned lane = thread_index() % WARP, slices = params.k_slices, k_slice = ScoreTile(params).k_slice;
    const bool coded = params.cache.rope_kind != ROW_BF16;
    const unsigned query_stride = opaque(params.shared.q_rope_stride);
    const unsigned sum_stride = 4 * (opaque(params.rope_span) | 1);
    uint32_t query = shared_address(memory.q_rope(0)) + lane % 8 * query_stride + lane / 8 * 16;
    const unsigned char *sums = memory.q_rope_sums() + 2 * (lane % 4) * sum_stride;
    // The k-slices take k-steps in rotation. If all n-tiles multiply all k-steps, a k-slice has the same ones for all of
    // them, and few: it keeps the last. Otherwise n-tiles often have one k-step, and the k-slices begin with another
    // n-tile each.
    const bool alike = params.geometry.rope_heads == 1;
    unsigned loaded = ~0u;
    RopeStep keys{};
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const uint2 own_steps = block.rope_steps[n];
#pragma unroll 1
        for (unsigned own = (alike ? k_slice : k_slice + n) & (slices - 1); own < own_steps.y; own += slices) {
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
