// The scores of a warp's own fragments: what all k-slices of the latent gave, its mins, and the rotated key.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "rope.cuh"
#include "shared.cuh"

// The scales and mins of a run of the latents of a lane's two tokens.
struct RowScales {
    float scale_low, scale_high, min_low, min_high;

    __device__ RowScales(const RowPair &affine, unsigned run) {
        const uint32_t low = at<uint32_t>(affine.low, 4 * run), high = at<uint32_t>(affine.high, 4 * run);
        scale_low = affine_scale(low), min_low = affine_min(low);
        scale_high = affine_scale(high), min_high = affine_min(high);
    }
};

// Whole: what mins add, and the scale of a single run.
template <typename S>
__device__ void scale_whole(const DecodeParams &params, const RowPair &affine, const BlockState<S> &block,
                            unsigned head, FragmentC &scores) {
#pragma unroll
    for (int run = 0; run < S::RUNS; ++run) {
        if (run > 0 && run >= params.cache.latent_groups) {
            break;
        }
        const RowScales rows(affine, run);
        const float2 q_sum = *reinterpret_cast<const float2 *>(&block.q_sums[run][head]);
        const float low = S::RUNS == 1 ? rows.scale_low * SUBNORMAL : 1.0f;
        const float high = S::RUNS == 1 ? rows.scale_high * SUBNORMAL : 1.0f;
        scores[0] = fmaf(low, scores[0], rows.min_low * q_sum.x);
        scores[1] = fmaf(low, scores[1], rows.min_low * q_sum.y);
        scores[2] = fmaf(high, scores[2], rows.min_high * q_sum.x);
        scores[3] = fmaf(high, scores[3], rows.min_high * q_sum.y);
    }
}

// A pair of the mins of groups `group` and `group` + 4 of a row of (scale, min) pairs; 0 beyond the groups.
__device__ inline uint32_t min_pair(const unsigned char *pairs, unsigned group, unsigned groups) {
    const uint32_t first = group < groups ? at<uint32_t>(pairs, 4 * group) : 0;
    const uint32_t second = group + 4 < groups ? at<uint32_t>(pairs, 4 * group + 16) : 0;
    return __byte_perm(first, second, 0x7632);
}

// Groups: what mins add, products of 16 groups in k with the query's sums, which are in two parts of 11 bits each. Lane t
// has groups t, t + 4, t + 8 and t + 12, whose pairs lie in different banks from row to row.
template <typename S>
__device__ void score_mins(const DecodeParams &params, const RowPair &affine, const SharedMemory<S> &memory,
                           FragmentC (&scores)[S::OWN]) {
    const unsigned lane = thread_index() % WARP, groups = params.cache.latent_groups;
    // The lane's B fragments, of head lane / 4.
    const unsigned char *q_sums = memory.q_sums() + 16 * lane;
    FragmentC products[S::OWN] = {};
#pragma unroll 1
    for (unsigned group = lane % 4; group - lane % 4 < groups; group += GROUP_BLOCK) {
        const FragmentA a = {min_pair(affine.low, group, groups), min_pair(affine.high, group, groups),
                             min_pair(affine.low, group + 8, groups), min_pair(affine.high, group + 8, groups)};
#pragma unroll
        for (int i = 0; i < S::OWN; ++i) {
            const uint4 b = at<uint4>(q_sums, 16 * WARP * OwnFragment<S>(i).n_tile);
            mma_f16(products[i], a, b.x, b.y);
            mma_f16(products[i], a, b.z, b.w);
        }
        q_sums += 16 * WARP * S::N_TILES;
    }
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            scores[i][x] = fmaf(products[i][x], 1.0f / Q_SUM_UNIT, scores[i][x]);
        }
    }
}

// The scores of a warp's own fragments, without the heads' factors.
template <typename S>
__device__ void own_scores(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, FragmentC (&scores)[S::OWN]) {
    const RowPair affine = affine_rows<S>(params, stage, block, OwnFragment<S>(0).m_tile);
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const OwnFragment<S> fragment(i);
        if (!fragment.exists) {
            continue;
        }
        const unsigned char *part =
            memory.part(0, fragment.m_tile, fragment.n_tile) + 16 * (thread_index() % WARP);
        float4 sum = at<float4>(part, 0);
#pragma unroll
        for (unsigned k_slice = 1; k_slice < S::K_SLICES; ++k_slice) {
            const float4 x = at<float4>(part, k_slice * memory.PART_STRIDE);
            sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
        }
        scores[i][0] = sum.x, scores[i][1] = sum.y, scores[i][2] = sum.z, scores[i][3] = sum.w;
        if constexpr (S::LATENTS == Latents::Whole) {
            scale_whole<S>(params, affine, block, fragment.head(), scores[i]);
        }
    }
    if constexpr (S::LATENTS == Latents::Groups) {
        if (OwnFragment<S>(0).exists) {
            score_mins<S>(params, affine, memory, scores);
        }
    }
    score_rope<S>(params, stage, memory, block, scores);
}
