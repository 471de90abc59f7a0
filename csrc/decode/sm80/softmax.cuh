// The softmax over a block's tokens, tile by tile. Warp w has heads w * S::N_TILES .., each an equal number of lanes; a
// lane takes positions (token_at) in fours, and keeps what they add to the head's sums to the end.
//
// Weights are rounded to 16 bits before they are multiplied. What they are divided by in the end is the sum of the
// rounded ones, so that the result is a weighted mean, only with weights that are off by up to 2^-12 (f16), or 2^-18
// (Bf16, where a weight is the sum of two bf16). The lse is of the exact sums. A P of 1 becomes an f16 of 2^14, which
// keeps all its bits down to a P of 2^-28.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/convert.cuh"
#include "../../ptx/special.cuh"
#include "shared.cuh"

constexpr float WEIGHT_OF_ONE = 16384.0f;

template <typename S>
class Softmax {
    // Lanes of a head, and how often they take four positions each.
    static constexpr int LANES = WARP / S::N_TILES;
    static constexpr int PASSES = DECODE_MAX_TILE <= 4 * LANES ? 1 : DECODE_MAX_TILE / (4 * LANES);

public:
    __device__ static void begin(const DecodeParams &params, const SharedMemory<S> &memory, BlockState<S> &block) {
        block.states[threadIdx.x] = {};
        if (threadIdx.x < S::HEADS) {
            block.largest[threadIdx.x] = -CUDART_INF_F;
        }
        if constexpr (S::CODED) {
            if (threadIdx.x < S::GROUPS) {
                // f16's smallest number: no scale but 0 is below it.
                block.units[threadIdx.x] = 1.0f / SUBNORMAL;
            }
            const unsigned group_blocks = (params.cache.latent_groups + GROUP_BLOCK - 1) / GROUP_BLOCK;
            if (threadIdx.x < group_blocks * S::N_TILES * WARP) {
                memory.output_mins(0, 0, threadIdx.x) = {};
            }
        }
    }

    // The lane's head. Of four heads a half-warp has two that are 2 apart, whose weights are in different banks.
    __device__ static unsigned head() {
        const unsigned thread = thread_index(), x = thread % WARP / LANES;
        return thread / WARP * S::N_TILES + (S::N_TILES == 4 ? x % 2 * 2 + x / 2 : x);
    }

    // Whether the lane is the first of its head.
    __device__ static bool leads() { return thread_index() % LANES == 0; }

    // Scores of a tile to weights, of its tokens from `skipped` to before `count`.
    __device__ static void add_tile(const DecodeParams &params, unsigned skipped, unsigned count,
                                    const SharedMemory<S> &memory, BlockState<S> &block) {
        const unsigned head = Softmax::head(), first = thread_index() % LANES, quads = 4 * params.m_tiles;
        const float factor = block.logit_factor[head];
        const unsigned slice_stride = S::HEADS * params.shared.score_stride;
        const unsigned char *from = memory.scores(0, head) + 16 * first;
        float p[PASSES][4];
        SoftmaxState state = block.states[thread_index()];
        const float before = block.largest[head];
        float maximum = before;
#pragma unroll
        for (int j = 0; j < PASSES; ++j) {
            const unsigned quad = first + LANES * j;
            p[j][0] = p[j][1] = p[j][2] = p[j][3] = -CUDART_INF_F;
            if (quad < quads) {
                float4 x = at<float4>(from, 16 * LANES * j);
                const unsigned char *other = from + 16 * LANES * j;
#pragma unroll 1
                for (unsigned k_slice = params.k_slices; k_slice > 1; --k_slice) {
                    other += slice_stride;
                    const float4 y = at<float4>(other, 0);
                    x = {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
                }
                p[j][0] = x.x * factor, p[j][1] = x.y * factor, p[j][2] = x.z * factor, p[j][3] = x.w * factor;
                if (count < 4 * quads || skipped > 0) {
#pragma unroll
                    for (int x = 0; x < 4; ++x) {
                        const unsigned token = token_at(4 * quad + x);
                        p[j][x] = token >= skipped && token < count ? p[j][x] : -CUDART_INF_F;
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
        // All lanes have read the largest exponent before: the maximum depends on it. This tells racecheck so.
        __syncwarp();
        if (leads()) {
            block.largest[head] = maximum;
            block.rescale[head] = shrink;
        }
        state.sum *= shrink;
        state.rounded *= shrink;
#pragma unroll
        for (int j = 0; j < PASSES; ++j) {
#pragma unroll
            for (int x = 0; x < 4; ++x) {
                p[j][x] = exp2_approximate(p[j][x] - maximum);
                state.sum += p[j][x];
            }
        }
        unsigned char *to = memory.weights(head) + 8 * first;
#pragma unroll
        for (int j = 0; j < PASSES; ++j) {
            if (first + LANES * j < quads) {
                state.rounded += store_weights(to + 8 * LANES * j, S::HEADS * params.shared.weight_stride, p[j]);
            }
        }
        block.states[thread_index()] = state;
    }

    // Leaves what the output is still to be multiplied with; returns the lse of the lane's head.
    __device__ static float finish(BlockState<S> &block) {
        const unsigned head = Softmax::head();
        const SoftmaxState state = block.states[thread_index()];
        const float divisor = over_lanes(state.rounded);
        if (leads()) {
            block.rescale[head] = 1.0f / divisor;
        }
        return (block.largest[head] + log2f(over_lanes(state.sum))) * CUDART_LN2_F;
    }

private:
    __device__ static float over_lanes(float x) {
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2) {
            x += __shfl_xor_sync(ALL_LANES, x, distance);
        }
        return x;
    }

    // Weights of four positions; returns the sum of the rounded ones. `plane` is how many bytes the second plane is away.
    __device__ static float store_weights(unsigned char *place, unsigned plane, const float (&p)[4]) {
        if constexpr (S::CODED) {
            const uint2 weight = {f16x2_from_f32(p[0] * WEIGHT_OF_ONE, p[1] * WEIGHT_OF_ONE),
                                  f16x2_from_f32(p[2] * WEIGHT_OF_ONE, p[3] * WEIGHT_OF_ONE)};
            *reinterpret_cast<uint2 *>(place) = weight;
            const float2 a = f32x2_from_f16x2(weight.x), b = f32x2_from_f16x2(weight.y);
            return (a.x + a.y) + (b.x + b.y);
        } else {
            const uint2 high = {bf16x2_from_f32(p[0], p[1]), bf16x2_from_f32(p[2], p[3])};
            const float x[4] = {f32_from_bf16_low(high.x), f32_from_bf16_high(high.x), f32_from_bf16_low(high.y),
                                f32_from_bf16_high(high.y)};
            const uint2 low = {bf16x2_from_f32(p[0] - x[0], p[1] - x[1]), bf16x2_from_f32(p[2] - x[2], p[3] - x[3])};
            *reinterpret_cast<uint2 *>(place) = high;
            *reinterpret_cast<uint2 *>(place + plane) = low;
            return ((x[0] + f32_from_bf16_low(low.x)) + (x[1] + f32_from_bf16_high(low.x))) +
                   ((x[2] + f32_from_bf16_low(low.y)) + (x[3] + f32_from_bf16_high(low.y)));
        }
    }
};
