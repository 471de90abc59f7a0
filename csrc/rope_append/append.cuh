// A warp's part of `rope_append`: a run of a token's latent, keys or queries, or the keys of several tokens.
#pragma once

#include <stdint.h>

#include "../cache/layout.cuh"
#include "../cache/quantize.cuh"
#include "../common/reduce.cuh"
#include "../params.h"
#include "load.cuh"
#include "norm.cuh"
#include "rotate.cuh"

constexpr unsigned TOKENS_OF_BLOCK = ROPE_APPEND_THREADS / WARP;

__device__ inline unsigned runs(unsigned width) { return (width + RUN - 1) / RUN; }

// A new token: which of the launch it is, its row of the rotation tables, and where it goes.
struct Token {
    unsigned index;
    int32_t position;
    int64_t slot;

    __device__ Token(const RopeAppendParams &params, unsigned index)
        : index(index),
          position(params.positions != 0 ? __ldg(reinterpret_cast<const int32_t *>(params.positions) + index) : 0),
          slot(__ldg(reinterpret_cast<const long long *>(params.slots) + index)) {}

    // Of slots -1 is the first that is not refused; numbers below it are large ones without a sign.
    __device__ bool is_refused(const RopeAppendParams &params) const {
        const uint64_t slots = uint64_t(params.cache.page_count) * params.cache.page_size;
        const unsigned positions = min(params.table_positions, 1u << 31);
        return (params.positions != 0 && static_cast<unsigned>(position) >= positions) || uint64_t(slot) + 1 > slots;
    }

    // Whether it goes into the cache.
    __device__ bool is_stored(const RopeAppendParams &params) const { return !is_refused(params) && slot >= 0; }
};

// Adds to one of the counters.
__device__ inline void count(const RopeAppendParams &params, unsigned which, unsigned number) {
    if (params.counters != 0 && number > 0) {
        atomicAdd(reinterpret_cast<unsigned long long *>(params.counters) + which, number);
    }
}

// Adds all lanes' numbers to the counter of saturated values.
__device__ inline void count_saturated(const RopeAppendParams &params, unsigned of_this_lane) {
    if (params.counters != 0) {
        const unsigned number = __reduce_add_sync(ALL_LANES, of_this_lane);
        if (threadIdx.x % WARP == 0) {
            count(params, 0, number);
        }
    }
}

// The rotation at a position, which must be one of the tables'. Without a rotation, it must not be used.
__device__ inline Rotation rotation_at(const RopeAppendParams &params, int32_t position) {
    const size_t table_row = size_t(position) * params.table_frequencies;
    return {reinterpret_cast<const float *>(params.cos) + table_row,
            reinterpret_cast<const float *>(params.sin) + table_row,
            reinterpret_cast<const uint32_t *>(params.frequency_index),
            params.geometry.rope_dim,
            params.pairing == PAIRING_INTERLEAVED};
}

// Whether heads at these addresses, with these strides (several are combined by "or"), are rotated in chunks. All are
// aligned to chunks then, and so is the frequency index, which is read 4 at a time.
__device__ inline bool in_chunks(const RopeAppendParams &params, uint64_t addresses, uint32_t strides) {
    return rotates_in_chunks(params.geometry.rope_dim) && (addresses | params.frequency_index) % CHUNK_BYTES == 0 &&
           strides % CHUNK == 0;
}

// Where a lane's chunks of heads lie: with their partners, if these are in another chunk.
__device__ inline LanePlace place_of_heads(const RopeAppendParams &params, unsigned run, unsigned lanes) {
    const unsigned rope_dim = params.geometry.rope_dim;
    const bool crosses = params.pairing != PAIRING_INTERLEAVED && rope_dim > CHUNK;
    return {run, threadIdx.x & (lanes - 1), lanes, crosses ? rope_dim / 2 : lanes * CHUNK};
}

// A token's row of a tensor of bf16.
__device__ inline uint16_t *token_row(uint64_t tensor, const Token &token, uint32_t stride) {
    return reinterpret_cast<uint16_t *>(tensor) + size_t(token.index) * stride;
}

