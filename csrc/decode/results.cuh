// Results of a split: o_latent (bf16) and lse if it has all tokens of its query, else f32 partials for `combine`.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/chunk.cuh"
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

// Whether `write_latents` may write vectors: rows of latents begin on 16 bytes and are multiples of eight.
__device__ inline bool writes_vectors(const DecodeParams &params, const DecodeSplit &split) {
    return params.geometry.latent_rank % CHUNK == 0 &&
           (split.partial < 0 ? params.o_latent : params.o_partial) % CHUNK_BYTES == 0;
}

// Writes eight neighbouring latents of a head from `first` on; `vectors`: all of them exist or none.
__device__ inline void write_latents(const DecodeParams &params, const DecodeSplit &split, unsigned head, unsigned first,
                                     bool vectors, const float (&x)[CHUNK]) {
    const unsigned rank = params.geometry.latent_rank;
    const size_t place = output_row(params, split, head) * rank + first;
    if (vectors && first < rank && split.partial < 0) {
        *reinterpret_cast<uint4 *>(reinterpret_cast<uint16_t *>(params.o_latent) + place) = {
            bf16x2_from_f32(x[0], x[1]), bf16x2_from_f32(x[2], x[3]), bf16x2_from_f32(x[4], x[5]),
            bf16x2_from_f32(x[6], x[7])};
    } else if (vectors && first < rank) {
        float4 *to = reinterpret_cast<float4 *>(reinterpret_cast<float *>(params.o_partial) + place);
        to[0] = {x[0], x[1], x[2], x[3]};
        to[1] = {x[4], x[5], x[6], x[7]};
    } else {
#pragma unroll
        for (unsigned i = 0; i < CHUNK; ++i) {
            if (first + i < rank) {
                write_value(params, split, place + i, x[i]);
            }
        }
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
