// What the latents add to the scores, from what the cache holds: S^T += C Q^T, tokens on m, heads on n, latents in k.
//
// A fragments of int4 come straight from the codes. A code's bits, left where they are, are a subnormal f16
// (cache/int4.cuh): 5/8 instructions per value. Scales and mins never touch a value:
//     S = sum_group (scale_t 2^24 (S of the group's codes) + min_t sum(q of the group))
// Whole: a group is a run of 512 latents, and is scaled once. Groups: a k-step's latents are scaled once, or twice in
// groups of 32; the mins are products of their own, with the query's sums in two parts of 11 bits each.
// Bf16: A fragments are the cache's rows.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "shared.cuh"

// Adds the products of 32 latents of codes, OFFSET bytes into a k-step of the query: of one word of each row.
template <typename S, int OFFSET>
__device__ void multiply_codes(FragmentC (&sums)[S::N_TILES], uint32_t low, uint32_t high, uint32_t query,
                               unsigned n_tile_bytes) {
    const FragmentA a0 = {subnormal_pair<0>(low), subnormal_pair<0>(high), subnormal_pair<1>(low),
                          subnormal_pair<1>(high)};
    const FragmentA a1 = {subnormal_pair<2>(low), subnormal_pair<2>(high), subnormal_pair<3>(low),
                          subnormal_pair<3>(high)};
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * n_tile_bytes);
        mma_f16(sums[n], a0, b[0], b[1]);
        mma_f16(sums[n], a1, b[2], b[3]);
    }
}

// Adds the products of 32 latents of bf16 rows, OFFSET bytes into a k-step of both.
template <typename S, int OFFSET>
__device__ void multiply_rows(FragmentC (&sums)[S::N_TILES], uint32_t rows, uint32_t query, unsigned n_tile_bytes) {
    FragmentA a0, a1;
    ldmatrix_x4<OFFSET>(a0, rows);
    ldmatrix_x4<OFFSET + 32>(a1, rows);
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * n_tile_bytes);
        mma_bf16(sums[n], a0, b[0], b[1]);
        mma_bf16(sums[n], a1, b[2], b[3]);
    }
}

// Whole: codes of a k-step are two neighbouring words per lane.
template <typename S>
__device__ void score_whole(const DecodeParams &params, const Stage &stage, uint32_t query, unsigned n_tile_bytes,
                            const BlockState<S> &block, FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, t = lane % 4, steps = params.latent_steps, slices = params.k_slices;
    const auto [m_tile, k_slice] = ScoreTile(params);
    const RowTokens token(params, lane, m_tile);
    const unsigned char *low = stage.latent(token.low) + 8 * t + STEP / 2 * k_slice;
    const unsigned char *high = stage.latent(token.high) + 8 * t + STEP / 2 * k_slice;
    // A layer of at most one run gets a constant, and the compiler drops the loop.
    const unsigned runs = S::RUNS == 1 ? 1 : (steps + WARPS - 1) / WARPS;
    unsigned step = k_slice;
#pragma unroll 1
    for (unsigned run = 0; run < runs; ++run) {
        FragmentC sums[S::N_TILES] = {};
        const unsigned end = S::RUNS == 1 ? steps : min(steps, (run + 1) * WARPS);
#pragma unroll 1
        for (; step < end; step += slices) {
            const uint2 low_words = at<uint2>(low, 0), high_words = at<uint2>(high, 0);
            low += STEP / 2 * slices;
            high += STEP / 2 * slices;
            multiply_codes<S, 0>(sums, low_words.x, high_words.x, query, n_tile_bytes);
            multiply_codes<S, 64>(sums, low_words.y, high_words.y, query, n_tile_bytes);
            query += 2 * STEP * slices;
        }
        const ScoreTile tile(params);
        const RowTokens own(params, thread_index() % WARP, tile.m_tile);
        const uint32_t pair_low = stage.affine_pair(own.low, run), pair_high = stage.affine_pair(own.high, run);
        const float scale_low = affine_scale(pair_low) * SUBNORMAL, scale_high = affine_scale(pair_high) * SUBNORMAL;
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            scores[n][0] = fmaf(scale_low, sums[n][0], scores[n][0]);
            scores[n][1] = fmaf(scale_low, sums[n][1], scores[n][1]);
            scores[n][2] = fmaf(scale_high, sums[n][2], scores[n][2]);
            scores[n][3] = fmaf(scale_high, sums[n][3], scores[n][3]);
        }
        // What the mins add, min_t sum(q), is the same in every k-slice: one of them adds it.
        if (tile.k_slice == 0) {
            const float min_low = affine_min(pair_low), min_high = affine_min(pair_high);
            const float *q_sums = &block.q_sums[run][2 * t];
#pragma unroll
            for (int n = 0; n < S::N_TILES; ++n) {
                const float2 q_sum = *reinterpret_cast<const float2 *>(q_sums + 8 * n);
                scores[n][0] = fmaf(min_low, q_sum.x, scores[n][0]);
                scores[n][1] = fmaf(min_low, q_sum.y, scores[n][1]);
                scores[n][2] = fmaf(min_high, q_sum.x, scores[n][2]);
                scores[n][3] = fmaf(min_high, q_sum.y, scores[n][3]);
            }
        }
    }
}

