// One tile of a product of matrices: ROWS x COLUMNS of sum_k A[r, k] B[k, c], for kernels that give every tile a block.
// A and B are bf16, sums f32.
//
//     sums = 0                                                in registers, see Accumulators
//     for the first STAGES - 1 stages of STEPS k-steps of 32: begin, finish each k-step
//     for each stage:
//         wait for the thread's own copies of this stage
//         barrier: the stage has arrived, and all warps are done with the one that the next copies overwrite
//         begin each k-step of the stage STAGES - 1 ahead: start its copies from global to shared memory
//         each warp: load the fragments of A and B by ldmatrix, multiply-add, k-step by k-step
//         finish each of those k-steps: what a thread stores itself in shared memory, such as dequantised values
//     barrier
//     round the sums, with the bias, into shared memory; barrier
//     each thread: copy 16 bytes of a row to global memory at a time
//
// A stage in shared memory holds for each of its k-steps:
//     A [ROWS x 32 k], chunk c of row r at `tile_offset(r, c)`
//     B [COLUMNS x 32 k], likewise; or transposed, [32 k x COLUMNS], at `transposed_offset(k, c)`
// At the end the rounded tile [ROWS x COLUMNS] takes the place of the stages, chunk c of row r at
// `rounded_offset(r, c)`. These offsets permute the chunks of a row so that the 8 chunks that one `ldmatrix` phase reads,
// and those that 8 threads write, lie in different banks.
//
// Accumulators: WARPS_ACROSS warps share the tile's columns, and as many such rows of warps as there are share its rows. In
// the large tile a warp has 64 x 32 sums, in 4 x 4 fragments of m16n8k16, and 12 `ldmatrix` of 512 bytes feed the 32 MMAs
// of a k-step; in the medium one 32 x 32, and 8 feed 16.
//
// Order of sums: every sum is one chain of MMAs over k = 0 .. 15, 16 .. 31, .. with A as the rows and B as the columns of
// the fragments, whatever the tile's size and whatever its other rows and columns hold. So all tiles agree to the bit. (The
// k-steps that the last stage has beyond k are zeros, which change no sum: none is -0, as they begin with 0.)
#pragma once

#include "../params.h"
#include "../ptx/address.cuh"
#include "../ptx/convert.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "chunk.cuh"
#include "reduce.cuh"

// k of a k-step.
constexpr unsigned K_STEP = 32;

template <unsigned ROWS_, unsigned COLUMNS_, unsigned STAGES_, unsigned STEPS_ = 1, unsigned WARPS_ACROSS_ = 4>
struct TileShape {
    static constexpr unsigned ROWS = ROWS_, COLUMNS = COLUMNS_, STAGES = STAGES_, STEPS = STEPS_;
    // Chunks of a row of the tile, and of a row of transposed B.
    static constexpr unsigned CHUNKS = COLUMNS / CHUNK;
    // Two threads copy a row of B, and of A if it has as many rows.
    static constexpr unsigned THREADS = 2 * COLUMNS;
    static constexpr unsigned A_BYTES = ROWS * K_STEP * 2, STEP_BYTES = A_BYTES + COLUMNS * K_STEP * 2;
    static constexpr unsigned STAGE_BYTES = STEPS * STEP_BYTES;
    static constexpr unsigned SHARED_BYTES = STAGES * STAGE_BYTES;
    // Rows and columns of a warp, in fragments of 16 rows by 8 columns.
    static constexpr unsigned WARPS_ACROSS = WARPS_ACROSS_;
    static constexpr unsigned WARP_COLUMNS = COLUMNS / WARPS_ACROSS, WARP_ROWS = ROWS / (THREADS / WARP / WARPS_ACROSS);
    static constexpr unsigned ROW_FRAGMENTS = WARP_ROWS / 16, COLUMN_FRAGMENTS = WARP_COLUMNS / 8;

    static_assert(ROWS <= COLUMNS, "threads for every row of A");
    static_assert(CHUNKS >= 8, "transposed_offset exchanges 8 chunks of a row");
    static_assert(WARP_ROWS % 16 == 0 && WARP_COLUMNS % 16 == 0, "whole ldmatrix of four");
    static_assert(ROWS * COLUMNS * 2 <= SHARED_BYTES, "the rounded tile fits in place of the stages");

    static __device__ unsigned first_row() { return threadIdx.x / WARP / WARPS_ACROSS * WARP_ROWS; }
    static __device__ unsigned first_column() { return threadIdx.x / WARP % WARPS_ACROSS * WARP_COLUMNS; }

