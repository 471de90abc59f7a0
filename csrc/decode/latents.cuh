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

// A lane's part of the rows that a warp's m-tile reads: rows g and g + 8, in a tile of fewer than 16 tokens the same.
struct Rows {
    unsigned low, high;
    __device__ Rows(const DecodeParams &params, unsigned lane, unsigned m_tile) {
        const unsigned g = lane / 4, mask = params.tile_tokens - 1;
        low = (16 * m_tile + g) & mask;
        high = (16 * m_tile + g + 8) & mask;
    }
};

// Groups: a stage's codes to rows of f16.
__device__ inline void dequantize_tile(const DecodeParams &params, const unsigned char *stage, unsigned char *rows) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const unsigned words = anew(params.latent_steps) * STEP / 8;
    const unsigned lanes_log2 = words >= WARP ? 5 : 32 - __clz(words - 1), group_log2 = __ffs(anew(cache.latent_group)) - 1;
    const unsigned thread = thread_index(), lane = thread & ((1u << lanes_log2) - 1);
    for (unsigned token = thread >> lanes_log2; token < params.tile_tokens; token += DECODE_THREADS >> lanes_log2) {
        for (unsigned word = lane; word < words; word += 1u << lanes_log2) {
            // Words beyond the latent are in no group, but all are alike: the query is 0 there.
            const unsigned group = min(8 * word >> group_log2, cache.latent_groups - 1);
            const uint32_t affine = at<uint32_t>(stage, map.affine + token * map.affine_stride + 4 * group);
            const uint32_t codes = at<uint32_t>(stage, token * map.latent_stride + 4 * word);
            *reinterpret_cast<uint4 *>(rows + token * map.dequantized_stride + 16 * word) = dequantize_word(codes, affine);
        }
    }
}

// Adds the latents' part of m-tile `m_tile`'s scores, of the steps that are `part`'s out of score_parts.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const unsigned char *stage, const unsigned char *rows,
                              unsigned row_stride, const unsigned char *queries, const SmallArrays<S> &small,
                              unsigned m_tile, unsigned part, float (&scores)[S::TILES][4]) {
    const DecodeShared &map = params.shared;
    const unsigned lane = thread_index() % WARP, steps = params.latent_steps;
    const uint32_t query = shared_address(queries) + lane % 8 * map.q_latent_stride + lane / 8 * 16;
    if constexpr (S::LATENTS == Latents::Whole) {
        const unsigned t = lane % 4;
        const Rows token(params, lane, m_tile);
        const unsigned char *low = stage + token.low * map.latent_stride + 8 * t;
        const unsigned char *high = stage + token.high * map.latent_stride + 8 * t;
        // With at most one run, no other sums are alive meanwhile.
        const unsigned runs = S::RUNS == 1 ? 1 : (steps + WARPS - 1) / WARPS;
#pragma unroll 1
        for (unsigned run = 0; run < runs; ++run) {
            float sums[S::TILES][4] = {};
#pragma unroll 1
            for (unsigned step = run * WARPS + part; step < min(steps, (run + 1) * WARPS); step += params.score_parts) {
                const uint2 low_words = at<uint2>(low, step * STEP / 2), high_words = at<uint2>(high, step * STEP / 2);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const uint32_t lo = i == 0 ? low_words.x : low_words.y, hi = i == 0 ? high_words.x : high_words.y;
                    const uint32_t a0[4] = {subnormal_pair<0>(lo), subnormal_pair<0>(hi), subnormal_pair<1>(lo), subnormal_pair<1>(hi)};
                    const uint32_t a1[4] = {subnormal_pair<2>(lo), subnormal_pair<2>(hi), subnormal_pair<3>(lo), subnormal_pair<3>(hi)};
#pragma unroll
                    for (int n = 0; n < S::TILES; ++n) {
                        uint32_t b[4];
                        ldmatrix_x4(b, query + 8 * n * map.q_latent_stride + 2 * STEP * step + 64 * i);
                        mma_f16(sums[n], a0, b[0], b[1]);
                        mma_f16(sums[n], a1, b[2], b[3]);
                    }
                }
            }
            const uint32_t affine_low = at<uint32_t>(stage, map.affine + token.low * map.affine_stride + 4 * run);
            const uint32_t affine_high = at<uint32_t>(stage, map.affine + token.high * map.affine_stride + 4 * run);
            const float scale_low = affine_scale(affine_low) * SUBNORMAL, scale_high = affine_scale(affine_high) * SUBNORMAL;
            // The rank-1 term is added by one part.
            const float min_low = part == 0 ? affine_min(affine_low) : 0.0f;
            const float min_high = part == 0 ? affine_min(affine_high) : 0.0f;
#pragma unroll
            for (int n = 0; n < S::TILES; ++n) {
                const float2 q_sum = *reinterpret_cast<const float2 *>(&small.q_sums[run][8 * n + 2 * t]);
                scores[n][0] += fmaf(scale_low, sums[n][0], min_low * q_sum.x);
                scores[n][1] += fmaf(scale_low, sums[n][1], min_low * q_sum.y);
                scores[n][2] += fmaf(scale_high, sums[n][2], min_high * q_sum.x);
                scores[n][3] += fmaf(scale_high, sums[n][3], min_high * q_sum.y);
            }
        }
    } else {
        const unsigned row = (16 * m_tile + lane % 16) & (params.tile_tokens - 1);
        const uint32_t latents = shared_address(rows) + row * row_stride + lane / 16 * 16;
#pragma unroll 1
        for (unsigned step = part; step < steps; step += params.score_parts) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t a0[4];
                ldmatrix_x4(a0, latents + 2 * STEP * step + 64 * i);
                uint32_t a1[4];
                ldmatrix_x4(a1, latents + 2 * STEP * step + 64 * i + 32);
#pragma unroll
                for (int n = 0; n < S::TILES; ++n) {
                    uint32_t b[4];
                    ldmatrix_x4(b, query + 8 * n * map.q_latent_stride + 2 * STEP * step + 64 * i);
                    multiply<S>(scores[n], a0, b[0], b[1]);
                    multiply<S>(scores[n], a1, b[2], b[3]);
                }
            }
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

