// The `_few` kernels of `absorb`: weights from global memory to the registers that MMA takes.
#pragma once

#include "../common/reduce.cuh"
#include "../ptx/convert.cuh"
#include "../ptx/mma.cuh"
#include "product.cuh"

// k of one load of weights; warps that split k; inputs of a fragment of B, and fragments of B.
constexpr unsigned LOAD = 32, FEW_WARPS = ABSORB_FEW_THREADS / WARP, COLUMNS = 8;
constexpr unsigned COLUMN_TILES = ABSORB_FEW_ROWS / COLUMNS;

template <bool Transposed>
struct Few {
    static constexpr unsigned OUTPUTS = Transposed ? ABSORB_QUERY_FEW_OUTPUTS : EXPAND_OUTPUT_FEW_OUTPUTS;
    // Fragments of 16 outputs, and loads that are in flight at a time: 8 of 16 bytes per thread.
    static constexpr unsigned FRAGMENTS = OUTPUTS / 16, LOADS = Transposed ? 1 : 4;

    // Which output of the tile is row g (`half` 0) or g + 8 (`half` 1) of fragment j.
    static __device__ unsigned output(unsigned g, unsigned j, unsigned half) {
        return Transposed ? 8 * g + 2 * j + half : g + 8 * half;
    }
};

// Loads the fragments of A of 32 k, two MMAs, from `k` on, of the tile's outputs, which begin with `first`.
template <bool Transposed, bool Aligned>
__device__ void load_weights(const Product &product, unsigned first, unsigned k,
                             uint32_t (&a)[Few<Transposed>::FRAGMENTS][2][4]) {
    const unsigned g = threadIdx.x % WARP / 4, own_k = k + threadIdx.x % 4 * CHUNK;
    if (Transposed) {
        const unsigned column = first + g * CHUNK, count = chunk_count(column, product.params.outputs);
#pragma unroll
        for (unsigned i = 0; i < CHUNK; i += 2) {
            Chunk row[2];
#pragma unroll
            for (unsigned odd = 0; odd < 2; ++odd) {
                const unsigned index = own_k + i + odd;
                const bool exists = index < product.params.contracted;
                row[odd] = load_chunk(product.weights(index) + column, exists ? count : 0, Aligned);
            }
#pragma unroll
            for (unsigned j = 0; j < Few<Transposed>::FRAGMENTS; ++j) {
                a[j][i / 4][i % 4] = __byte_perm(row[0].pair[j], row[1].pair[j], 0x5410);
                a[j][i / 4][i % 4 + 1] = __byte_perm(row[0].pair[j], row[1].pair[j], 0x7632);
            }
        }
    } else {
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned row = first + g + 8 * half;
            const unsigned count = row < product.params.outputs ? chunk_count(own_k, product.params.contracted) : 0;
            const Chunk chunk = load_chunk(product.weights(row) + own_k, count, Aligned);
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) {
                a[0][i / 2][i % 2 * 2 + half] = chunk.pair[i];
            }
        }
    }
}

