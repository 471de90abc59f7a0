// What a block of up_project_sm90.cu is: roles of its warpgroups, its shared memory, and the order of its work.
#pragma once

#include "../../common/chunk.cuh"
#include "../../common/reduce.cuh"
#include "../../ptx/address.cuh"
#include "../../ptx/mbarrier.cuh"
#include "../../ptx/wgmma_shared.cuh"
#include "../columns.cuh"

// Warpgroups that multiply, each 64 of the tile's tokens. Of a third one, half loads and half copies rotated keys: with
// a fourth, a thread would have 128 registers, which the sums alone take.
constexpr unsigned WARPGROUP = 128, CONSUMERS = 2, CONSUMER_THREADS = CONSUMERS * WARPGROUP;
constexpr unsigned LOADERS = 64, COPIERS = WARPGROUP - LOADERS;
constexpr unsigned TILE_COLUMNS = UP_PROJECT_SM90_COLUMNS;
static_assert(GEMM_TILE == CONSUMERS * 64, "64 tokens to a warpgroup");
static_assert(UP_PROJECT_SM90_THREADS == CONSUMER_THREADS + LOADERS + COPIERS, "as the host launches it");

// k of a k-step: 128 bytes, a row of the swizzle.
constexpr unsigned STEP = 64, STEP_CHUNKS = STEP / CHUNK;
// Stages of weights; and as many of latents, where not all k-steps of these are kept.
constexpr unsigned STAGES = 3, KEPT_STEPS = UP_PROJECT_SM90_KEPT_STEPS;
constexpr unsigned A_BYTES = GEMM_TILE * STEP * 2, B_BYTES = TILE_COLUMNS * STEP * 2;

__device__ inline unsigned step_count(const UpProjectParams &params) {
    return (params.geometry.latent_rank + STEP - 1) / STEP;
}

// Whether all latents of the tile are kept from columns to columns.
__device__ inline bool keeps_latents(unsigned steps) { return steps <= KEPT_STEPS; }

// In dynamic shared memory, on a multiple of 1024 bytes as swizzled blocks are: the kernel has no static shared memory.
struct SharedMemory {
    unsigned char a[KEPT_STEPS][A_BYTES];  // latents: [128 tokens][64], swizzled
    unsigned char b[STAGES][B_BYTES];      // weights: [256 columns][64], swizzled, in the order of `row_of_column`
    TileTokens<GEMM_TILE> tokens;
    float bias[TILE_COLUMNS];
    // Barriers of each stage: its k-step is there; it has been multiplied. And of the biases, which come with a tile's
    // last k-step: they have been added.
    uint64_t full[STAGES], empty[STAGES], bias_free;
};
static_assert(sizeof(SharedMemory) <= UP_PROJECT_SM90_SHARED_BYTES, "as the host has it");

// In which row of B a column of the tile stands: so that the four pairs of sums that a thread has of 32 columns are 8
// columns, which it stores at once. `column` is 32 m + 8 t + 2 i + e, and its row 32 m + 8 i + 2 t + e.
__device__ inline unsigned row_of_column(unsigned column) {
    return column & ~30u | (column & 6) << 2 | (column >> 3 & 3) << 1;
}

// A place in the ring of stages, and the parity of its use.
struct Ring {
    unsigned index = 0, parity = 0;

    __device__ void advance() {
        if (++index == STAGES) {
            index = 0, parity ^= 1;
        }
    }
};

// Columns of keys or of values that the block multiplies its tokens with.
struct ColumnTile {
    bool is_key;
    unsigned first, count;
};

// Calls `work` with the block's tiles of columns: every gridDim.y-th of all, those of keys first.
template <typename Work>
__device__ void for_each_tile(const UpProjectParams &params, Work work) {
    const GeometryParams &geometry = params.geometry;
    const unsigned key_tiles = column_tiles(geometry, geometry.nope_dim, TILE_COLUMNS);
    const unsigned tiles = key_tiles + column_tiles(geometry, geometry.value_dim, TILE_COLUMNS);
#pragma unroll 1
    for (unsigned tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
        const bool is_key = tile < key_tiles;
        const unsigned first = (is_key ? tile : tile - key_tiles) * TILE_COLUMNS;
        const unsigned width = is_key ? geometry.nope_dim : geometry.value_dim;
        work(ColumnTile{is_key, first, min(TILE_COLUMNS, geometry.kv_heads * width - first)});
    }
}
