// Results of a split: o_latent (bf16) and lse if it has all tokens of its query, else f32 partials for `combine`.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/reduce.cuh"
#include "../params.h"
#include "../ptx/convert.cuh"

__device__ inline size_t output_row(const DecodeParams &params, const DecodeSplit &split, unsigned head) {
    return static_cast<size_t>(split.partial < 0 ? split.query : split.partial) * params.geometry.query_heads + head;
}

__device__ inline void write_lse(const DecodeParams &params, const DecodeSplit &split, unsigned head, float lse) {
    if (head < params.geometry.query_heads) {
        float *to = reinterpret_cast<float *>(split.partial < 0 ? params.lse : params.lse_partial);
        to[output_row(params, split, head)] = lse;
    }
}

// Writes number `place` of the outputs.
__device__ inline void write_value(const DecodeParams &params, const DecodeSplit &split, size_t place, float x) {
    if (split.partial < 0) {
        reinterpret_cast<uint16_t *>(params.o_latent)[place] = bf16_from_f32(x);
    } else {
        reinterpret_cast<float *>(params.o_partial)[place] = x;
    }
}

// What a query that sees no token gets: zeros and minus infinity. A warp takes a head at a time.
template <unsigned THREADS>
__device__ void write_nothing(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                              unsigned heads) {
    const unsigned end_head = min(first_head + heads, params.geometry.query_heads), rank = params.geometry.latent_rank;
    for (unsigned head = first_head + threadIdx.x / WARP; head < end_head; head += THREADS / WARP) {
        for (unsigned latent = threadIdx.x % WARP; latent < rank; latent += WARP) {
            write_value(params, split, output_row(params, split, head) * rank + latent, 0.0f);
        }
        if (threadIdx.x % WARP == 0) {
            write_lse(params, split, head, -CUDART_INF_F);
        }
    }
}