// Stores the factors of a token's normalised keys, as f16. Returns how many of the lane's were beyond it.
__device__ inline unsigned store_factors(const RopeAppendParams &params, const Token &token) {
    constexpr float LARGEST = 65504.0f;
    const unsigned count = params.cache.key_factors;
    const float *factors = reinterpret_cast<const float *>(params.key_factors) + size_t(token.index) * count;
    uint16_t *to = key_factors(params.cache, token_in_slot(params.cache, token.slot));
    unsigned saturated = 0;
    for (unsigned i = threadIdx.x % WARP; i < (count + 1) / 2 * 2; i += WARP) {
        const float factor = i < count ? __ldg(factors + i) : 0.0f;
        to[i] = f16_from_f32(factor > 0.0f ? fminf(factor, LARGEST) : 0.0f);
        saturated += !(factor >= 0.0f && factor <= LARGEST);
    }
    return saturated;
}

// Takes in one run of a token's latent; with a norm all runs, `first` being 0. With the first run, the keys' factors.
template <RangeSetting RANGE>
__device__ void append_latent(const RopeAppendParams &params, const Token &token, unsigned first) {
    const unsigned width = params.geometry.latent_rank;
    const bool has_norm = params.norm_gain != 0;
    const uint16_t *latent = token_row(params.c_kv, token, params.c_kv_token_stride);
    LanePlace place = place_in_run(first);
    LaneChunks chunks;
    load_run(latent, place, width, chunks);
    if (!token.is_stored(params)) {
        return;
    }
    const CachedRow row = latent_row(params.cache, token_in_slot(params.cache, token.slot));
    const float inverse = has_norm ? inverse_rms(latent, width, params.norm_epsilon, chunks) : 1.0f;
    const unsigned end = has_norm ? runs(width) : first + 1;
    unsigned saturated = first == 0 && params.cache.key_factors != 0 ? store_factors(params, token) : 0;
#pragma unroll 1
    for (unsigned run = first; run < end; ++run) {
        if (run > first) {
            place = place_in_run(run);
            load_run(latent, place, width, chunks);
        }
        LaneValues values;
        widen(chunks, values);
        normalise(params, inverse, place, values);
        saturated += store_run<RANGE>(row, width, place, values, true);
    }
    count_saturated(params, saturated);
}

// Takes in one run of a token's keys, by `lanes` lanes: all of the warp, or fewer if all of the keys fit and are rotated
// in chunks. Then other lanes take in those of other tokens. `is_there`: the lane's token is one of the launch.
template <RangeSetting RANGE>
__device__ void append_keys(const RopeAppendParams &params, const Token &token, bool is_there, unsigned run,
                            unsigned lanes, bool are_chunks) {
    const GeometryParams &g = params.geometry;
    const bool are_normalised = params.cache.key_factors != 0;
    const Heads heads{token_row(params.k_rope, token, params.k_rope_token_stride), params.k_rope_head_stride,
                      g.rope_heads * g.rope_dim, g.rope_heads, g.rope_heads,
                      are_normalised ? reinterpret_cast<const float *>(params.key_factors) +
                                           size_t(token.index) * params.cache.key_factors
                                     : nullptr,
                      reinterpret_cast<const float *>(params.key_gain)};
    const LanePlace place = are_chunks ? place_of_heads(params, run, lanes) : place_in_run(run);
    LaneChunks chunks{};
    if (are_chunks) {
        load_chunks(heads, g.rope_dim, place, chunks);
    }
    const bool is_stored = is_there && token.is_stored(params);
    if (!__any_sync(ALL_LANES, is_stored)) {
        return;
    }
    // Where a token is stored, the tables have a row 0.
    const Rotation rotation = rotation_at(params, is_stored ? token.position : 0);
    const bool is_rotated = params.positions != 0;
    LaneValues values;
    if (are_chunks) {
        widen(chunks, values);
        if (are_normalised) {
            normalise_chunks(heads, g.rope_dim, place, values);
        }
        if (is_rotated) {
            rotate_chunks(heads, rotation, place, values);
        }
    } else {
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            if (is_rotated) {
                rotate_values(heads, rotation, place.start(half), values[half]);
            } else {
                load_head_values(heads, g.rope_dim, place.start(half), values[half]);
            }
        }
    }
    const CachedRow row = rope_row(params.cache, token_in_slot(params.cache, token.slot));
    count_saturated(params, store_run<RANGE>(row, heads.width, place, values, is_stored));
}