    static __device__ unsigned transposed_offset(unsigned k, unsigned chunk) {
        return k * (COLUMNS * 2) + (chunk ^ k % 8) * CHUNK_BYTES;
    }

    static __device__ unsigned rounded_offset(unsigned row, unsigned chunk) { return transposed_offset(row, chunk); }
};

// The tile of kernels with many rows: 48 KiB of shared memory, which every device grants unasked.
using LargeTile = TileShape<GEMM_TILE, GEMM_TILE, 3>;
static_assert(LargeTile::STEPS == 1 && LargeTile::THREADS == GEMM_THREADS && LargeTile::SHARED_BYTES == GEMM_SHARED_BYTES, "as the host has it");

__device__ inline unsigned tile_offset(unsigned row, unsigned chunk) {
    return row * (K_STEP * 2) + (chunk ^ (row & 2) ^ (row >> 2 & 1)) * CHUNK_BYTES;
}

// The chunks that a thread copies of a k-step of A or of B, where k is dense: `step_chunk(0)` and `step_chunk(1)` of
// row `step_row()`. Two threads together read 32 bytes, a sector.
__device__ inline unsigned step_row() { return threadIdx.x / 2; }
__device__ inline unsigned step_chunk(unsigned i) { return threadIdx.x % 2 + 2 * i; }

// A thread's accumulators of the tile.
template <typename Tile>
struct TileSums {
    float fragment[Tile::ROW_FRAGMENTS][Tile::COLUMN_FRAGMENTS][4];
};

// Copies the first `count` numbers of a chunk to shared memory and fills the rest with zeros. `aligned`:
// asynchronously, and all 8 or none.
__device__ inline void copy_chunk(unsigned char *to, const uint16_t *from, unsigned count, bool aligned) {
    if (aligned) {
        // nvcc makes a predicate of a choice of two sizes, but address arithmetic of a size that it must compute.
        cp_async_16_zero_filled(shared_address(to), from, count > 0 ? CHUNK_BYTES : 0);
    } else {
        *reinterpret_cast<Chunk *>(to) = load_chunk(from, count, false);
    }
}

// Adds the product of one k-step, whose A and B begin at addresses `a` and `b` of shared memory.
template <typename Tile, bool Transposed>
__device__ void multiply_step(TileSums<Tile> &sums, uint32_t a, uint32_t b) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned k = 0; k < K_STEP; k += 16) {
        // b_pair[j] holds columns 16 j .. 16 j + 15: (columns 0-7, k 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15).
        uint32_t b_pair[Tile::COLUMN_FRAGMENTS / 2][4];
        const unsigned column = Tile::first_column();
#pragma unroll
        for (unsigned j = 0; j < Tile::COLUMN_FRAGMENTS / 2; ++j) {
            if (Transposed) {
                const unsigned row = k + lane % 16, chunk = column / CHUNK + lane / 16 + 2 * j;
                ldmatrix_x4_transposed(b_pair[j], b + Tile::transposed_offset(row, chunk));
            } else {
                const unsigned offset = tile_offset(column + lane / 16 * 8 + lane % 8, k / CHUNK + lane / 8 % 2);
                ldmatrix_x4(b_pair[j], b + offset + j * (16 * K_STEP * 2));
            }
        }
        const unsigned offset = tile_offset(Tile::first_row() + lane % 16, k / CHUNK + lane / 16);
#pragma unroll
        for (unsigned i = 0; i < Tile::ROW_FRAGMENTS; ++i) {
            uint32_t a_fragment[4];
            ldmatrix_x4(a_fragment, a + offset + i * (16 * K_STEP * 2));
#pragma unroll
            for (unsigned j = 0; j < Tile::COLUMN_FRAGMENTS; ++j) {
                const uint32_t(&pair)[4] = b_pair[j / 2];
                mma_bf16(sums.fragment[i][j], a_fragment, pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
            }
        }
    }
}

