// The softmax over a block's tokens, tile by tile. Warp w has heads w * S::TILES .., lanes have tokens. After each tile
// the warp's sums are spread over its lanes, and lie in shared memory until the next: registers are the output's.
//
// Weights are rounded to 16 bits before they are multiplied. What they are divided by in the end is the sum of the
// rounded ones, so that the result is a weighted mean, only with weights that are off by up to 2^-12 (f16), or 2^-18
// (Bf16, where a weight is the sum of two bf16). The lse is of the exact sums.
//
// A P of 1 becomes a weight of 2^14, so that f16 keeps all its bits down to a P of 2^-28. Whole: the weight of a token
// in run r is its P scale_r / unit_r; the unit is 2^(e - 14), where 2^e is the largest power of two not above the
// largest scale so far. Scales differ by at most 2^37, so that a P of 1 is never lost. Phat = (rounded weight) unit_r /
// scale_r is what P became.
#pragma once

#include "../ptx/special.cuh"
#include "block.cuh"

constexpr float WEIGHT_OF_ONE = 16384.0f;

template <typename S>
class Softmax {
    static constexpr int TOKENS = DECODE_MAX_TILE / WARP;
    static constexpr bool WHOLE = S::LATENTS == Latents::Whole;

    // Sums over tokens that a warp keeps for each of its heads: of P, and for each run of Phat and (Whole) Phat * min.
    // Kind k of head x is number S::TILES k + x; rounded up, they are as many as sum_each takes.
    static constexpr int KINDS = 1 + S::RUNS * (WHOLE ? 2 : 1), COUNT = S::TILES * KINDS;
    static constexpr int SUMS = COUNT <= 2 ? 2 : COUNT <= 4 ? 4 : COUNT <= 8 ? 8 : COUNT <= 16 ? 16 : 32;
    static constexpr int LANES_PER_SUM = WARP / SUMS;


    __device__ static constexpr int sum_of(int kind, int x) { return S::TILES * kind + x; }
    __device__ static constexpr int rounded_kind(int run) { return 1 + run * (WHOLE ? 2 : 1); }
    __device__ static float from_sum(float value, int kind, int x) {
        return __shfl_sync(ALL_LANES, value, sum_of(kind, x) * LANES_PER_SUM);
    }

public:
    __device__ explicit Softmax(SmallArrays<S> &small) {
        small.sums[threadIdx.x] = 0.0f;
        small.largest[threadIdx.x] = -CUDART_INF_F;
        if (threadIdx.x < S::RUNS * WARPS) {
            // f16's smallest number is below every scale.
            (&small.units[0][0])[threadIdx.x] = 1.0f / SUBNORMAL / WEIGHT_OF_ONE;
        }
    }

    // Scores of a tile with `tokens` tokens that count to weights.
    __device__ void add_tile(const DecodeParams &params, const unsigned char *stage, const float *scores,
                             unsigned tokens, unsigned char *weights, SmallArrays<S> &small) {
        const unsigned thread = thread_index(), lane = thread % WARP, first = thread / WARP * S::TILES;
        const unsigned stride = params.shared.score_stride / 4, slots = 16 * params.m_tiles;
        float p[S::TILES][TOKENS], sums[SUMS] = {};
        const float largest = small.largest[thread];
        float own_largest = largest;
        const unsigned own_head = lane / LANES_PER_SUM % S::TILES;
        float shrink[S::TILES];
#pragma unroll
        for (int x = 0; x < S::TILES; ++x) {
            const float factor = small.logit_factor[first + x];
            const float before = from_sum(largest, 0, x);
            float maximum = before;
#pragma unroll
            for (int j = 0; j < TOKENS; ++j) {
                const unsigned token = lane + WARP * j;
                p[x][j] = -CUDART_INF_F;
                if (token < tokens) {
                    float score = 0.0f;
#pragma unroll 2
                    for (unsigned part = 0; part < params.score_parts; ++part) {
                        score += scores[(part * S::HEADS + first + x) * stride + token];
                    }
                    p[x][j] = score * factor;
                }
                maximum = fmaxf(maximum, p[x][j]);
            }
            maximum = reduce_warp(maximum, Maximum());
            shrink[x] = exp2_approximate(before - maximum);
            own_largest = own_head == x ? maximum : own_largest;
#pragma unroll
            for (int j = 0; j < TOKENS; ++j) {
                p[x][j] = exp2_approximate(p[x][j] - maximum);
                sums[sum_of(0, x)] += p[x][j];
            }
        }
#pragma unroll
        for (int r = 0; r < S::RUNS; ++r) {
            uint32_t affine[TOKENS] = {};
            float renormalise = 1.0f, unit = 1.0f;
            if constexpr (WHOLE) {
                if (static_cast<unsigned>(r) * RUN >= params.geometry.latent_rank) {
                    break;
                }
                const float before = small.units[r][thread / WARP];
                float scale = before * WEIGHT_OF_ONE;
#pragma unroll
                for (int j = 0; j < TOKENS; ++j) {
                    const unsigned token = lane + WARP * j;
                    if (token < tokens) {
                        affine[j] = at<uint32_t>(stage, params.shared.affine + token * params.shared.affine_stride + 4 * r);
                        scale = fmaxf(scale, affine_scale(affine[j]));
                    }
                }
                unit = __uint_as_float(__float_as_uint(reduce_warp(scale, Maximum())) & 0x7F800000) / WEIGHT_OF_ONE;
                renormalise = before / unit;
                if (lane == 0) {
                    small.units[r][thread / WARP] = unit;
                }
            }
            if (lane == 0) {
#pragma unroll
                for (int x = 0; x < S::TILES; ++x) {
                    small.rescale[r][first + x] = shrink[x] * renormalise;
                }
            }
#pragma unroll
            for (int j = 0; j < TOKENS; ++j) {
                const unsigned token = lane + WARP * j;
                if (token < slots) {
                    store_weights(weights, params.shared.weight_stride, r, first, token, j, affine[j], unit, p, sums);
                }
            }
        }
        small.sums[thread] = fmaf(small.sums[thread], exp2_approximate(largest - own_largest), sum_each(sums));
        small.largest[thread] = own_largest;
    }

