// The product that `absorb` is for each KV head: what is read and written, and where it lies.
#pragma once

#include "../common/chunk.cuh"
#include "../params.h"

// The product of one KV head. A row of its inputs and outputs is a query token's query head.
struct Product {
    const AbsorbParams &params;
    unsigned kv_head, heads;  // `heads`: query heads per KV head

    __device__ Product(const AbsorbParams &params, unsigned kv_head)
        : params(params), kv_head(kv_head), heads(params.query_heads / params.kv_heads) {}

    // Whether all accesses may be 16 bytes wide.
    __device__ bool is_aligned() const {
        const uint64_t pointers = params.weights | params.input | params.output;
        const unsigned sizes = params.contracted | params.outputs | params.weight_head_stride |
                               params.weight_row_stride | params.input_token_stride | params.input_head_stride |
                               params.output_token_stride | params.output_head_stride;
        return pointers % CHUNK_BYTES == 0 && sizes % CHUNK == 0;
    }

    __device__ unsigned rows() const { return params.tokens * heads; }

    __device__ size_t offset(unsigned row, unsigned token_stride, unsigned head_stride) const {
        return size_t(row / heads) * token_stride + size_t(kv_head * heads + row % heads) * head_stride;
    }

    __device__ const uint16_t *input(unsigned row) const {
        const size_t skipped = offset(row, params.input_token_stride, params.input_head_stride);
        return reinterpret_cast<const uint16_t *>(params.input) + skipped;
    }

    __device__ uint16_t *output(unsigned row) const {
        const size_t skipped = offset(row, params.output_token_stride, params.output_head_stride);
        return reinterpret_cast<uint16_t *>(params.output) + skipped;
    }

    // A row of the KV head's weights: an output of `expand_output`, a contracted index of `absorb_query`.
    __device__ const uint16_t *weights(unsigned row) const {
        const size_t skipped = size_t(kv_head) * params.weight_head_stride + size_t(row) * params.weight_row_stride;
        return reinterpret_cast<const uint16_t *>(params.weights) + skipped;
    }

    __device__ const float *bias() const {
        const float *bias = reinterpret_cast<const float *>(params.bias);
        return bias != nullptr ? bias + size_t(kv_head) * params.outputs : nullptr;
    }
};