// Adds the products of the warp's k-slice, for the rows of inputs from `first_row` on.
template <bool Transposed, bool Aligned>
__device__ void multiply_few(const Product &product, unsigned first, unsigned first_row,
                             float (&sums)[Few<Transposed>::FRAGMENTS][COLUMN_TILES][4]) {
    using Shape = Few<Transposed>;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, width = product.params.contracted;
    const unsigned rows = product.rows() - first_row;
    // Rows past the last input read the last one again: their sums are not used.
    const uint16_t *input[COLUMN_TILES];
#pragma unroll
    for (unsigned n = 0; n < COLUMN_TILES; ++n) {
        input[n] = product.input(first_row + min(n * COLUMNS + lane / 4, rows - 1));
    }
    for (unsigned k = warp * (Shape::LOADS * LOAD); k < width; k += FEW_WARPS * (Shape::LOADS * LOAD)) {
        // All loads before all products.
        uint32_t a[Shape::LOADS][Shape::FRAGMENTS][2][4];
        Chunk b[Shape::LOADS][COLUMN_TILES];
#pragma unroll
        for (unsigned i = 0; i < Shape::LOADS; ++i) {
            load_weights<Transposed, Aligned>(product, first, k + i * LOAD, a[i]);
            const unsigned own_k = k + i * LOAD + lane % 4 * CHUNK, count = chunk_count(own_k, width);
#pragma unroll
            for (unsigned n = 0; n < COLUMN_TILES; ++n) {
                b[i][n] = load_chunk(input[n] + own_k, n * COLUMNS < rows ? count : 0, Aligned);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < Shape::LOADS; ++i) {
#pragma unroll
            for (unsigned step = 0; step < 2; ++step) {
#pragma unroll
                for (unsigned n = 0; n < COLUMN_TILES; ++n) {
#pragma unroll
                    for (unsigned j = 0; j < Shape::FRAGMENTS; ++j) {
                        mma_bf16(sums[j][n], a[i][j][step], b[i][n].pair[2 * step], b[i][n].pair[2 * step + 1]);
                    }
                }
            }
        }
    }
}

// A block of the `_few` kernels, by its place in their grid.
template <bool Transposed>
__device__ void few(const AbsorbParams &params, const uint3 &block) {
    using Shape = Few<Transposed>;
    const unsigned tiles = (params.outputs + Shape::OUTPUTS - 1) / Shape::OUTPUTS;
    const unsigned first_row = block.y * ABSORB_FEW_ROWS;
    const unsigned first = block.x % tiles * Shape::OUTPUTS;
    const Product product(params, block.x / tiles);
    const bool aligned = product.is_aligned();
    float sums[Shape::FRAGMENTS][COLUMN_TILES][4]{};
    if (aligned) {
        multiply_few<Transposed, true>(product, first, first_row, sums);
    } else {
        multiply_few<Transposed, false>(product, first, first_row, sums);
    }

    __shared__ float partial[FEW_WARPS][Shape::FRAGMENTS][COLUMN_TILES][4][WARP];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned j = 0; j < Shape::FRAGMENTS; ++j) {
#pragma unroll
        for (unsigned n = 0; n < COLUMN_TILES; ++n) {
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) {
                partial[warp][j][n][i][lane] = sums[j][n][i];
            }
        }
    }
    __syncthreads();

    // A lane's sums are of two columns. Each warp has one of them, of one fragment of inputs.
    static_assert(FEW_WARPS == 2 * COLUMN_TILES, "a warp for each");
    const unsigned n = warp / 2, odd = warp % 2, row = first_row + n * COLUMNS + lane % 4 * 2 + odd;
    if (row >= product.rows()) {
        return;
    }
    uint16_t rounded[2 * Shape::FRAGMENTS];
#pragma unroll
    for (unsigned i = 0; i < 2 * Shape::FRAGMENTS; ++i) {
        float sum = 0.0f;
        for (unsigned w = 0; w < FEW_WARPS; ++w) {
            sum += partial[w][i / 2][n][i % 2 * 2 + odd][lane];
        }
        const unsigned index = first + Shape::output(lane / 4, i / 2, i % 2);
        const float *bias = product.bias();
        rounded[i] = bf16_from_f32(bias != nullptr && index < params.outputs ? sum + __ldg(bias + index) : sum);
    }
    uint16_t *to = product.output(row) + first;
    if (Transposed) {
        Chunk chunk;
#pragma unroll
        for (unsigned i = 0; i < CHUNK / 2; ++i) {
            chunk.pair[i] = rounded[2 * i] | uint32_t(rounded[2 * i + 1]) << 16;
        }
        const unsigned column = lane / 4 * CHUNK;
        store_chunk(to + column, chunk, chunk_count(first + column, params.outputs), aligned);
    } else {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned column = Shape::output(lane / 4, 0, i);
            if (first + column < params.outputs) {
                to[column] = rounded[i];
            }
        }
    }
}
