// `absorb`: the up-projections, moved to the query and the output; `src/reference/absorb.rs` on the device.
//
//     absorb_query:   q_latent[t, h, l] = sum_i W_UK[g, i, l] q_nope[t, h, i]
//     expand_output:  out[t, h, i]      = sum_l W_UV[g, i, l] o_latent[t, h, l] + bias[g, i]
//
// Both are one product for each KV head g: outputs [m x n] = weights [m x k] inputs [k x n], n being the query tokens
// times the query heads per KV head. They differ in how weights lie: rows of outputs in `expand_output` (k dense), rows
// of k in `absorb_query` (m dense; `Transposed` below). Sums are f32, rounded once at the end; within a kernel their
// order does not depend on n. `_few_ordered`, `_medium` and `_many` have the same order, see common/gemm.cuh; `_few`,
// which splits k over warps, has another.
//
// Weights of a layer are little work for a GPU, so that how many blocks there are, and how much of k each has in flight,
// counts for more than how often a byte is read again from L2. The smallest blocks are taken while they have room at a
// time (`src/ops/absorb.rs`): `_few`, then `_medium`, then `_many`.
//
// `_few`: a block computes 64 outputs (`absorb_query`) or 16 (`expand_output`) of a KV head for 16 of n.
//
//     sums = 0                                            every warp: all outputs of the tile, over its k-slice
//     for each of the warp's loads: 32 k (`absorb_query`) or 4 times 32 k (`expand_output`); the 4 warps alternate
//         load weights (A) and inputs (B) from global memory to the registers that MMA takes
//         multiply-add
//     write the sums to shared memory, 16 or 4 KiB for 4 warps; barrier
//     each warp, for its quarter of the sums: add those of the 4 warps in order, add the bias, round, store
//
//   Weights go from global memory to registers without a copy in shared memory. The order of k is free if inputs have
//       it too, and the order of m if outputs are written accordingly, so loads can be 16 bytes: lane 4 g + t has
//       numbers 8 t .. 8 t + 7 of each 32 along k (two MMAs), for outputs g and g + 8, where rows are dense in k. Where
//       they are dense in m, it has outputs 8 g .. 8 g + 7 for the same k: fragment j takes outputs 2 j and 2 j + 1 of
//       each lane as its rows g and g + 8, which one `prmt` per register brings together from two rows.
//   Per KV head and 16 of n: reads 2 m k bytes of weights once, and in each block 32 k bytes of inputs (from L2); 32 m k
//       FLOPs, 16 for each byte of weights: memory-bound.
//
// `_few_ordered`, n <= 16, for callers whose results must not depend on n: the tile of common/gemm.cuh with 16 inputs
// (A) by 64 outputs (weights are B).
//
//   Each of the 4 warps has 16 outputs and all of k, in order. What `_few` gains by splitting k is made up for by bytes
//       in flight: 7 k-steps of 5 KiB, in up to 5 blocks on a multiprocessor of an H100.
//   Per KV head: bytes and FLOPs of `_few`; memory-bound.
//
// `_medium`: the tile of common/gemm.cuh with 64 inputs by 64 outputs, in 4 warps of 32 by 32, where large tiles would
// leave most multiprocessors without one.
//
//   A block is alone on its multiprocessor or nearly so, and goes through k one stage at a time, so that what a stage
//       costs whatever it holds (the barrier, the copies' addresses, latencies) counts: a stage is 64 k, and two stages
//       of 16 KiB are in flight besides.
//   Per tile: 128 k bytes of inputs and 128 k of weights, from L2 mostly, and 8192 k FLOPs, 32 per byte: latency-bound.
//
// `_many`: the tile of common/gemm.cuh with 128 inputs by 128 outputs.
//
//   Per tile: 256 k bytes of inputs and 256 k of weights, both from L2, and 32768 k FLOPs, 64 per byte: compute-bound.

#include "common/gemm.cuh"

