// The two products with the latents, from what the cache holds: S^T += C Q^T (tokens on m, heads on n, latents in k)
// and O^T += C^T P^T (latents on m, heads on n, tokens in k).
//
// Whole: A operands come straight from the codes. A code's bits, left where they are, are a subnormal f16
// (common/int4.cuh): 5/8 instructions per value in S, 6/8 in O. Scales and mins never touch a value:
//     S = scale_t 2^24 (S of the codes) + min_t sum(q)       per run of 512 latents
//     O = sum_t (P_t scale_t) code_t + sum_t P_t min_t       with P_t scale_t as B operand, one for each run
// Groups and Bf16: A operands come from 16-bit rows, Groups dequantises each tile into f16 once (19/8 instructions per
// value, half of that per operand).
#pragma once

#include "../common/int4.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "block.cuh"
#include "load.cuh"

template <typename S>
__device__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (S::LATENTS == Latents::Bf16) {
        mma_bf16(sum, a, b0, b1);
    } else {
        mma_f16(sum, a, b0, b1);
    }
}

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

// Groups: a stage's codes to rows of f16.
__device__ inline void dequantize_tile(const DecodeParams &params, const unsigned char *stage, unsigned char *rows) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const unsigned words = anew(params.latent_steps) * STEP / 8;
    const unsigned lanes_log2 = words >= WARP ? 5 : 32 - __clz(words - 1);
    const unsigned group_log2 = __ffs(anew(cache.latent_group)) - 1;
    const unsigned thread = thread_index(), lane = thread & ((1u << lanes_log2) - 1);
    for (unsigned token = thread >> lanes_log2; token < params.tile_tokens; token += DECODE_THREADS >> lanes_log2) {
        for (unsigned word = lane; word < words; word += 1u << lanes_log2) {
            // Words beyond the latent are in no group, but all are alike: the query is 0 there.
            const unsigned group = min(8 * word >> group_log2, cache.latent_groups - 1);
            const uint32_t affine = at<uint32_t>(stage, map.affine + token * map.affine_stride + 4 * group);
            const uint32_t codes = at<uint32_t>(stage, token * map.latent_stride + 4 * word);
            uint4 *place = reinterpret_cast<uint4 *>(rows + token * map.dequantized_stride + 16 * word);
            *place = dequantize_word(codes, affine);
        }
    }
}

// Adds the products of 32 latents, OFFSET bytes into a step: of codes in one word of each row.
template <typename S, int OFFSET>
__device__ void multiply_codes(float (&sums)[S::TILES][4], uint32_t low, uint32_t high,
                               uint32_t query, unsigned tile_bytes) {
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

// The same of 16-bit rows.
template <typename S, int OFFSET>
__device__ void multiply_rows(float (&sums)[S::TILES][4], uint32_t rows, uint32_t query, unsigned tile_bytes) {
    uint32_t a0[4], a1[4];
    ldmatrix_x4<OFFSET>(a0, rows);
    ldmatrix_x4<OFFSET + 32>(a1, rows);
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * tile_bytes);
        multiply<S>(sums[n], a0, b[0], b[1]);
        multiply<S>(sums[n], a1, b[2], b[3]);
    }
}

