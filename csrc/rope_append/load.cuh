// Loads the values of a run into a warp's registers: chunks of bf16 or f32 rows, 16 bytes at a time where the row is
// aligned to that, else one by one.
#pragma once

#include "../cache/quantize.cuh"
#include "../common/chunk.cuh"
#include "../ptx/convert.cuh"

// A lane's values of a run as bf16 rows in memory have them.
typedef Chunk LaneChunks[HALVES];

template <typename Element>
__device__ bool is_aligned(const Element *address) {
    return reinterpret_cast<uintptr_t>(address) % CHUNK_BYTES == 0;
}

// Values `start` to `start + 7` of a row of f32; zeros past its end.
__device__ inline void load_values(const float *row, unsigned start, unsigned width, float (&values)[CHUNK]) {
    const unsigned left = chunk_count(start, width);
    if (left == CHUNK && is_aligned(row)) {
        const float4 low = __ldg(reinterpret_cast<const float4 *>(row + start));
        const float4 high = __ldg(reinterpret_cast<const float4 *>(row + start + 4));
        const float loaded[] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            values[j] = loaded[j];
        }
    } else {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            values[j] = j < left ? __ldg(row + start + j) : 0.0f;
        }
    }
}

// A lane's values of a run of a row of bf16; zeros past its end.
__device__ inline void load_run(const uint16_t *row, const LanePlace &place, unsigned width, LaneChunks &chunks) {
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = place.start(half), left = chunk_count(start, width);
        chunks[half] = load_chunk(row + start, left, left % CHUNK == 0 && is_aligned(row));
    }
}

__device__ inline void widen(const LaneChunks &chunks, LaneValues &values) {
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; j += 2) {
            values[half][j] = f32_from_bf16_low(chunks[half].pair[j / 2]);
            values[half][j + 1] = f32_from_bf16_high(chunks[half].pair[j / 2]);
        }
    }
}