// A pair of the mins of groups `group` and `group` + 4 of a row of (scale, min) pairs; 0 beyond the groups.
__device__ inline uint32_t min_pair(const unsigned char *pairs, unsigned group, unsigned groups) {
    const uint32_t first = group < groups ? at<uint32_t>(pairs, 4 * group) : 0;
    const uint32_t second = group + 4 < groups ? at<uint32_t>(pairs, 4 * group + 16) : 0;
    return __byte_perm(first, second, 0x7632);
}

// Groups: the mins' products, 16 groups in k. Lane t has groups t, t + 4, t + 8 and t + 12, whose pairs lie in
// different banks from row to row.
template <typename S>
__device__ void score_mins(const DecodeParams &params, const Stage &stage, const unsigned char *q_sums,
                           FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, groups = params.cache.latent_groups;
    const ScoreTile tile(params);
    const RowTokens token(params, lane, tile.m_tile);
    const Rows pairs = stage.affine();
    const unsigned char *low = pairs[token.low], *high = pairs[token.high];
    // The lane's B fragments, of head lane / 4.
    q_sums += 16 * lane;
#pragma unroll 1
    for (unsigned group = lane % 4; group - lane % 4 < groups; group += GROUP_BLOCK) {
        const FragmentA a = {min_pair(low, group, groups), min_pair(high, group, groups),
                             min_pair(low, group + 8, groups), min_pair(high, group + 8, groups)};
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            const uint4 b = at<uint4>(q_sums, 16 * WARP * n);
            mma_f16(scores[n], a, b.x, b.y);
            mma_f16(scores[n], a, b.z, b.w);
        }
        q_sums += 16 * WARP * S::N_TILES;
    }
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            scores[n][x] *= 1.0f / Q_SUM_UNIT;
        }
    }
}

// Groups: codes of a k-step are two words per lane, one of each 32 latents. Lanes of rows 4 to 7 read the second first,
// so that all are in different banks.
template <typename S>
__device__ void score_groups(const DecodeParams &params, const Stage &stage, uint32_t query, unsigned n_tile_bytes,
                             const unsigned char *q_sums, FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, steps = params.latent_steps, slices = params.k_slices;
    const auto [m_tile, k_slice] = ScoreTile(params);
    if (k_slice == 0) {
        score_mins<S>(params, stage, q_sums, scores);
    }
    const RowTokens token(params, lane, m_tile);
    const bool second_first = (lane & 16) != 0;
    const unsigned first = 4 * (lane % 4) + (lane & 16);
    const unsigned char *low = stage.latent(token.low) + STEP / 2 * k_slice;
    const unsigned char *high = stage.latent(token.high) + STEP / 2 * k_slice;
    const unsigned char *low_pairs = stage.affine()[token.low], *high_pairs = stage.affine()[token.high];
    const unsigned group_log2 = __ffs(params.cache.latent_group) - 1, last = params.cache.latent_groups - 1;
    FragmentC sums[S::N_TILES] = {};
    // Scales the sums, which end with the group of latents before `end`.
    const auto add_scaled = [&](unsigned end) {
        // k-steps beyond the latent are in no group, but all are alike: the query is 0 there.
        const unsigned group = 4 * min((end - 1) >> group_log2, last);
        const float scale_low = affine_scale(at<uint16_t>(low_pairs, group)) * SUBNORMAL;
        const float scale_high = affine_scale(at<uint16_t>(high_pairs, group)) * SUBNORMAL;
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            scores[n][0] = fmaf(scale_low, sums[n][0], scores[n][0]);
            scores[n][1] = fmaf(scale_low, sums[n][1], scores[n][1]);
            scores[n][2] = fmaf(scale_high, sums[n][2], scores[n][2]);
            scores[n][3] = fmaf(scale_high, sums[n][3], scores[n][3]);
            sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
        }
    };