// Adds the latents' part of the warp's share of scores.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const unsigned char *stage, const unsigned char *rows,
                              unsigned row_stride, const unsigned char *queries, const SmallArrays<S> &small,
                              float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, steps = params.latent_steps, parts = params.score_parts;
    const auto [m_tile, part] = Share(params);
    const unsigned tile_bytes = 8 * anew(map.q_latent_stride);
    uint32_t query = shared_address(queries) + lane % 8 * (tile_bytes / 8) + lane / 8 * 16 + 2 * STEP * part;
    if constexpr (S::LATENTS == Latents::Whole) {
        const unsigned t = lane % 4;
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
            const float scale_low = affine_scale(pair_low) * SUBNORMAL;
            const float scale_high = affine_scale(pair_high) * SUBNORMAL;
            // The rank-1 term is added by one part.
            const float min_low = share.part == 0 ? affine_min(pair_low) : 0.0f;
            const float min_high = share.part == 0 ? affine_min(pair_high) : 0.0f;
#pragma unroll
            for (int n = 0; n < S::TILES; ++n) {
                const float2 q_sum = *reinterpret_cast<const float2 *>(&small.q_sums[run][8 * n + 2 * t]);
                scores[n][0] = fmaf(scale_low, sums[n][0], fmaf(min_low, q_sum.x, scores[n][0]));
                scores[n][1] = fmaf(scale_low, sums[n][1], fmaf(min_low, q_sum.y, scores[n][1]));
                scores[n][2] = fmaf(scale_high, sums[n][2], fmaf(min_high, q_sum.x, scores[n][2]));
                scores[n][3] = fmaf(scale_high, sums[n][3], fmaf(min_high, q_sum.y, scores[n][3]));
            }
        }
    } else {
        const unsigned token = token_at(16 * m_tile + lane % 16) & (params.tile_tokens - 1);
        uint32_t latents = shared_address(rows) + token * row_stride + lane / 16 * 16 + 2 * STEP * part;
#pragma unroll 1
        for (unsigned step = part; step < steps; step += parts) {
            multiply_rows<S, 0>(scores, latents, query, tile_bytes);
            multiply_rows<S, 64>(scores, latents, query, tile_bytes);
            latents += 2 * STEP * parts;
            query += 2 * STEP * parts;
        }
    }
}

// Accumulators of 64 latents: m-tile j of Whole has latents 8 g + 2 j and 8 g + 2 j + 1 in rows g and g + 8, else
// 16 j + g and 16 j + g + 8.
template <typename S>
using Output = float[S::SLICES][4][S::TILES][4];

template <typename S>
__device__ unsigned latent_of(unsigned slice, unsigned j, unsigned half) {
    const unsigned g = threadIdx.x % WARP / 4;
    return STEP * slice + (S::LATENTS == Latents::Whole ? 8 * g + 2 * j + half : 16 * j + g + 8 * half);
}

// Adds the products of 64 latents of 16 tokens: `words` are those of a lane's four positions, `weight` is where a
// lane's weights of its first head begin.
template <typename S>
__device__ void accumulate_codes(float (&output)[4][S::TILES][4], const uint32_t (&words)[4],
                                 const unsigned char *weight, unsigned stride) {
    // Low halves hold a word's even values, high halves the odd ones: bring those of two tokens together.
    const uint32_t even0 = __byte_perm(words[0], words[1], 0x5410), odd0 = __byte_perm(words[0], words[1], 0x7632);
    const uint32_t even1 = __byte_perm(words[2], words[3], 0x5410), odd1 = __byte_perm(words[2], words[3], 0x7632);
    const uint32_t a[4][4] = {
        {subnormal_pair<0>(even0), subnormal_pair<0>(odd0), subnormal_pair<0>(even1), subnormal_pair<0>(odd1)},
        {subnormal_pair<1>(even0), subnormal_pair<1>(odd0), subnormal_pair<1>(even1), subnormal_pair<1>(odd1)},
        {subnormal_pair<2>(even0), subnormal_pair<2>(odd0), subnormal_pair<2>(even1), subnormal_pair<2>(odd1)},
        {subnormal_pair<3>(even0), subnormal_pair<3>(odd0), subnormal_pair<3>(even1), subnormal_pair<3>(odd1)}};
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        const uint2 b = at<uint2>(weight, 8 * n * stride);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            mma_f16(output[j][n], a[j], b.x, b.y);
        }
    }
}

