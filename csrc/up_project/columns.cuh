// What the kernels of `up_project` share: a tile's tokens, and where columns of keys and values come from and go to.
#pragma once

#include <stdint.h>

#include "../cache/sequences.cuh"
#include "../params.h"

// A tile's tokens: rows of the outputs.
struct Tokens {
    unsigned first, count;
};

// Those of tile blockIdx.x; none if the first does not exist. Only the device knows how many tokens there are.
__device__ inline Tokens tokens_of_block(const UpProjectParams &params) {
    const int32_t *starts = reinterpret_cast<const int32_t *>(params.token_starts);
    const unsigned total = min(unsigned(__ldg(starts + params.batch.sequences)), params.token_capacity);
    const unsigned first = blockIdx.x * GEMM_TILE;
    return {first, first < total ? min(GEMM_TILE, total - first) : 0};
}

// The token in a row of the outputs.
__device__ inline CachedToken token_of_row(const UpProjectParams &params, unsigned row) {
    const int32_t *starts = reinterpret_cast<const int32_t *>(params.token_starts);
    return token_of_row(params.cache, params.batch, starts, nullptr, row);
}

// Columns of heads of `width` each, one behind the other, in the weights or in an output.
struct Columns {
    unsigned width, head_stride, row_stride;

    // Elements from the first column to another: a row of weights, or a number of the output.
    __device__ size_t offset(unsigned column) const {
        return size_t(column / width) * head_stride + size_t(column % width) * row_stride;
    }
};

// What keys or values are made of, and where they go.
struct Projection {
    const uint16_t *weights;
    Columns weight_rows;
    const float *bias;
    uint16_t *output;
    unsigned token_stride;
    Columns outputs;
    // Whether outputs are multiplied by each token's factors of normalised keys.
    bool factors;
};

__device__ inline Projection projection_of(const UpProjectParams &params, bool is_key) {
    const unsigned width = is_key ? params.geometry.nope_dim : params.geometry.value_dim;
    return {reinterpret_cast<const uint16_t *>(is_key ? params.up_key : params.up_value),
            {width, is_key ? params.up_key_head_stride : params.up_value_head_stride,
             is_key ? params.up_key_row_stride : params.up_value_row_stride},
            reinterpret_cast<const float *>(is_key ? 0 : params.value_bias),
            reinterpret_cast<uint16_t *>(is_key ? params.keys : params.values),
            is_key ? params.key_token_stride : params.value_token_stride,
            {width, is_key ? params.key_head_stride : params.value_head_stride, 1},
            is_key && params.cache.key_factors != 0};
}

// How many tiles of so many columns the heads' columns of a width take.
__device__ inline unsigned column_tiles(const GeometryParams &geometry, unsigned width, unsigned tile) {
    return (geometry.kv_heads * width + tile - 1) / tile;
}
