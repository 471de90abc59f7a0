// A tile of a product of matrices, 128 rows and 128 columns of sum_k A[r, k] B[k, c], for kernels that give every tile
// a block of GEMM_THREADS threads. A and B are bf16, sums f32.
//
// The kernel brings slices of 32 k into shared memory, two ahead of the one that is multiplied. GEMM_SHARED_BYTES of
// shared memory hold three slices, each:
//     A [128 rows x 32 k], 8 KiB, chunk c of row r at `tile_offset(r, c)`
//     B [128 columns x 32 k], 8 KiB, likewise; or transposed, [32 k x 128 columns], at `transposed_offset(k, c)`
// and afterwards, in their place, the rounded tile [128 x 128], 32 KiB, with the chunks of `rounded_offset(r, c)`.
// What these offsets add to rows and chunks puts the 8 chunks that an `ldmatrix` reads at a time, and those that 8
// threads write, into different banks.
//
// Accumulators: warp w owns rows 64 (w / 4) .. + 63 and columns 32 (w % 4) .. + 31, in 4 x 4 fragments of m16n8k16.
// Per slice and warp, 12 `ldmatrix` of 512 bytes feed 32 MMAs.
#pragma once

#include "../params.h"
#include "../ptx/address.cuh"
#include "../ptx/convert.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "chunk.cuh"
#include "reduce.cuh"

// k of a slice, slices in shared memory, bytes of a slice of A and of both.
constexpr unsigned SLICE = 32, STAGES = 3, OPERAND_BYTES = GEMM_TILE * SLICE * 2, STAGE_BYTES = 2 * OPERAND_BYTES;
static_assert(STAGES * STAGE_BYTES == GEMM_SHARED_BYTES, "the slices fill the shared memory");
static_assert(GEMM_TILE * GEMM_TILE * 2 <= GEMM_SHARED_BYTES, "the rounded tile fits in their place");

// Chunks of a row of a slice, and of a row of the tile.
constexpr unsigned SLICE_CHUNKS = SLICE / CHUNK, TILE_CHUNKS = GEMM_TILE / CHUNK;

__device__ inline unsigned tile_offset(unsigned row, unsigned chunk) {
    return row * (SLICE * 2) + (chunk ^ (row & 2) ^ (row >> 2 & 1)) * CHUNK_BYTES;
}

__device__ inline unsigned transposed_offset(unsigned k, unsigned chunk) {
    return k * (GEMM_TILE * 2) + (chunk ^ k % 8) * CHUNK_BYTES;
}

__device__ inline unsigned rounded_offset(unsigned row, unsigned chunk) { return transposed_offset(row, chunk); }

// The chunks of [row][k] that a thread brings into a slice, of A or of B: `slice_chunk(0)` and `slice_chunk(1)` of row
// `slice_row()`. Two threads together read 32 bytes, a sector.
__device__ inline unsigned slice_row() { return threadIdx.x / 2; }
__device__ inline unsigned slice_chunk(unsigned i) { return threadIdx.x % 2 + 2 * i; }

// The fragments that a thread has of the tile.
struct TileSums {
    float fragment[4][4][4];

    static __device__ unsigned first_row() { return threadIdx.x / WARP / 4 * 64; }
    static __device__ unsigned first_column() { return threadIdx.x / WARP % 4 * 32; }
};

// Brings the first `count` numbers of a chunk into shared memory, and zeros behind them. `aligned`: asynchronously, all
// 8 or none.
__device__ inline void copy_chunk(unsigned char *to, const uint16_t *from, unsigned count, bool aligned) {
    if (aligned) {
        // Of all or nothing, nvcc makes a predicate; of a count, arithmetic on addresses.
        cp_async_16_zero_filled(shared_address(to), from, count > 0 ? CHUNK_BYTES : 0);
    } else {
        *reinterpret_cast<Chunk *>(to) = load_chunk<false>(from, count);
    }
}

// Adds the product of one slice; a and b are its addresses in shared memory.
template <bool Transposed>
__device__ void multiply_slice(TileSums &sums, uint32_t a, uint32_t b) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned k = 0; k < SLICE; k += 16) {
        // b_pair[j] holds columns 16 j .. 16 j + 15: (columns 0-7, k 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15).
        uint32_t b_pair[2][4];
        const unsigned column = TileSums::first_column();
        if (Transposed) {
            const unsigned row = k + lane % 16, chunk = column / CHUNK + lane / 16;
            ldmatrix_x4_transposed(b_pair[0], b + transposed_offset(row, chunk));
            ldmatrix_x4_transposed(b_pair[1], b + transposed_offset(row, chunk + 2));
        } else {
            const unsigned offset = tile_offset(column + lane / 16 * 8 + lane % 8, k / CHUNK + lane / 8 % 2);
            ldmatrix_x4(b_pair[0], b + offset);
            ldmatrix_x4(b_pair[1], b + offset + 16 * SLICE * 2);
        }
        const unsigned offset = tile_offset(TileSums::first_row() + lane % 16, k / CHUNK + lane / 16);
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            uint32_t a_fragment[4];
            ldmatrix_x4(a_fragment, a + offset + i * (16 * SLICE * 2));
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                const uint32_t(&pair)[4] = b_pair[j / 2];
                mma_bf16(sums.fragment[i][j], a_fragment, pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
            }
        }
    }
}