// The same of m-tile J of 16-bit rows, with the weights at hand.
template <typename S, int J>
__device__ void accumulate_rows(float (&output)[4][S::TILES][4], uint32_t row, const uint2 (&b)[S::PLANES][S::TILES]) {
    uint32_t a[4];
    ldmatrix_x4_transposed<32 * J>(a, row);
#pragma unroll
    for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            multiply<S>(output[J][n], a, b[plane][n].x, b[plane][n].y);
        }
    }
}

// output = output * rescale + latents * weights.
template <typename S>
__device__ void accumulate(const DecodeParams &params, const unsigned char *stage, const unsigned char *rows,
                           unsigned row_stride, const unsigned char *weights, const SmallArrays<S> &small,
                           Output<S> &output) {
    const unsigned thread = thread_index(), warp = thread / WARP, lane = thread % WARP, g = lane / 4, t = lane % 4;
    const unsigned mask = params.tile_tokens - 1, stride = anew(params.shared.weight_stride);
    const unsigned steps = params.m_tiles;
    const unsigned slices = params.latent_steps;
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const unsigned slice = warp + WARPS * i;
        if (slice >= slices) {
            break;
        }
        const int run = S::RUNS == 1 ? 0 : i;
        float2 rescale[S::TILES];
        bool changes = false;
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
            rescale[n] = *reinterpret_cast<const float2 *>(&small.rescale[run][8 * n + 2 * t]);
            changes |= rescale[n].x != 1.0f || rescale[n].y != 1.0f;
        }
        if (__any_sync(ALL_LANES, changes)) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
#pragma unroll
                for (int n = 0; n < S::TILES; ++n) {
                    output[i][j][n][0] *= rescale[n].x;
                    output[i][j][n][1] *= rescale[n].y;
                    output[i][j][n][2] *= rescale[n].x;
                    output[i][j][n][3] *= rescale[n].y;
                }
            }
        }
        constexpr bool OF_RUN = S::LATENTS == Latents::Whole;
        const unsigned plane_bytes = S::HEADS * stride;
        const unsigned char *weight = weights + (OF_RUN ? run * plane_bytes : 0) + g * stride + 8 * t;
        if constexpr (S::LATENTS == Latents::Whole) {
            // Tokens of positions 4 t .. 4 t + 3, of every 16.
            const unsigned char *codes[4];
#pragma unroll
            for (unsigned x = 0; x < 4; ++x) {
                const unsigned token = token_at(4 * t + x) & mask;
                codes[x] = stage + token * params.shared.latent_stride + slice * STEP / 2 + 4 * g;
            }
            const unsigned step_bytes = 16 * params.shared.latent_stride;
#pragma unroll 1
            for (unsigned step = steps; step > 0; --step) {
                uint32_t words[4];
#pragma unroll
                for (int x = 0; x < 4; ++x) {
                    words[x] = at<uint32_t>(codes[x], 0);
                    codes[x] += step_bytes;
                }
                accumulate_codes<S>(output[i], words, weight, stride);
                weight += 32;
            }
        } else {
            // Row x of a matrix is k = x: position 2 x if x is even, else 2 x - 1; matrices 2 and 3 are k + 8, two
            // positions further.
            const unsigned position = lane % 8 / 2 * 4 + lane % 2 + lane / 16 * 2;
            uint32_t row = shared_address(rows) + (token_at(position) & mask) * row_stride + 2 * STEP * slice +
                           lane / 8 % 2 * 16;
#pragma unroll 1
            for (unsigned step = steps; step > 0; --step) {
                uint2 b[S::PLANES][S::TILES];
#pragma unroll
                for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
                    for (int n = 0; n < S::TILES; ++n) {
                        b[plane][n] = at<uint2>(weight, plane * plane_bytes + 8 * n * stride);
                    }
                }
                accumulate_rows<S, 0>(output[i], row, b);
                accumulate_rows<S, 1>(output[i], row, b);
                accumulate_rows<S, 2>(output[i], row, b);
                accumulate_rows<S, 3>(output[i], row, b);
                row += 16 * row_stride;
                weight += 32;
            }
        }
    }
}