#pragma unroll 1
    for (unsigned step = k_slice; step < steps; step += slices) {
        const uint32_t low_first = at<uint32_t>(low, first), low_second = at<uint32_t>(low, first ^ 16);
        const uint32_t high_first = at<uint32_t>(high, first), high_second = at<uint32_t>(high, first ^ 16);
        low += STEP / 2 * slices;
        high += STEP / 2 * slices;
        multiply_codes<S, 0>(sums, second_first ? low_second : low_first, second_first ? high_second : high_first,
                             query, n_tile_bytes);
        if (params.cache.latent_group == STEP / 2) {
            add_scaled(STEP * step + STEP / 2);
        }
        multiply_codes<S, 64>(sums, second_first ? low_first : low_second, second_first ? high_first : high_second,
                              query, n_tile_bytes);
        add_scaled(STEP * (step + 1));
        query += 2 * STEP * slices;
    }
}

template <typename S>
__device__ void score_bf16(const DecodeParams &params, const Stage &stage, uint32_t query, unsigned n_tile_bytes,
                           FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, slices = params.k_slices;
    const auto [m_tile, k_slice] = ScoreTile(params);
    const unsigned token = token_at(16 * m_tile + lane % 16) & (params.tile_tokens - 1);
    uint32_t latents = stage.latent_address(token) + lane / 16 * 16 + 2 * STEP * k_slice;
#pragma unroll 1
    for (unsigned step = k_slice; step < params.latent_steps; step += slices) {
        multiply_rows<S, 0>(scores, latents, query, n_tile_bytes);
        multiply_rows<S, 64>(scores, latents, query, n_tile_bytes);
        latents += 2 * STEP * slices;
        query += 2 * STEP * slices;
    }
}

// Adds what the latents of the warp's k-slice give.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                              const BlockState<S> &block, FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, n_tile_bytes = 8 * opaque(params.shared.q_latent_stride);
    // The rows of four matrices for `ldmatrix`: 8 heads, of which lanes 8 i .. 8 i + 7 have the i-th 16 bytes.
    const uint32_t query = shared_address(memory.q_latent(0)) + lane % 8 * (n_tile_bytes / 8) + lane / 8 * 16 +
                           2 * STEP * ScoreTile(params).k_slice;
    if constexpr (S::LATENTS == Latents::Whole) {
        score_whole<S>(params, stage, query, n_tile_bytes, block, scores);
    } else if constexpr (S::LATENTS == Latents::Groups) {
        score_groups<S>(params, stage, query, n_tile_bytes, memory.q_sums(), scores);
    } else {
        score_bf16<S>(params, stage, query, n_tile_bytes, scores);
    }
}

// Stores what the warp's k-slice adds to its m-tile's scores.
template <typename S>
__device__ void store_scores(const DecodeParams &params, const SharedMemory<S> &memory,
                             const FragmentC (&scores)[S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, g = lane / 4, t = lane % 4;
    const unsigned stride = opaque(params.shared.score_stride);
    const ScoreTile tile(params);
    unsigned char *to = memory.scores(tile.k_slice, 2 * t, stride) + 4 * (16 * tile.m_tile + g);
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        float *first = reinterpret_cast<float *>(to), *second = reinterpret_cast<float *>(to + stride);
        first[0] = scores[n][0];
        first[8] = scores[n][2];
        second[0] = scores[n][1];
        second[8] = scores[n][3];
        to += 8 * stride;
    }
}
