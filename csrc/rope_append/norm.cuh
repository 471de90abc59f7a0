// The latent's RMSNorm and bias: `reference::rms_norm` on the device, to the bit.
#pragma once

#include "../common/reduce.cuh"
#include "../params.h"
#include "load.cuh"

// One over the root of the latent's mean square, the additions in the order that `reference::rms_norm` states: a lane
// adds its own squares, then a butterfly adds the lanes. `first` are the chunks of the first run.
__device__ inline float inverse_rms(const uint16_t *row, unsigned width, float epsilon, const LaneChunks &first) {
    float sum = 0.0f;
    const auto add_squares = [&sum](const LaneChunks &chunks) {
        LaneValues values;
        widen(chunks, values);
#pragma unroll
        for (const auto &half : values) {
#pragma unroll
            for (float value : half) {
                sum = __fadd_rn(sum, __fmul_rn(value, value));
            }
        }
    };
    add_squares(first);
    for (unsigned run = 1; run * RUN < width; ++run) {
        LaneChunks further;
        load_run(row, place_in_run(run), width, further);
        add_squares(further);
    }
    sum = reduce_warp(sum, Sum());
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(width)), epsilon)));
}

// Applies norm and bias, where there are any, to one run. `inverse` is what `inverse_rms` returns.
__device__ inline void normalise(const RopeAppendParams &params, float inverse, const LanePlace &place,
                                 LaneValues &values) {
    const unsigned width = params.geometry.latent_rank;
    const float *gain = reinterpret_cast<const float *>(params.norm_gain);
    const float *bias = reinterpret_cast<const float *>(params.bias);
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = place.start(half);
        float factor[CHUNK], summand[CHUNK];
        if (gain != nullptr) {
            load_values(gain, start, width, factor);
#pragma unroll
            for (unsigned j = 0; j < CHUNK; ++j) {
                values[half][j] = __fmul_rn(__fmul_rn(values[half][j], inverse), factor[j]);
            }
        }
        if (bias != nullptr) {
            load_values(bias, start, width, summand);
#pragma unroll
            for (unsigned j = 0; j < CHUNK; ++j) {
                values[half][j] = __fadd_rn(values[half][j], summand[j]);
            }
        }
    }
}
