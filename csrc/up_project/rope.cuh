// Rotated keys of a tile of tokens, as the cache decodes them, to their places behind the unrotated parts.
#pragma once

#include "../cache/dequantize.cuh"
#include "columns.cuh"

// Where rotated keys of a tile of tokens come from and go to.
struct RopeCopy {
    const UpProjectParams &params;
    Tokens tokens;
    const TileTokens<GEMM_TILE> &found;
    uint16_t *keys;  // the first token's first rotated number

    __device__ RopeCopy(const UpProjectParams &params, Tokens tokens, const TileTokens<GEMM_TILE> &found)
        : params(params), tokens(tokens), found(found),
          keys(reinterpret_cast<uint16_t *>(params.keys) + params.geometry.nope_dim +
               size_t(tokens.first) * params.key_token_stride) {}

    // Of a column: where it is in the row of a token's rotated keys, and in that of its outputs.
    __device__ unsigned source(unsigned column) const {
        const GeometryParams &geometry = params.geometry;
        return column / geometry.rope_dim / (geometry.kv_heads / geometry.rope_heads) * geometry.rope_dim +
               column % geometry.rope_dim;
    }
    __device__ size_t place(unsigned column) const {
        const unsigned width = params.geometry.rope_dim;
        return size_t(column / width) * params.key_head_stride + column % width;
    }

    // Eight columns of every STRIDE-th token from `i` on, of rows of a KIND. Four loads are in flight at a time.
    template <unsigned KIND, unsigned STRIDE>
    __device__ void copy_chunks(unsigned column, unsigned i) const {
        constexpr unsigned IN_FLIGHT = 4;
        const unsigned from = source(column);
        uint16_t *to = keys + place(column);
#pragma unroll 1
        for (; i < tokens.count; i += IN_FLIGHT * STRIDE) {
            Chunk chunks[IN_FLIGHT];
#pragma unroll
            for (unsigned j = 0; j < IN_FLIGHT; ++j) {
                const unsigned own = i + j * STRIDE;
                const CachedToken token = own < tokens.count ? found.load(own) : CachedToken{};
                CachedRow row = rope_row(params.cache, token);
                row.kind = KIND;
                chunks[j] = token.page != nullptr ? dequantize_chunk(row, from) : Chunk{};
            }
#pragma unroll
            for (unsigned j = 0; j < IN_FLIGHT; ++j) {
                const unsigned own = i + j * STRIDE, count = own < tokens.count ? CHUNK : 0;
                store_chunk(to + size_t(own) * params.key_token_stride, chunks[j], count, true);
            }
        }
    }

    // One number of token `i`.
    __device__ void copy_value(unsigned column, unsigned i) const {
        const CachedToken token = found.load(i);
        const CachedRow row = rope_row(params.cache, token);
        keys[size_t(i) * params.key_token_stride + place(column)] =
            token.page != nullptr ? dequantize_value(row, source(column)) : 0;
    }
};

// Those of 128 columns from `first_column` on, by THREADS threads, of which this one is number `thread`. `found` are
// the tile's tokens.
template <unsigned THREADS>
__device__ void copy_rope(const UpProjectParams &params, Tokens tokens, const TileTokens<GEMM_TILE> &found,
                          unsigned first_column, unsigned thread) {
    constexpr unsigned CHUNKS = GEMM_TILE / CHUNK, STRIDE = THREADS / CHUNKS;
    const RopeCopy copy(params, tokens, found);
    const unsigned width = params.geometry.rope_dim, columns = params.geometry.kv_heads * width - first_column;
    const unsigned column = first_column + thread % CHUNKS * CHUNK, row = thread / CHUNKS;
    const unsigned count = chunk_count(thread % CHUNKS * CHUNK, min(GEMM_TILE, columns));
    const bool aligned = (reinterpret_cast<uint64_t>(copy.keys) % CHUNK_BYTES |
                          (width | params.key_head_stride | params.key_token_stride) % CHUNK) == 0;
    if (!aligned) {
        for (unsigned i = row; i < tokens.count; i += STRIDE) {
            for (unsigned j = 0; j < count; ++j) {
                copy.copy_value(column + j, i);
            }
        }
    } else if (count == 0) {
        return;
    } else if (params.cache.rope_kind == ROW_BF16) {
        copy.copy_chunks<ROW_BF16, STRIDE>(column, row);
    } else if (params.cache.rope_kind == ROW_INT8) {
        copy.copy_chunks<ROW_INT8, STRIDE>(column, row);
    } else {
        copy.copy_chunks<ROW_INT4, STRIDE>(column, row);
    }
}