// Adds the products of all k-steps. `begin(step, place)` starts a k-step's copies to its place in a stage; `finish(place)`,
// called a multiplication later, completes the same k-step by what the thread stores itself. Of more than one k-step in a
// stage, `begin` has to fill those past the last one with zeros. Only the first `rows` rows of the tile exist: a warp that
// has none of them only copies. Shared memory is free for other use afterwards.
template <typename Tile, bool Transposed, typename Begin, typename Finish>
__device__ void multiply_tile(TileSums<Tile> &sums, unsigned steps, unsigned rows, unsigned char *shared, Begin begin,
                              Finish finish) {
    constexpr unsigned STAGES = Tile::STAGES, STEPS = Tile::STEPS, STAGE_BYTES = Tile::STAGE_BYTES;
    const auto begin_stage = [&](unsigned first, unsigned char *stage) {
#pragma unroll
        for (unsigned i = 0; i < STEPS; ++i) {
            begin(first + i, stage + i * Tile::STEP_BYTES);
        }
    };
    const auto finish_stage = [&](unsigned char *stage) {
#pragma unroll
        for (unsigned i = 0; i < STEPS; ++i) {
            finish(stage + i * Tile::STEP_BYTES);
        }
    };
    for (unsigned stage = 0; stage < STAGES - 1; ++stage) {
        if (stage * STEPS < steps) {
            begin_stage(stage * STEPS, shared + stage * STAGE_BYTES);
            finish_stage(shared + stage * STAGE_BYTES);
        }
        cp_async_commit();
    }
    const bool idle = Tile::first_row() >= rows;
    unsigned char *current = shared, *next = shared + (STAGES - 1) * STAGE_BYTES;
    for (unsigned step = 0; step < steps; step += STEPS) {
        // After the barrier, all threads see this stage, and none reads the one that `begin` overwrites any more.
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        const bool more = step + (STAGES - 1) * STEPS < steps;
        if (more) {
            begin_stage(step + (STAGES - 1) * STEPS, next);
        }
        cp_async_commit();
        if (!idle) {
#pragma unroll
            for (unsigned i = 0; i < STEPS; ++i) {
                const uint32_t a = shared_address(current + i * Tile::STEP_BYTES);
                multiply_step<Tile, Transposed>(sums, a, a + Tile::A_BYTES);
            }
        }
        if (more) {
            finish_stage(next);
        }
        next = current;
        current = current == shared + (STAGES - 1) * STAGE_BYTES ? shared : current + STAGE_BYTES;
    }
    __syncthreads();
}

// Rounds the sums into shared memory, after adding `bias` (null: none), which has the first `columns` columns.
template <typename Tile>
__device__ void round_tile(const TileSums<Tile> &sums, const float *bias, unsigned columns, unsigned char *shared) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned j = 0; j < Tile::COLUMN_FRAGMENTS; ++j) {
        const unsigned column = Tile::first_column() + 8 * j, own = column + 2 * (lane % 4);
        const float low = bias != nullptr && own < columns ? __ldg(bias + own) : 0.0f;
        const float high = bias != nullptr && own + 1 < columns ? __ldg(bias + own + 1) : 0.0f;
#pragma unroll
        for (unsigned i = 0; i < Tile::ROW_FRAGMENTS; ++i) {
            const float(&d)[4] = sums.fragment[i][j];
            const unsigned row = Tile::first_row() + 16 * i + lane / 4;
            unsigned char *to = shared + Tile::rounded_offset(row, column / CHUNK) + lane % 4 * 4;
            *reinterpret_cast<uint32_t *>(to) = bf16x2_from_f32(d[0] + low, d[1] + high);
            *reinterpret_cast<uint32_t *>(to + 8 * Tile::COLUMNS * 2) = bf16x2_from_f32(d[2] + low, d[3] + high);
        }
    }
    __syncthreads();
}

// Writes the first rows and columns of the rounded tile to global memory: column c of row r to `row_start(r)` plus
// `column_offset(c)` elements. `aligned`: a chunk of columns is contiguous there, and 16-byte aligned.
template <typename Tile, typename RowStart, typename ColumnOffset>
__device__ void store_tile(const unsigned char *shared, unsigned rows, unsigned columns, bool aligned,
                           RowStart row_start, ColumnOffset column_offset) {
    const unsigned chunk = threadIdx.x % Tile::CHUNKS, column = chunk * CHUNK;
    const unsigned count = chunk_count(column, columns);
    if (count == 0) {
        return;
    }
    if (aligned) {
        const size_t offset = column_offset(column);
        for (unsigned row = threadIdx.x / Tile::CHUNKS; row < rows; row += Tile::THREADS / Tile::CHUNKS) {
            const Chunk *from = reinterpret_cast<const Chunk *>(shared + Tile::rounded_offset(row, chunk));
            store_chunk(row_start(row) + offset, *from, CHUNK, true);
        }
    } else {
        for (unsigned i = 0; i < count; ++i) {
            const size_t offset = column_offset(column + i);
            for (unsigned row = threadIdx.x / Tile::CHUNKS; row < rows; row += Tile::THREADS / Tile::CHUNKS) {
                const auto *from = reinterpret_cast<const uint16_t *>(shared + Tile::rounded_offset(row, chunk));
                row_start(row)[offset] = from[i];
            }
        }
    }
}