namespace {

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

// ---- few ----

// k of one load of weights; warps that split k; inputs of a fragment of B, and fragments of B.
constexpr unsigned LOAD = 32, WARPS = ABSORB_FEW_THREADS / WARP, COLUMNS = 8, COLUMN_TILES = ABSORB_FEW_ROWS / COLUMNS;

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
    for (unsigned k = warp * (Shape::LOADS * LOAD); k < width; k += WARPS * (Shape::LOADS * LOAD)) {
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

// A block of the `_few` kernels.
template <bool Transposed>
__device__ void few(const AbsorbParams &params) {
    using Shape = Few<Transposed>;
    const unsigned tiles = (params.outputs + Shape::OUTPUTS - 1) / Shape::OUTPUTS;
    const unsigned first_row = blockIdx.y * ABSORB_FEW_ROWS;
    const unsigned first = blockIdx.x % tiles * Shape::OUTPUTS;
    const Product product(params, blockIdx.x / tiles);
    const bool aligned = product.is_aligned();
    float sums[Shape::FRAGMENTS][COLUMN_TILES][4]{};
    if (aligned) {
        multiply_few<Transposed, true>(product, first, first_row, sums);
    } else {
        multiply_few<Transposed, false>(product, first, first_row, sums);
    }

    __shared__ float partial[WARPS][Shape::FRAGMENTS][COLUMN_TILES][4][WARP];
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
    static_assert(WARPS == 2 * COLUMN_TILES, "a warp for each");
    const unsigned n = warp / 2, odd = warp % 2, row = first_row + n * COLUMNS + lane % 4 * 2 + odd;
    if (row >= product.rows()) {
        return;
    }
    uint16_t rounded[2 * Shape::FRAGMENTS];
#pragma unroll
    for (unsigned i = 0; i < 2 * Shape::FRAGMENTS; ++i) {
        float sum = 0.0f;
        for (unsigned w = 0; w < WARPS; ++w) {
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

// ---- few, ordered, medium and many ----

using SmallTile = TileShape<ABSORB_FEW_ROWS, ABSORB_ORDERED_OUTPUTS, 8>;
static_assert(SmallTile::THREADS == ABSORB_FEW_THREADS && SmallTile::SHARED_BYTES == ABSORB_ORDERED_SHARED_BYTES,
              "as the host has it");

// Three stages of two k-steps, so that there is a barrier for every 64 k; 2 x 2 warps.
using MediumTile = TileShape<ABSORB_MEDIUM_TILE, ABSORB_MEDIUM_TILE, 3, 2, 2>;
static_assert(MediumTile::THREADS == ABSORB_MEDIUM_THREADS && MediumTile::SHARED_BYTES == GEMM_SHARED_BYTES,
              "as the host has it");

// A tile of the `_few_ordered`, `_medium` and `_many` kernels.
template <typename Tile, bool Transposed, bool Aligned>
__device__ void multiply_tiled(const AbsorbParams &params) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Product product(params, blockIdx.z);
    const unsigned first_row = blockIdx.x * Tile::ROWS, first_column = blockIdx.y * Tile::COLUMNS;
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

// A block of these kernels.
template <typename Tile, bool Transposed>
__device__ void tiled(const AbsorbParams &params) {
    if (Product(params, blockIdx.z).is_aligned()) {
        multiply_tiled<Tile, Transposed, true>(params);
    } else {
        multiply_tiled<Tile, Transposed, false>(params);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    absorb_query_few(const __grid_constant__ AbsorbParams params) {
    few<true>(params);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    expand_output_few(const __grid_constant__ AbsorbParams params) {
    few<false>(params);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    absorb_query_few_ordered(const __grid_constant__ AbsorbParams params) {
    tiled<SmallTile, true>(params);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    expand_output_few_ordered(const __grid_constant__ AbsorbParams params) {
    tiled<SmallTile, false>(params);
}

extern "C" __global__ void __launch_bounds__(ABSORB_MEDIUM_THREADS)
    absorb_query_medium(const __grid_constant__ AbsorbParams params) {
    tiled<MediumTile, true>(params);
}

extern "C" __global__ void __launch_bounds__(ABSORB_MEDIUM_THREADS)
    expand_output_medium(const __grid_constant__ AbsorbParams params) {
    tiled<MediumTile, false>(params);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
    absorb_query_many(const __grid_constant__ AbsorbParams params) {
    tiled<LargeTile, true>(params);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
    expand_output_many(const __grid_constant__ AbsorbParams params) {
    tiled<LargeTile, false>(params);
}
