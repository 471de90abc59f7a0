// A warp's part of `rope_append`: a run of a token's latent, keys or queries.
#pragma once

#include <stdint.h>

#include "../cache/layout.cuh"
#include "../cache/quantize.cuh"
#include "../common/reduce.cuh"
#include "../params.h"
#include "load.cuh"
#include "norm.cuh"
#include "rotate.cuh"

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

    __device__ bool is_refused(const RopeAppendParams &params) const {
        const int64_t slots = int64_t(params.cache.page_count) * params.cache.page_size;
        const bool is_outside = position < 0 || position >= int64_t(params.table_positions);
        return (params.positions != 0 && is_outside) || slot < -1 || slot >= slots;
    }
};

// Adds to one of the counters.
__device__ inline void count(const RopeAppendParams &params, unsigned which, unsigned number) {
    if (params.counters != 0 && number > 0) {
        atomicAdd(reinterpret_cast<unsigned long long *>(params.counters) + which, number);
    }
}

// Adds all lanes' numbers to the counter of saturated values.
__device__ inline void count_saturated(const RopeAppendParams &params, unsigned of_this_lane) {
    const unsigned number = __reduce_add_sync(ALL_LANES, of_this_lane);
    if (threadIdx.x % WARP == 0) {
        count(params, 0, number);
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

// What of a token a warp takes.
enum class Source { Latent, Key, Query };

// A token's row of a tensor of bf16.
__device__ inline uint16_t *token_row(uint64_t tensor, const Token &token, uint32_t stride) {
    return reinterpret_cast<uint16_t *>(tensor) + size_t(token.index) * stride;
}

// Takes in one run of a token's latent, keys or queries; of a latent with a norm all runs, `first` being 0. The three
// share what code they can: a warp alone on its multiprocessor waits for its instructions, too.
template <RangeSetting RANGE>
__device__ void append(const RopeAppendParams &params, const Token &token, Source source, unsigned first) {
    const GeometryParams &g = params.geometry;
    const bool is_latent = source == Source::Latent, is_query = source == Source::Query;
    const bool has_norm = is_latent && params.norm_gain != 0;
    const uint16_t *latent = token_row(params.c_kv, token, params.c_kv_token_stride);
    uint16_t *rotated = token_row(params.q_rotated, token, params.q_rotated_token_stride);
    const size_t rotated_stride = params.q_rotated_head_stride;
    const Heads heads = is_query ? Heads{token_row(params.q_rope, token, params.q_rope_token_stride),
                                         params.q_rope_head_stride, g.query_heads * g.rope_dim,
                                         g.query_heads / g.rope_heads}
                                 : Heads{token_row(params.k_rope, token, params.k_rope_token_stride),
                                         params.k_rope_head_stride, g.rope_heads * g.rope_dim, 1};
    // The frequency index is read 4 at a time where heads are rotated in chunks.
    const bool in_chunks = rotates_in_chunks(g.rope_dim) && is_aligned(heads.row) && heads.stride % CHUNK == 0 &&
                           params.frequency_index % 16 == 0 &&
                           (!is_query || (is_aligned(rotated) && rotated_stride % CHUNK == 0));
    LaneChunks chunks{};
    if (is_latent) {
        load_run(latent, first * RUN, g.latent_rank, chunks);
    } else if (in_chunks) {
        load_chunks(heads, g.rope_dim, first * RUN, chunks);
    }
    if (token.is_refused(params) || (!is_query && token.slot < 0)) {
        return;
    }
    const bool is_rotated = params.positions != 0;
    const Rotation rotation = rotation_at(params, token.position);
    if (is_query && !in_chunks) {
        rotate_pairs(heads, rotation, first, rotated, rotated_stride);
        return;
    }
    const float inverse = has_norm ? inverse_rms(latent, g.latent_rank, params.norm_epsilon, chunks) : 1.0f;
    const unsigned end = has_norm ? runs(g.latent_rank) : first + 1;
    unsigned saturated = 0;
    for (unsigned run = first; run < end; ++run) {
        LaneValues values;
        if (is_latent) {
            if (run > first) {
                load_run(latent, run * RUN, g.latent_rank, chunks);
            }
            widen(chunks, values);
            normalise(params, inverse, run * RUN, values);
        } else if (in_chunks) {
            if (is_rotated) {
                rotate_chunks(heads, rotation, run * RUN, chunks, values);
            } else {
                widen(chunks, values);
            }
        } else {
#pragma unroll
            for (unsigned half = 0; half < HALVES; ++half) {
                const unsigned start = chunk_start(run * RUN, half);
                if (is_rotated) {
                    rotate_values(heads, rotation, start, values[half]);
                } else {
                    load_head_values(heads, g.rope_dim, start, values[half]);
                }
            }
        }
        if (is_query) {
#pragma unroll
            for (unsigned half = 0; half < HALVES; ++half) {
                const unsigned start = chunk_start(run * RUN, half);
                const ChunkPlace place(start, g.rope_dim);
                if (start < heads.width) {
                    uint16_t *to = rotated + place.head * rotated_stride + place.dim;
                    store_chunk(to, bf16_from_f32(values[half]), CHUNK, true);
                }
            }
            return;
        }
        const CachedToken place = token_in_slot(params.cache, token.slot);
        const CachedRow row = is_latent ? latent_row(params.cache, place) : rope_row(params.cache, place);
        const unsigned width = is_latent ? g.latent_rank : g.rope_heads * g.rope_dim;
        saturated += store_run<RANGE>(row, width, run * RUN, values);
    }
    count_saturated(params, saturated);
}

// The run of a token that is this warp's, by the block's place in a grid of tokens and runs.
template <RangeSetting RANGE>
__device__ void append_run(const RopeAppendParams &params, unsigned token_block, unsigned run_block) {
    const GeometryParams &g = params.geometry;
    const unsigned index = token_block * (ROPE_APPEND_THREADS / WARP) + threadIdx.x / WARP;
    if (index >= params.tokens) {
        return;
    }
    const Token token(params, index);
    if (run_block == 0 && threadIdx.x % WARP == 0) {
        count(params, 1, token.is_refused(params));
    }
    // Runs of the latent come first, then those of the keys and of the queries.
    const unsigned latent_runs = params.norm_gain == 0 ? runs(g.latent_rank) : 1;
    const unsigned key_runs = runs(g.rope_heads * g.rope_dim);
    unsigned run = run_block;
    Source source = Source::Latent;
    if (run >= latent_runs) {
        run -= latent_runs;
        source = run < key_runs ? Source::Key : Source::Query;
        run -= run < key_runs ? 0 : key_runs;
    }
    append<RANGE>(params, token, source, run);
}
