// The scores of a warp's own fragments: what all k-slices of the latent gave, its mins, and the rotated key.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "rope.cuh"
#include "shared.cuh"

// The pairs of (scale, min) of a run of the latents of a lane's two tokens.
struct PairWords {
    uint32_t low, high;

    __device__ PairWords() {}
    __device__ PairWords(const RowPair &affine, unsigned run)
        : low(at<uint32_t>(affine.low, 4 * run)), high(at<uint32_t>(affine.high, 4 * run)) {}
};

// The same as numbers.
struct RowScales {
    float scale_low, scale_high, min_low, min_high;

    __device__ explicit RowScales(const PairWords &words)
        : scale_low(affine_scale(words.low)), scale_high(affine_scale(words.high)), min_low(affine_min(words.low)),
          min_high(affine_min(words.high)) {}
};

// Whole: adds what mins give, products of a pair of (scale, min) with the query's sum in two parts.
template <typename S>
__device__ void score_run_mins(const DecodeParams &params, const RowPair &affine, const unsigned char *q_sums,
                               FragmentC &scores) {
#pragma unroll
    for (int run = 0; run < S::RUNS; ++run) {
        if (run > 0 && run >= params.cache.latent_groups) {
            break;
        }
        mma_f16_k8(scores, at<uint32_t>(affine.low, 4 * run), at<uint32_t>(affine.high, 4 * run),
                   at<uint32_t>(q_sums, 16 * S::HEADS * run));
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
#pragma unroll 1
    for (unsigned group = lane % 4; group - lane % 4 < groups; group += GROUP_BLOCK) {
        const FragmentA a = {min_pair(affine.low, group, groups), min_pair(affine.high, group, groups),
                             min_pair(affine.low, group + 8, groups), min_pair(affine.high, group + 8, groups)};
#pragma unroll
        for (int i = 0; i < S::OWN; ++i) {
            const uint4 b = at<uint4>(q_sums, 16 * WARP * OwnFragment<S>(i).n_tile);
            mma_f16(scores[i], a, b.x, b.y);
            mma_f16(scores[i], a, b.z, b.w);
        }
        q_sums += 16 * WARP * S::N_TILES;
    }
}

// Normalised keys: multiplies what the latents give to a fragment's scores by the tokens' factors of the heads' KV heads.
// Heads that do not exist take those of the last one.
template <typename S>
__device__ void scale_by_key_factors(const DecodeParams &params, const RowPair &affine, unsigned head,
                                     FragmentC &scores) {
    const GeometryParams &g = params.geometry;
    const unsigned heads_per_kv = g.query_heads / g.kv_heads, last = g.kv_heads - 1, factors = factor_offset(params.cache);
#pragma unroll
    for (unsigned column = 0; column < 2; ++column) {
        const unsigned place = factors + 2 * min((head + column) / heads_per_kv, last);
        scores[column] *= f32_from_f16(at<uint16_t>(affine.low, place));
        scores[column + 2] *= f32_from_f16(at<uint16_t>(affine.high, place));
    }
}

// The scores of a warp's own fragments, in units of SCORE_UNIT, without the heads' factors. Whole: returns the pairs of a
// single run, which the softmax needs too; of several it reads them again, as registers are short.
template <typename S>
__device__ PairWords own_scores(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                                const BlockState<S> &block, FragmentC (&scores)[S::OWN]) {
    const unsigned lane = thread_index() % WARP;
    const OwnPlaces place = block.own[thread_index() / WARP];
    const RowPair affine = own_affine_rows<S>(stage, block);
    const unsigned char *parts = memory.part(place.fragment) + 16 * lane;
    const unsigned char *q_sums = memory.q_sums() + 4 * WARP * place.n_tile + 4 * lane;
    PairWords only_run;
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        if (!OwnFragment<S>(i).exists) {
            continue;
        }
        if (S::LATENTS == Latents::Whole && S::RUNS == 1 && i == 0) {
            only_run = PairWords(affine, 0);
        }
        float4 sum = at<float4>(parts, 16 * WARP * i);
#pragma unroll
        for (unsigned k_slice = 1; k_slice < S::K_SLICES; ++k_slice) {
            const float4 x = at<float4>(parts, 16 * WARP * i + k_slice * memory.PART_STRIDE);
            sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
        }
        FragmentC &own = scores[i];
        if constexpr (S::LATENTS == Latents::Whole && S::RUNS == 1) {
            // Parts are without the run's scale.
            own[0] = own[1] = own[2] = own[3] = 0.0f;
            score_run_mins<S>(params, affine, q_sums + 4 * WARP * i, own);
            const float low = affine_scale(only_run.low) * CODE_UNIT;
            const float high = affine_scale(only_run.high) * CODE_UNIT;
            own[0] = fmaf(low, sum.x, own[0]), own[1] = fmaf(low, sum.y, own[1]);
            own[2] = fmaf(high, sum.z, own[2]), own[3] = fmaf(high, sum.w, own[3]);
        } else {
            own[0] = sum.x, own[1] = sum.y, own[2] = sum.z, own[3] = sum.w;
            if constexpr (S::LATENTS == Latents::Whole) {
                score_run_mins<S>(params, affine, q_sums + 4 * WARP * i, own);
            }
        }
    }
    if constexpr (S::LATENTS == Latents::Groups) {
        if (OwnFragment<S>(0).exists) {
            score_mins<S>(params, affine, memory, scores);
        }
    }
    if (params.cache.key_factors != 0) {
#pragma unroll
        for (int i = 0; i < S::OWN; ++i) {
            const OwnFragment<S> own(i);
            if (own.exists) {
                scale_by_key_factors<S>(params, affine, blockIdx.y * S::HEADS + own.head(), scores[i]);
            }
        }
    }
    score_rope<S>(params, stage, memory, block, affine, scores);
    return only_run;
}
