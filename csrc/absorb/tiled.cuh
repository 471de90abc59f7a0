// The `_few_ordered`, `_medium` and `_many` kernels of `absorb`: tiles of common/gemm.cuh.
#pragma once

#include "../common/gemm.cuh"
#include "product.cuh"

using SmallTile = TileShape<ABSORB_FEW_ROWS, ABSORB_ORDERED_OUTPUTS, 8>;
static_assert(SmallTile::THREADS == ABSORB_FEW_THREADS && SmallTile::SHARED_BYTES == ABSORB_ORDERED_SHARED_BYTES,
              "as the host has it");

// Three stages of two k-steps, so that there is a barrier for every 64 k; 2 x 2 warps.
using MediumTile = TileShape<ABSORB_MEDIUM_TILE, ABSORB_MEDIUM_TILE, 3, 2, 2>;
static_assert(MediumTile::THREADS == ABSORB_MEDIUM_THREADS && MediumTile::SHARED_BYTES == GEMM_SHARED_BYTES,
              "as the host has it");

// A tile of the `_few_ordered`, `_medium` and `_many` kernels.
template <typename Tile, bool Transposed, bool Aligned>
__device__ void multiply_tiled(const AbsorbParams &params, const uint3 &block) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Product product(params, block.z);
    const unsigned first_row = block.x * Tile::ROWS, first_column = block.y * Tile::COLUMNS;
    const unsigned width = params.contracted, rows = min(Tile::ROWS, product.rows() - first_row);
    const unsigned columns = min(Tile::COLUMNS, params.outputs - first_column);

    // Rows and columns that do not exist are filled with zeros. Threads past the rows of the tile copy none.
    const bool has_row = step_row() < rows, has_column = step_row() < columns;
    const uint16_t *input = product.input(has_row ? first_row + step_row() : 0);
    const uint16_t *weights = Transposed ? product.weights(0) + first_column
                                         : product.weights(has_column ? first_column + step_row() : 0);
    const auto begin = [&](unsigned step, unsigned char *stage) {
        const unsigned k = step * K_STEP;
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned chunk = step_chunk(i), own_k = k + chunk * CHUNK, count = chunk_count(own_k, width);
            unsigned char *to = stage + tile_offset(step_row(), chunk);
            if (Tile::ROWS == Tile::COLUMNS || step_row() < Tile::ROWS) {
                copy_chunk(to, input + own_k, has_row ? count : 0, Aligned);
            }
            if (!Transposed) {
                copy_chunk(to + Tile::A_BYTES, weights + own_k, has_column ? count : 0, Aligned);
            }
        }
        if (Transposed) {
            const unsigned chunk = threadIdx.x % Tile::CHUNKS, column = chunk * CHUNK;
#pragma unroll
            for (unsigned i = 0; i < K_STEP; i += Tile::THREADS / Tile::CHUNKS) {
                const unsigned row = i + threadIdx.x / Tile::CHUNKS;
                const unsigned count = k + row < width ? chunk_count(column, columns) : 0;
                const uint16_t *from = weights + size_t(k + row) * params.weight_row_stride + column;
                copy_chunk(stage + Tile::A_BYTES + Tile::transposed_offset(row, chunk), from, count, Aligned);
            }
        }
    };
    TileSums<Tile> sums{};
    multiply_tile<Tile, Transposed>(sums, (width + K_STEP - 1) / K_STEP, rows, shared, begin, [](unsigned char *) {});
    const float *bias = product.bias();
    round_tile(sums, bias != nullptr ? bias + first_column : nullptr, columns, shared);
    store_tile<Tile>(
        shared, rows, columns, Aligned, [&](unsigned row) { return product.output(first_row + row); },
        [&](unsigned column) { return first_column + column; });
}

// A block of these kernels, by its place in their grid.
template <typename Tile, bool Transposed>
__device__ void tiled(const AbsorbParams &params, const uint3 &block) {
    if (Product(params, block.z).is_aligned()) {
        multiply_tiled<Tile, Transposed, true>(params, block);
    } else {
        multiply_tiled<Tile, Transposed, false>(params, block);
    }
}
