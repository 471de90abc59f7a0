// The softmax over a block's tokens, tile by tile. Warp w has heads w * S::TILES .., each an equal share of the lanes;
// a lane takes positions (token_at) in fours, and keeps its own part of the head's sums to the end.
//
// Weights are rounded to 16 bits before they are multiplied. What they are divided by in the end is the sum of the
// rounded ones, so that the result is a weighted mean, only with weights that are off by up to 2^-12 (f16), or 2^-18
// (Bf16, where a weight is the sum of two bf16). The lse is of the exact sums.
//
// A P of 1 becomes a weight of 2^14, so that f16 keeps all its bits down to a P of 2^-28. Whole: the weight of a token
// in run r is its P scale_r / unit_r; the unit is 2^(e - 14), where 2^e is the largest power of two not above the
// largest scale so far. Scales differ by at most 2^37, so that a P of 1 is never lost. Phat = (rounded weight) unit_r /
// scale_r is what P became. Where scale_r is 0 all codes are 0, and any factor will do.
#pragma once

#include "../ptx/special.cuh"
#include "block.cuh"

constexpr float WEIGHT_OF_ONE = 16384.0f;

// Whole: run r's TokenFactors of a tile with `count` tokens, by warp r. Each is needed by all heads.
template <typename S>
__device__ void prepare_tokens(const DecodeParams &params, const unsigned char *stage, unsigned count,
                               SmallArrays<S> &small) {
    const unsigned thread = thread_index(), lane = thread % WARP, r = thread / WARP;
    if (r >= S::RUNS || r * RUN >= params.geometry.latent_rank) {
        return;
    }
    constexpr int TOKENS = DECODE_MAX_TILE / WARP;
    const float before = small.units[r];
    uint32_t affine[TOKENS] = {};
    float scale = before * WEIGHT_OF_ONE;
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) {
        const unsigned token = lane + WARP * j;
        if (token < count) {
            affine[j] = at<uint32_t>(stage, params.shared.affine + token * params.shared.affine_stride + 4 * r);
        }
        scale = fmaxf(scale, affine_scale(affine[j]));
    }
    const float power = __uint_as_float(__float_as_uint(reduce_warp(scale, Maximum())) & 0x7F800000);
    const float unit = power / WEIGHT_OF_ONE, inverse = 1.0f / unit;
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) {
        const unsigned position = token_at(lane + WARP * j);
        const float own = affine_scale(affine[j]) > 0.0f ? affine_scale(affine[j]) : power;
        const float back = unit / own;
        small.tokens[r].into[position] = own * inverse;
        small.tokens[r].back[position] = back;
        small.tokens[r].shift[position] = back * affine_min(affine[j]);
    }
    // All lanes have read the unit before: the values that they exchanged depend on it. This tells racecheck so.
    __syncwarp();
    if (lane == 0) {
        small.units[r] = unit;
        small.renormalise[r] = before * inverse;
    }
}

template <typename S>
class Softmax {
    static constexpr bool WHOLE = S::LATENTS == Latents::Whole;
    // Lanes of a head, and how often they take four positions each.
    static constexpr int LANES = WARP / S::TILES;
    static constexpr int PASSES = DECODE_MAX_TILE <= 4 * LANES ? 1 : DECODE_MAX_TILE / (4 * LANES);

    // With one run the state waits in shared memory from tile to tile, since registers are the output's.
    static constexpr bool SHARED = S::RUNS == 1;
    SoftmaxState<S::RUNS> own;

    __device__ SoftmaxState<S::RUNS> &kept(SmallArrays<S> &small) {
        return SHARED ? small.states[thread_index()] : own;
    }

public:
    __device__ explicit Softmax(SmallArrays<S> &small) {
        kept(small) = {};
        if (threadIdx.x < S::HEADS) {
            small.largest[threadIdx.x] = -CUDART_INF_F;
        }
        if (threadIdx.x < S::RUNS) {
            // f16's smallest number is below every scale.
            small.units[threadIdx.x] = 1.0f / SUBNORMAL / WEIGHT_OF_ONE;
        }
    }

    // The lane's head. Of four heads a half-warp has two that are 2 apart, whose weights are in different banks.
    __device__ static unsigned head() {
        const unsigned thread = thread_index(), x = thread % WARP / LANES;
        return thread / WARP * S::TILES + (S::TILES == 4 ? x % 2 * 2 + x / 2 : x);
    }

    // Whether the lane is the first of its head.
    __device__ static bool leads() { return thread_index() % LANES == 0; }

