// The latents' part of the scores, from what the cache holds: S^T += C Q^T, tokens on m, heads on n, latents in k.
//
// A operands of int4 come straight from the codes. A code's bits, left where they are, are a subnormal f16
// (cache/int4.cuh): 5/8 instructions per value. Scales and mins never touch a value:
//     S = sum_group (scale_t 2^24 (S of the group's codes) + min_t sum(q of the group))
// Whole: a group is a run of 512 latents, and is scaled once. Groups: a step's latents are scaled once, or twice in
// groups of 32; the mins are products of their own, with the query's sums in two parts of 11 bits each.
// Bf16: A operands are the cache's rows.
#pragma once

#include "../cache/int4.cuh"
#include "../cache/layout.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "block.cuh"

// A warp's share of a tile's scores: an m-tile, and which part of the steps. Found anew where it is needed.
struct Share {
    unsigned m_tile, part;
    __device__ explicit Share(const DecodeParams &params) {
        const unsigned warp = thread_index() / WARP;
        m_tile = warp & (params.m_tiles - 1);
        part = warp * params.score_parts / WARPS;
    }
};

// The tokens of a lane's positions g and g + 8 of a warp's m-tile; a tile of fewer than 16 has the same in both.
struct Rows {
    unsigned low, high;
    __device__ Rows(const DecodeParams &params, unsigned lane, unsigned m_tile) {
        const unsigned position = 16 * m_tile + lane / 4, mask = params.tile_tokens - 1;
        low = token_at(position) & mask;
        high = token_at(position + 8) & mask;
    }
};

// Adds the products of 32 latents, OFFSET bytes into a step: of codes in one word of each row.
template <typename S, int OFFSET>
__device__ void multiply_codes(float (&sums)[S::TILES][4], uint32_t low, uint32_t high, uint32_t query,
                               unsigned tile_bytes) {
    const uint32_t a0[4] = {subnormal_pair<0>(low), subnormal_pair<0>(high), subnormal_pair<1>(low),
                            subnormal_pair<1>(high)};
    const uint32_t a1[4] = {subnormal_pair<2>(low), subnormal_pair<2>(high), subnormal_pair<3>(low),
                            subnormal_pair<3>(high)};
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * tile_bytes);
        mma_f16(sums[n], a0, b[0], b[1]);
        mma_f16(sums[n], a1, b[2], b[3]);
    }
}

// The same of bf16 rows.
template <typename S, int OFFSET>
__device__ void multiply_rows(float (&sums)[S::TILES][4], uint32_t rows, uint32_t query, unsigned tile_bytes) {
    uint32_t a0[4], a1[4];
    ldmatrix_x4<OFFSET>(a0, rows);
    ldmatrix_x4<OFFSET + 32>(a1, rows);
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * tile_bytes);
        mma_bf16(sums[n], a0, b[0], b[1]);
        mma_bf16(sums[n], a1, b[2], b[3]);
    }
}

// Whole: codes of a step are two neighbouring words per lane.
template <typename S>
__device__ void score_whole(const DecodeParams &params, const unsigned char *stage, uint32_t query,
                            unsigned tile_bytes, const SmallArrays<S> &small, float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, t = lane % 4, steps = params.latent_steps, parts = params.score_parts;
    const auto [m_tile, part] = Share(params);
    const Rows token(params, lane, m_tile);
    const unsigned char *low = stage + token.low * map.latent_stride + 8 * t + STEP / 2 * part;
    const unsigned char *high = stage + token.high * map.latent_stride + 8 * t + STEP / 2 * part;
    // With at most one run, no other sums are alive meanwhile.
    const unsigned runs = S::RUNS == 1 ? 1 : (steps + WARPS - 1) / WARPS;
    unsigned step = part;
#pragma unroll 1
    for (unsigned run = 0; run < runs; ++run) {
        float sums[S::TILES][4] = {};
        const unsigned end = S::RUNS == 1 ? steps : min(steps, (run + 1) * WARPS);
#pragma unroll 1
        for (; step < end; step += parts) {
            const uint2 low_words = at<uint2>(low, 0), high_words = at<uint2>(high, 0);
            low += STEP / 2 * parts;
            high += STEP / 2 * parts;
            multiply_codes<S, 0>(sums, low_words.x, high_words.x, query, tile_bytes);
            multiply_codes<S, 64>(sums, low_words.y, high_words.y, query, tile_bytes);
            query += 2 * STEP * parts;
        }
        const Share share(params);
        const Rows own(params, thread_index() % WARP, share.m_tile);
        const unsigned pairs = map.affine + 4 * run;
        const uint32_t pair_low = at<uint32_t>(stage, pairs + own.low * map.affine_stride);
        const uint32_t pair_high = at<uint32_t>(stage, pairs + own.high * map.affine_stride);
        const float scale_low = affine_scale(pair_low) * SUBNORMAL, scale_high = affine_scale(pair_high) * SUBNORMAL;
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            scores[n][0] = fmaf(scale_low, sums[n][0], scores[n][0]);
            scores[n][1] = fmaf(scale_low, sums[n][1], scores[n][1]);
            scores[n][2] = fmaf(scale_high, sums[n][2], scores[n][2]);
            scores[n][3] = fmaf(scale_high, sums[n][3], scores[n][3]);
        }
        // The rank-1 term is added by one part.
        if (share.part == 0) {
            const float min_low = affine_min(pair_low), min_high = affine_min(pair_high);
            const float *q_sums = &small.q_sums[run][2 * t];
#pragma unroll
            for (int n = 0; n < S::TILES; ++n) {
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
__device__ void score_mins(const DecodeParams &params, const unsigned char *stage, const unsigned char *q_sums,
                           float (&scores)[S::TILES][4]) {
    const unsigned lane = thread_index() % WARP, groups = params.cache.latent_groups;
    const Share share(params);
    const Rows token(params, lane, share.m_tile);
    const unsigned char *pairs = stage + params.shared.affine;
    const unsigned char *low = pairs + token.low * params.shared.affine_stride;
    const unsigned char *high = pairs + token.high * params.shared.affine_stride;
    q_sums += 16 * lane;
#pragma unroll 1
    for (unsigned group = lane % 4; group - lane % 4 < groups; group += MIN_BLOCK) {
        const uint32_t a[4] = {min_pair(low, group, groups), min_pair(high, group, groups),
                               min_pair(low, group + 8, groups), min_pair(high, group + 8, groups)};
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            const uint4 b = at<uint4>(q_sums, 16 * WARP * n);
            mma_f16(scores[n], a, b.x, b.y);
            mma_f16(scores[n], a, b.z, b.w);
        }
        q_sums += 16 * WARP * S::TILES;
    }
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            scores[n][x] *= 1.0f / Q_SUM_UNIT;
        }
    }
}