// Adds the products of all slices. `begin(slice, stage)` starts bringing a slice to its place in shared memory, and
// `finish(stage)`, called a multiplication later, does for the same slice what a thread must do with its own hands.
// `rows` of the tile's exist: a warp without any only copies. Ends with shared memory free for other use.
template <bool Transposed, typename Begin, typename Finish>
__device__ void multiply_tile(TileSums &sums, unsigned slices, unsigned rows, unsigned char *shared, Begin begin,
                              Finish finish) {
    for (unsigned slice = 0; slice < STAGES - 1; ++slice) {
        if (slice < slices) {
            begin(slice, shared + slice * STAGE_BYTES);
            finish(shared + slice * STAGE_BYTES);
        }
        cp_async_commit();
    }
    const bool idle = TileSums::first_row() >= rows;
    unsigned char *current = shared, *next = shared + (STAGES - 1) * STAGE_BYTES;
    for (unsigned slice = 0; slice < slices; ++slice) {
        // The barrier shows all threads this slice, and says that all are done with the one whose place the next takes.
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        const bool more = slice + STAGES - 1 < slices;
        if (more) {
            begin(slice + STAGES - 1, next);
        }
        cp_async_commit();
        if (!idle) {
            const uint32_t a = shared_address(current);
            multiply_slice<Transposed>(sums, a, a + OPERAND_BYTES);
        }
        if (more) {
            finish(next);
        }
        next = current;
        current = current == shared + (STAGES - 1) * STAGE_BYTES ? shared : current + STAGE_BYTES;
    }
    __syncthreads();
}

// Rounds the sums, with `bias` added to those columns of the `columns` that exist (null: no bias), into shared memory.
__device__ inline void round_tile(const TileSums &sums, const float *bias, unsigned columns, unsigned char *shared) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
        const unsigned column = TileSums::first_column() + 8 * j, own = column + 2 * (lane % 4);
        const float low = bias != nullptr && own < columns ? __ldg(bias + own) : 0.0f;
        const float high = bias != nullptr && own + 1 < columns ? __ldg(bias + own + 1) : 0.0f;
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            const float(&d)[4] = sums.fragment[i][j];
            const unsigned row = TileSums::first_row() + 16 * i + lane / 4;
            unsigned char *to = shared + rounded_offset(row, column / CHUNK) + lane % 4 * 4;
            *reinterpret_cast<uint32_t *>(to) = bf16x2_from_f32(d[0] + low, d[1] + high);
            *reinterpret_cast<uint32_t *>(to + 8 * GEMM_TILE * 2) = bf16x2_from_f32(d[2] + low, d[3] + high);
        }
    }
    __syncthreads();
}

// Writes the rounded tile's first rows and columns to global memory. Row r begins at `row_start(r)`, and column c lies
// `column_offset(c)` elements behind; `aligned`: chunks of columns lie together, on 16 bytes.
template <typename RowStart, typename ColumnOffset>
__device__ void store_tile(const unsigned char *shared, unsigned rows, unsigned columns, bool aligned,
                           RowStart row_start, ColumnOffset column_offset) {
    const unsigned chunk = threadIdx.x % TILE_CHUNKS, column = chunk * CHUNK;
    const unsigned count = chunk_count(column, columns);
    if (count == 0) {
        return;
    }
    if (aligned) {
        const size_t offset = column_offset(column);
        for (unsigned row = threadIdx.x / TILE_CHUNKS; row < rows; row += GEMM_THREADS / TILE_CHUNKS) {
            const Chunk *from = reinterpret_cast<const Chunk *>(shared + rounded_offset(row, chunk));
            store_chunk(row_start(row) + offset, *from, CHUNK, true);
        }
    } else {
        for (unsigned i = 0; i < count; ++i) {
            const size_t offset = column_offset(column + i);
            for (unsigned row = threadIdx.x / TILE_CHUNKS; row < rows; row += GEMM_THREADS / TILE_CHUNKS) {
                const auto *from = reinterpret_cast<const uint16_t *>(shared + rounded_offset(row, chunk));
                row_start(row)[offset] = from[i];
            }
        }
    }
}