    // What remains to be done to the output, and the lse of head `first + x` in lane x.
    __device__ float finish(SmallArrays<S> &small) {
        const unsigned lane = threadIdx.x % WARP, first = threadIdx.x / WARP * S::TILES;
        const float total = small.sums[threadIdx.x], largest = small.largest[threadIdx.x];
        float lse = 0.0f;
#pragma unroll
        for (int x = 0; x < S::TILES; ++x) {
            const float sum = from_sum(total, 0, x), maximum = from_sum(largest, 0, x);
            if (lane == x) {
                lse = (maximum + log2f(sum)) * CUDART_LN2_F;
            }
#pragma unroll
            for (int r = 0; r < S::RUNS; ++r) {
                const float divisor = from_sum(total, rounded_kind(r), x);
                const float offset = WHOLE ? from_sum(total, rounded_kind(r) + 1, x) : 0.0f;
                if (lane == 0) {
                    small.out_factor[r][first + x] = (WHOLE ? small.units[r][threadIdx.x / WARP] * SUBNORMAL : 1.0f) / divisor;
                    small.out_offset[r][first + x] = offset / divisor;
                }
            }
        }
        return lse;
    }

private:
    __device__ void store_weights(unsigned char *weights, unsigned stride, int r, unsigned first, unsigned token, int j,
                                  uint32_t affine, float unit, const float (&p)[S::TILES][TOKENS],
                                  float (&sums)[SUMS]) {
        unsigned char *place = weights + first * stride + 2 * weight_position(token);
        const float scale = affine_scale(affine), into = scale / unit, back = unit / scale;
#pragma unroll
        for (int x = 0; x < S::TILES; ++x) {
            float &rounded = sums[sum_of(rounded_kind(r), x)];
            if constexpr (WHOLE) {
                const uint16_t weight = f16_from_f32(p[x][j] * into);
                // A scale of 0 makes all codes 0 and any P exact.
                const float phat = scale > 0.0f ? f32_from_f16(weight) * back : p[x][j];
                rounded += phat;
                float &shifted = sums[sum_of(rounded_kind(r) + 1, x)];
                shifted = fmaf(phat, affine_min(affine), shifted);
                *reinterpret_cast<uint16_t *>(place + (r * S::HEADS + x) * stride) = weight;
            } else if constexpr (S::LATENTS == Latents::Groups) {
                const uint16_t weight = f16_from_f32(p[x][j] * WEIGHT_OF_ONE);
                rounded += f32_from_f16(weight);
                *reinterpret_cast<uint16_t *>(place + x * stride) = weight;
            } else {
                const uint16_t high = bf16_from_f32(p[x][j]);
                const uint16_t low = bf16_from_f32(p[x][j] - f32_from_bf16_low(high));
                rounded += f32_from_bf16_low(high) + f32_from_bf16_low(low);
                *reinterpret_cast<uint16_t *>(place + x * stride) = high;
                *reinterpret_cast<uint16_t *>(place + (S::HEADS + x) * stride) = low;
            }
        }
    }
};
