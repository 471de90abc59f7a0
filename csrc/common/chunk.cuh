// Chunks: 16 bytes, 8 numbers of 16 bits. The widest access of a thread, and one row of what `ldmatrix` loads.
#pragma once

#include <stdint.h>

constexpr unsigned CHUNK = 8, CHUNK_BYTES = 16;

// pair[i] holds numbers 2 i (bits 15..0) and 2 i + 1.
struct alignas(CHUNK_BYTES) Chunk {
    uint32_t pair[CHUNK / 2];
};

// How many numbers a row of `width` has from `k` on, up to those of a chunk.
__device__ inline unsigned chunk_count(unsigned k, unsigned width) { return k < width ? min(CHUNK, width - k) : 0; }

// Loads all 8 numbers, in one access.
__device__ inline Chunk load_chunk(const uint16_t *from) {
    const uint4 words = __ldg(reinterpret_cast<const uint4 *>(from));
    return {words.x, words.y, words.z, words.w};
}

// Loads the first `count` numbers; the others are 0. `aligned`: in one access, of all 8 or none.
__device__ inline Chunk load_chunk(const uint16_t *from, unsigned count, bool aligned) {
    Chunk chunk{};
    if (aligned) {
        if (count > 0) {
            chunk = load_chunk(from);
        }
    } else {
#pragma unroll
        for (unsigned i = 0; i < CHUNK; ++i) {
            const uint32_t bits = i < count ? __ldg(from + i) : 0;
            chunk.pair[i / 2] |= bits << (16 * (i % 2));
        }
    }
    return chunk;
}

// Stores the first `count` numbers. `aligned`: in one access, of all 8 or none.
__device__ inline void store_chunk(uint16_t *to, const Chunk &chunk, unsigned count, bool aligned) {
    if (!aligned) {
#pragma unroll
        for (unsigned i = 0; i < CHUNK; ++i) {
            if (i < count) {
                to[i] = static_cast<uint16_t>(chunk.pair[i / 2] >> (16 * (i % 2)));
            }
        }
    } else if (count > 0) {
        *reinterpret_cast<uint4 *>(to) = {chunk.pair[0], chunk.pair[1], chunk.pair[2], chunk.pair[3]};
    }
}