    // Scores of a tile with `count` tokens to weights.
    __device__ void add_tile(const DecodeParams &params, const unsigned char *scores, unsigned count,
                             unsigned char *weights, SmallArrays<S> &small) {
        const unsigned head = Softmax::head(), first = thread_index() % LANES, quads = 4 * params.m_tiles;
        const float factor = small.logit_factor[head];
        const unsigned part_stride = S::HEADS * params.shared.score_stride;
        const unsigned char *from = scores + head * params.shared.score_stride + 16 * first;
        float p[PASSES][4];
        SoftmaxState<S::RUNS> state = kept(small);
        const float before = small.largest[head];
        float maximum = before;
#pragma unroll
        for (int j = 0; j < PASSES; ++j) {
            const unsigned quad = first + LANES * j;
            p[j][0] = p[j][1] = p[j][2] = p[j][3] = -CUDART_INF_F;
            if (quad < quads) {
                float4 x = at<float4>(from, 16 * LANES * j);
                const unsigned char *other = from + 16 * LANES * j;
#pragma unroll 1
                for (unsigned part = params.score_parts; part > 1; --part) {
                    other += part_stride;
                    const float4 y = at<float4>(other, 0);
                    x = {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
                }
                p[j][0] = x.x * factor, p[j][1] = x.y * factor, p[j][2] = x.z * factor, p[j][3] = x.w * factor;
                if (count < 4 * quads) {
#pragma unroll
                    for (int x = 0; x < 4; ++x) {
                        p[j][x] = token_at(4 * quad + x) < count ? p[j][x] : -CUDART_INF_F;
                    }
                }
            }
            maximum = fmaxf(fmaxf(fmaxf(maximum, p[j][0]), fmaxf(p[j][1], p[j][2])), p[j][3]);
        }
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2) {
            maximum = fmaxf(maximum, __shfl_xor_sync(ALL_LANES, maximum, distance));
        }
        const float shrink = exp2_approximate(before - maximum);
        // As above, for the largest exponent so far.
        __syncwarp();
        if (leads()) {
            small.largest[head] = maximum;
        }
        state.sum *= shrink;
#pragma unroll
        for (int j = 0; j < PASSES; ++j) {
#pragma unroll
            for (int x = 0; x < 4; ++x) {
                p[j][x] = exp2_approximate(p[j][x] - maximum);
                state.sum += p[j][x];
            }
        }
        unsigned char *to = weights + head * params.shared.weight_stride + 8 * first;
#pragma unroll
        for (int r = 0; r < S::RUNS; ++r) {
            if (WHOLE && static_cast<unsigned>(r) * RUN >= params.geometry.latent_rank) {
                break;
            }
            if (leads()) {
                small.rescale[r][head] = WHOLE ? shrink * small.renormalise[r] : shrink;
            }
            state.rounded[r] *= shrink;
            state.shifted[r] *= shrink;
#pragma unroll
            for (int j = 0; j < PASSES; ++j) {
                if (first + LANES * j < quads) {
                    unsigned char *place = to + r * S::HEADS * params.shared.weight_stride + 8 * LANES * j;
                    store_weights(params, place, small, r, 4 * (first + LANES * j), p[j], state.rounded[r],
                                  state.shifted[r]);
                }
            }
        }
        kept(small) = state;
    }

    // What remains to be done to the output; returns the lse of the lane's head.
    __device__ float finish(SmallArrays<S> &small) {
        const unsigned head = Softmax::head();
        const SoftmaxState<S::RUNS> state = kept(small);
#pragma unroll
        for (int r = 0; r < S::RUNS; ++r) {
            const float divisor = over_lanes(state.rounded[r]), offset = over_lanes(state.shifted[r]);
            if (leads()) {
                small.out[r].factor[head] = (WHOLE ? small.units[r] * SUBNORMAL : 1.0f) / divisor;
                small.out[r].offset[head] = offset / divisor;
            }
        }
        return (small.largest[head] + log2f(over_lanes(state.sum))) * CUDART_LN2_F;
    }

private:
    __device__ static float over_lanes(float x) {
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2) {
            x += __shfl_xor_sync(ALL_LANES, x, distance);
        }
        return x;
    }

    // Weights of four positions from `position`.
    __device__ static void store_weights(const DecodeParams &params, unsigned char *place, const SmallArrays<S> &small,
                                         int r, unsigned position, const float (&p)[4], float &rounded,
                                         float &shifted) {
        if constexpr (WHOLE) {
            const float4 into = *reinterpret_cast<const float4 *>(&small.tokens[r].into[position]);
            const uint2 weight = {f16x2_from_f32(p[0] * into.x, p[1] * into.y),
                                  f16x2_from_f32(p[2] * into.z, p[3] * into.w)};
            *reinterpret_cast<uint2 *>(place) = weight;
            const float4 back = *reinterpret_cast<const float4 *>(&small.tokens[r].back[position]);
            const float4 shift = *reinterpret_cast<const float4 *>(&small.tokens[r].shift[position]);
            const float2 a = f32x2_from_f16x2(weight.x), b = f32x2_from_f16x2(weight.y);
            rounded = fmaf(b.y, back.w, fmaf(b.x, back.z, fmaf(a.y, back.y, fmaf(a.x, back.x, rounded))));
            shifted = fmaf(b.y, shift.w, fmaf(b.x, shift.z, fmaf(a.y, shift.y, fmaf(a.x, shift.x, shifted))));
        } else if constexpr (S::LATENTS == Latents::Groups) {
            const uint2 weight = {f16x2_from_f32(p[0] * WEIGHT_OF_ONE, p[1] * WEIGHT_OF_ONE),
                                  f16x2_from_f32(p[2] * WEIGHT_OF_ONE, p[3] * WEIGHT_OF_ONE)};
            *reinterpret_cast<uint2 *>(place) = weight;
            const float2 a = f32x2_from_f16x2(weight.x), b = f32x2_from_f16x2(weight.y);
            rounded += (a.x + a.y) + (b.x + b.y);
        } else {
            const uint2 high = {bf16x2_from_f32(p[0], p[1]), bf16x2_from_f32(p[2], p[3])};
            const float x[4] = {f32_from_bf16_low(high.x), f32_from_bf16_high(high.x), f32_from_bf16_low(high.y),
                                f32_from_bf16_high(high.y)};
            const uint2 low = {bf16x2_from_f32(p[0] - x[0], p[1] - x[1]), bf16x2_from_f32(p[2] - x[2], p[3] - x[3])};
            *reinterpret_cast<uint2 *>(place) = high;
            *reinterpret_cast<uint2 *>(place + S::HEADS * params.shared.weight_stride) = low;
            rounded += ((x[0] + f32_from_bf16_low(low.x)) + (x[1] + f32_from_bf16_high(low.x))) +
                          ((x[2] + f32_from_bf16_low(low.y)) + (x[3] + f32_from_bf16_high(low.y)));
        }
    }
};