// Groups: codes of a step are two words per lane, one of each 32 latents. Lanes of rows 4 to 7 read the second first,
// so that all are in different banks.
template <typename S>
__device__ void score_groups(const DecodeParams &params, const unsigned char *stage, uint32_t query,
                             unsigned tile_bytes, const unsigned char *q_sums, float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, steps = params.latent_steps, parts = params.score_parts;
    const auto [m_tile, part] = Share(params);
    if (part == 0) {
        score_mins<S>(params, stage, q_sums, scores);
    }
    const Rows token(params, lane, m_tile);
    const bool second_first = (lane & 16) != 0;
    const unsigned first = 4 * (lane % 4) + (lane & 16);
    const unsigned char *low = stage + token.low * map.latent_stride + STEP / 2 * part;
    const unsigned char *high = stage + token.high * map.latent_stride + STEP / 2 * part;
    const unsigned char *low_pairs = stage + map.affine + token.low * map.affine_stride;
    const unsigned char *high_pairs = stage + map.affine + token.high * map.affine_stride;
    const unsigned group_log2 = __ffs(params.cache.latent_group) - 1, last = params.cache.latent_groups - 1;
    float sums[S::TILES][4] = {};
    // Scales the sums, which end with the group of latents before `end`.
    const auto add_scaled = [&](unsigned end) {
        // Steps beyond the latent are in no group, but all are alike: the query is 0 there.
        const unsigned group = 4 * min((end - 1) >> group_log2, last);
        const float scale_low = affine_scale(at<uint16_t>(low_pairs, group)) * SUBNORMAL;
        const float scale_high = affine_scale(at<uint16_t>(high_pairs, group)) * SUBNORMAL;
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            scores[n][0] = fmaf(scale_low, sums[n][0], scores[n][0]);
            scores[n][1] = fmaf(scale_low, sums[n][1], scores[n][1]);
            scores[n][2] = fmaf(scale_high, sums[n][2], scores[n][2]);
            scores[n][3] = fmaf(scale_high, sums[n][3], scores[n][3]);
            sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
        }
    };
#pragma unroll 1
    for (unsigned step = part; step < steps; step += parts) {
        const uint32_t low_first = at<uint32_t>(low, first), low_second = at<uint32_t>(low, first ^ 16);
        const uint32_t high_first = at<uint32_t>(high, first), high_second = at<uint32_t>(high, first ^ 16);
        low += STEP / 2 * parts;
        high += STEP / 2 * parts;
        multiply_codes<S, 0>(sums, second_first ? low_second : low_first, second_first ? high_second : high_first,
                             query, tile_bytes);
        if (params.cache.latent_group == STEP / 2) {
            add_scaled(STEP * step + STEP / 2);
        }
        multiply_codes<S, 64>(sums, second_first ? low_first : low_second, second_first ? high_first : high_second,
                              query, tile_bytes);
        add_scaled(STEP * (step + 1));
        query += 2 * STEP * parts;
    }
}

template <typename S>
__device__ void score_bf16(const DecodeParams &params, const unsigned char *stage, uint32_t query,
                           unsigned tile_bytes, float (&scores)[S::TILES][4]) {
    const unsigned lane = thread_index() % WARP, parts = params.score_parts;
    const auto [m_tile, part] = Share(params);
    const unsigned token = token_at(16 * m_tile + lane % 16) & (params.tile_tokens - 1);
    uint32_t latents = shared_address(stage) + token * params.shared.latent_stride + lane / 16 * 16 + 2 * STEP * part;
#pragma unroll 1
    for (unsigned step = part; step < params.latent_steps; step += parts) {
        multiply_rows<S, 0>(scores, latents, query, tile_bytes);
        multiply_rows<S, 64>(scores, latents, query, tile_bytes);
        latents += 2 * STEP * parts;
        query += 2 * STEP * parts;
    }
}

// Adds the latents' part of the warp's share of scores.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const unsigned char *stage, const unsigned char *shared,
                              const SmallArrays<S> &small, float (&scores)[S::TILES][4]) {
    const unsigned lane = thread_index() % WARP, tile_bytes = 8 * anew(params.shared.q_latent_stride);
    const uint32_t query = shared_address(shared + params.shared.q_latent) + lane % 8 * (tile_bytes / 8) +
                           lane / 8 * 16 + 2 * STEP * Share(params).part;
    if constexpr (S::LATENTS == Latents::Whole) {
        score_whole<S>(params, stage, query, tile_bytes, small, scores);
    } else if constexpr (S::LATENTS == Latents::Groups) {
        score_groups<S>(params, stage, query, tile_bytes, shared + params.shared.q_sums, scores);
    } else {
        score_bf16<S>(params, stage, query, tile_bytes, scores);
    }
}