// output = output * rescale + latents * weights.
template <typename S>
__device__ void accumulate(const DecodeParams &params, const unsigned char *stage, const unsigned char *rows,
                           unsigned row_stride, const unsigned char *weights, const SmallArrays<S> &small,
                           Output<S> &output) {
    const unsigned thread = thread_index(), warp = thread / WARP, lane = thread % WARP, g = lane / 4, t = lane % 4;
    const unsigned mask = params.tile_tokens - 1, stride = params.shared.weight_stride, steps = params.m_tiles;
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
        const unsigned plane_bytes = S::HEADS * stride;
        const unsigned char *weight = weights + (S::LATENTS == Latents::Whole ? run * plane_bytes : 0) + g * stride + 8 * t;
#pragma unroll 1
        for (unsigned step = 0; step < steps; ++step) {
            if constexpr (S::LATENTS == Latents::Whole) {
                uint32_t words[4];
#pragma unroll
                for (int x = 0; x < 4; ++x) {
                    const unsigned token = (16 * step + t + 4 * x) & mask;
                    words[x] = at<uint32_t>(stage, token * params.shared.latent_stride + slice * STEP / 2 + 4 * g);
                }
                // Low halves hold a word's even values, high halves the odd ones: bring those of two tokens together.
                const uint32_t even[2] = {__byte_perm(words[0], words[1], 0x5410), __byte_perm(words[2], words[3], 0x5410)};
                const uint32_t odd[2] = {__byte_perm(words[0], words[1], 0x7632), __byte_perm(words[2], words[3], 0x7632)};
                const uint32_t a[4][4] = {
                    {subnormal_pair<0>(even[0]), subnormal_pair<0>(odd[0]), subnormal_pair<0>(even[1]), subnormal_pair<0>(odd[1])},
                    {subnormal_pair<1>(even[0]), subnormal_pair<1>(odd[0]), subnormal_pair<1>(even[1]), subnormal_pair<1>(odd[1])},
                    {subnormal_pair<2>(even[0]), subnormal_pair<2>(odd[0]), subnormal_pair<2>(even[1]), subnormal_pair<2>(odd[1])},
                    {subnormal_pair<3>(even[0]), subnormal_pair<3>(odd[0]), subnormal_pair<3>(even[1]), subnormal_pair<3>(odd[1])}};
#pragma unroll
                for (int n = 0; n < S::TILES; ++n) {
                    const uint2 b = at<uint2>(weight, 8 * n * stride + 32 * step);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        mma_f16(output[i][j][n], a[j], b.x, b.y);
                    }
                }
            } else {
                uint2 b[S::PLANES][S::TILES];
#pragma unroll
                for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
                    for (int n = 0; n < S::TILES; ++n) {
                        b[plane][n] = at<uint2>(weight, plane * plane_bytes + 8 * n * stride + 32 * step);
                    }
                }
                // Row x of a matrix is k = x: tokens x / 2 and, where x is odd, 4 further; matrices 2 and 3 are k + 8.
                const unsigned token = (16 * step + lane % 8 / 2 + lane % 2 * 4 + lane / 16 * 8) & mask;
                const uint32_t row = shared_address(rows) + token * row_stride + 2 * STEP * slice + lane / 8 % 2 * 16;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    uint32_t a[4];
                    ldmatrix_x4_transposed(a, row + 32 * j);
#pragma unroll
                    for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
                        for (int n = 0; n < S::TILES; ++n) {
                            multiply<S>(output[i][j][n], a, b[plane][n].x, b[plane][n].y);
                        }
                    }
                }
            }
        }
    }
}