// Rotates one run of a token's queries.
__device__ inline void rotate_queries(const RopeAppendParams &params, const Token &token, unsigned run) {
    const GeometryParams &g = params.geometry;
    const Heads heads{token_row(params.q_rope, token, params.q_rope_token_stride), params.q_rope_head_stride,
                      g.query_heads * g.rope_dim, g.query_heads, g.rope_heads, nullptr, nullptr};
    uint16_t *target_row = token_row(params.q_rotated, token, params.q_rotated_token_stride);
    const size_t target_stride = params.q_rotated_head_stride;
    const bool are_chunks = in_chunks(params, params.q_rope | params.q_rotated,
                                      params.q_rope_token_stride | params.q_rope_head_stride |
                                          params.q_rotated_token_stride | params.q_rotated_head_stride);
    const LanePlace place = place_of_heads(params, run, WARP);
    LaneChunks chunks{};
    if (are_chunks) {
        load_chunks(heads, g.rope_dim, place, chunks);
    }
    if (token.is_refused(params)) {
        return;
    }
    const Rotation rotation = rotation_at(params, token.position);
    if (!are_chunks) {
        rotate_pairs(heads, rotation, run, target_row, target_stride);
        return;
    }
    LaneValues values;
    widen(chunks, values);
    rotate_chunks(heads, rotation, place, values);
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = place.start(half);
        const ChunkPlace in_head(start, g.rope_dim);
        if (start < heads.width) {
            uint16_t *to = target_row + in_head.head * target_stride + in_head.dim;
            store_chunk(to, bf16_from_f32(values[half]), CHUNK, true);
        }
    }
}

// The lanes that take a token's keys if these are rotated in chunks: a half or a quarter of the warp if that is enough.
__device__ inline unsigned key_lanes(unsigned width) {
    constexpr unsigned QUARTER = WARP / TOKENS_OF_BLOCK, VALUES = HALVES * CHUNK;
    return width <= QUARTER * VALUES ? QUARTER : width <= WARP / 2 * VALUES ? WARP / 2 : WARP;
}

// The run of a token that is this warp's, by the block's place in a grid of tokens and runs. Where the keys of several
// tokens fit in a warp, it takes them all, and the last of the block's warps have nothing to do.
template <RangeSetting RANGE>
__device__ void append_run(const RopeAppendParams &params, unsigned token_block, unsigned run_block) {
    const GeometryParams &g = params.geometry;
    // Runs of the latent come first, then those of the keys and of the queries.
    const unsigned latent_runs = params.norm_gain == 0 ? runs(g.latent_rank) : 1;
    const unsigned key_width = g.rope_heads * g.rope_dim, key_runs = runs(key_width);
    if (run_block - latent_runs < key_runs) {
        const bool are_chunks =
            in_chunks(params, params.k_rope, params.k_rope_token_stride | params.k_rope_head_stride);
        const unsigned lanes = are_chunks ? key_lanes(key_width) : WARP;
        const unsigned of_block = threadIdx.x >> (__ffs(lanes) - 1), index = token_block * TOKENS_OF_BLOCK + of_block;
        const bool is_there = of_block < TOKENS_OF_BLOCK && index < params.tokens;
        if (__any_sync(ALL_LANES, is_there)) {
            const Token token(params, min(index, params.tokens - 1));
            append_keys<RANGE>(params, token, is_there, run_block - latent_runs, lanes, are_chunks);
        }
        return;
    }
    const unsigned index = token_block * TOKENS_OF_BLOCK + threadIdx.x / WARP;
    if (index >= params.tokens) {
        return;
    }
    const Token token(params, index);
    if (run_block < latent_runs) {
        if (params.counters != 0 && run_block == 0 && threadIdx.x % WARP == 0) {
            count(params, 1, token.is_refused(params));
        }
        append_latent<RANGE>(params, token, run_block);
    } else {
        rotate_queries(params, token, run_block - latent_runs - key_runs);
    }
}
