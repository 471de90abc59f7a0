// A head's query as it is read, and its scaling.
//
// Scores with f16 factors need the query in f16, whose range is small: each head's query is multiplied by the power of
// two that brings its largest number to 2^14 .. 2^15, and the head's factor on scores is divided by it. Only numbers
// below 2^-27 of the largest can lose bits (of odd pairs, which meet codes and are stored as 2^-4 of themselves).
#pragma once

#include <stdint.h>

#include "../common/chunk.cuh"
#include "../common/reduce.cuh"
#include "../params.h"
#include "../ptx/convert.cuh"
#include "latents.cuh"

// A head's query in global memory.
struct HeadQuery {
    const uint16_t *latent, *rope;
    bool present;

    __device__ HeadQuery(const DecodeParams &params, unsigned query_token, unsigned head)
        : latent(reinterpret_cast<const uint16_t *>(params.q_latent) +
                 static_cast<size_t>(query_token) * params.q_latent_token_stride +
                 static_cast<size_t>(head) * params.q_latent_head_stride),
          rope(reinterpret_cast<const uint16_t *>(params.q_rope) +
               static_cast<size_t>(query_token) * params.q_rope_token_stride +
               static_cast<size_t>(head) * params.q_rope_head_stride),
          present(head < params.geometry.query_heads) {}
};

// Whether the latents of a head's query may be read by chunks.
__device__ inline bool reads_vectors(const DecodeParams &params) {
    return ((params.q_latent | 2 * params.q_latent_token_stride | 2 * params.q_latent_head_stride |
             2 * params.geometry.latent_rank) % CHUNK_BYTES) == 0;
}

// The larger of two pairs of bf16 magnitudes, as integers.
__device__ inline uint32_t larger_magnitudes(uint32_t a, uint32_t b) {
    return __vmaxu2(a & 0x7FFF7FFF, b & 0x7FFF7FFF);
}

// The larger of a pair and all of a chunk's.
__device__ inline uint32_t larger_magnitudes(uint32_t a, const Chunk &x) {
    return larger_magnitudes(
        a, larger_magnitudes(larger_magnitudes(x.pair[0], x.pair[1]), larger_magnitudes(x.pair[2], x.pair[3])));
}

// The largest magnitude of all lanes' pairs.
__device__ inline uint32_t largest_of_warp(uint32_t pair) {
    return __reduce_max_sync(ALL_LANES, max(pair & 0xFFFF, pair >> 16));
}

// The power of two for a head whose largest magnitude is the bf16 `largest`, and its inverse.
__device__ inline float2 power_for(uint32_t largest) {
    constexpr unsigned BIAS = 127, TARGET = 14;
    const unsigned power = min(2 * BIAS + TARGET - (largest >> 7), 2 * BIAS - 1);
    return {__uint_as_float(power << 23), __uint_as_float((2 * BIAS - power) << 23)};
}

// A pair of bf16 of the query times `factor`, in the format that latents are multiplied in.
template <Latents LATENTS>
__device__ uint32_t query_pair(uint32_t pair, float factor) {
    const float low = f32_from_bf16_low(pair) * factor, high = f32_from_bf16_high(pair) * factor;
    return LATENTS == Latents::Bf16 ? bf16x2_from_f32(low, high) : f16x2_from_f32(low, high);
}
