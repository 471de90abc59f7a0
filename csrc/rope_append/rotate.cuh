// Rotates pairs of dimensions: `src/rope/mod.rs` on the device, to the bit. With cosine c and sine s, a pair (a, b)
// becomes a' = a c - b s and b' = b c + a s, each operation rounded, none contracted.
//
// There are three ways:
//     rotate_chunks   aligned heads whose size is a power of two from 8 to 256. A lane rotates a chunk of 8 neighbouring
//                     dimensions at a time. No head lies in two halves of a run, and a chunk's partners (the other
//                     dimensions of its pairs) are in the same lane or, all of them, in one other: a shuffle.
//     rotate_pairs    any heads, from memory to memory: a lane rotates one pair at a time.
//     rotate_values   any heads, into registers: a lane rotates its chunk value by value, loading every partner again.
#pragma once

#include <stdint.h>

#include "../cache/quantize.cuh"
#include "../ptx/convert.cuh"
#include "load.cuh"

// What rotates a token's heads.
struct Rotation {
    const float *cos, *sin;     // f32 [frequencies] at the token's position
    const uint32_t *frequency;  // [rope heads, rope_dim / 2]
    unsigned rope_dim;
    bool interleaved;

    // Whether a chunk's partners are in another lane.
    __device__ bool crosses_lanes() const { return !interleaved && rope_dim > CHUNK; }
};

// A token's row of heads, [width / rope_dim, rope_dim].
struct Heads {
    const uint16_t *row;
    size_t stride;  // elements from one head to the next
    unsigned width;
    unsigned heads_per_rope_head;
};

__device__ inline bool rotates_in_chunks(unsigned rope_dim) {
    return rope_dim >= CHUNK && rope_dim <= HALF_RUN && (rope_dim & (rope_dim - 1)) == 0;
}

__device__ inline float f32_from_bf16(uint16_t bits) { return f32_from_bf16_low(bits); }

// One dimension, rotated. `signed_sin` is -s for the lower dimension of a pair and s for the upper.
__device__ inline float rotated(float own, float partner, float cos, float signed_sin) {
    return __fadd_rn(__fmul_rn(own, cos), __fmul_rn(partner, signed_sin));
}

// For each dimension of a chunk, the factor of itself (`cos`) and of its partner (`sin`). For the lower dimension of a
// pair, `sin` is -s: -(b s) and b (-s) are the same bits.
struct ChunkRotation {
    float cos[CHUNK], sin[CHUNK];

    // Loads those of the chunk that begins with dimension `dim` of a head.
    __device__ void load(const Rotation &rotation, unsigned rope_head, unsigned dim) {
        const unsigned pairs = rotation.rope_dim / 2;
        const unsigned pair = rotation.interleaved ? dim / 2 : dim & (pairs - 1);
        const uint32_t *frequency = rotation.frequency + size_t(rope_head) * pairs + pair;
        gather<0>(rotation, frequency);
        if (rotation.crosses_lanes()) {
            gather<4>(rotation, frequency + 4);
            if (dim < pairs) {
#pragma unroll
                for (float &s : sin) {
                    s = -s;
                }
            }
            return;
        }
        float c[CHUNK / 2], s[CHUNK / 2];
#pragma unroll
        for (unsigned j = 0; j < CHUNK / 2; ++j) {
            c[j] = cos[j];
            s[j] = sin[j];
        }
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            cos[j] = rotation.interleaved ? c[j / 2] : c[j % 4];
            sin[j] = rotation.interleaved ? (j % 2 == 0 ? -s[j / 2] : s[j / 2]) : (j < 4 ? -s[j % 4] : s[j % 4]);
        }
    }

  private:
    // Loads four factors from `First` on.
    template <unsigned First>
    __device__ void gather(const Rotation &rotation, const uint32_t *frequency) {
        const uint4 f = __ldg(reinterpret_cast<const uint4 *>(frequency));
        cos[First] = __ldg(rotation.cos + f.x);
        cos[First + 1] = __ldg(rotation.cos + f.y);
        cos[First + 2] = __ldg(rotation.cos + f.z);
        cos[First + 3] = __ldg(rotation.cos + f.w);
        sin[First] = __ldg(rotation.sin + f.x);
        sin[First + 1] = __ldg(rotation.sin + f.y);
        sin[First + 2] = __ldg(rotation.sin + f.z);
        sin[First + 3] = __ldg(rotation.sin + f.w);
    }
};

// The head in which a chunk lies, and the chunk's first dimension in it, for heads that are rotated in chunks.
struct ChunkPlace {
    unsigned head, dim;

    __device__ ChunkPlace(unsigned start, unsigned rope_dim)
        : head(start >> (__ffs(rope_dim) - 1)), dim(start & (rope_dim - 1)) {}
};

// Loads a lane's chunks of a run of heads; zeros past the end of the row. The position is not needed for it, so these
// loads do not wait for the one of the position.
__device__ inline void load_chunks(const Heads &heads, unsigned rope_dim, unsigned run_start, LaneChunks &chunks) {
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = chunk_start(run_start, half);
        const ChunkPlace place(start, rope_dim);
        chunks[half] = {};
        if (start < heads.width) {
            chunks[half] = *reinterpret_cast<const Chunk *>(heads.row + place.head * heads.stride + place.dim);
        }
    }
}

// The partners of a chunk's dimensions. All lanes of a warp call it.
__device__ inline Chunk partners(const Chunk &own, const Rotation &rotation) {
    const uint32_t(&pair)[CHUNK / 2] = own.pair;
    if (rotation.crosses_lanes()) {
        const unsigned distance = rotation.rope_dim / 2 / CHUNK;
        return {__shfl_xor_sync(ALL_LANES, pair[0], distance), __shfl_xor_sync(ALL_LANES, pair[1], distance),
                __shfl_xor_sync(ALL_LANES, pair[2], distance), __shfl_xor_sync(ALL_LANES, pair[3], distance)};
    }
    if (rotation.interleaved) {
        constexpr unsigned SWAP = 0x1032;  // the halves of a word
        return {__byte_perm(pair[0], 0, SWAP), __byte_perm(pair[1], 0, SWAP), __byte_perm(pair[2], 0, SWAP),
                __byte_perm(pair[3], 0, SWAP)};
    }
    return {pair[2], pair[3], pair[0], pair[1]};
}

// Rotates what `load_chunks` has loaded. All lanes of a warp call it.
__device__ inline void rotate_chunks(const Heads &heads, const Rotation &rotation, unsigned run_start,
                                     const LaneChunks &chunks, LaneValues &values) {
    ChunkRotation factors{};
    unsigned loaded = ~0u;
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const Chunk other = partners(chunks[half], rotation);
        const unsigned start = chunk_start(run_start, half);
        if (start < heads.width) {
            // A lane has the same dimensions of every head, so heads that share a rope head share the factors.
            const ChunkPlace place(start, rotation.rope_dim);
            const unsigned rope_head = place.head / heads.heads_per_rope_head;
            if (rope_head != loaded) {
                factors.load(rotation, rope_head, place.dim);
                loaded = rope_head;
            }
        }
#pragma unroll
        for (unsigned j = 0; j < CHUNK; j += 2) {
            const uint32_t own = chunks[half].pair[j / 2], partner = other.pair[j / 2];
            values[half][j] =
                rotated(f32_from_bf16_low(own), f32_from_bf16_low(partner), factors.cos[j], factors.sin[j]);
            values[half][j + 1] =
                rotated(f32_from_bf16_high(own), f32_from_bf16_high(partner), factors.cos[j + 1], factors.sin[j + 1]);
        }
    }
}

// Rotates a run of heads of any size and writes it to `target_row`, whose heads are `target_stride` elements apart.
// Each pair is read and written by one lane, so that source and target may be the same.
__device__ inline void rotate_pairs(const Heads &heads, const Rotation &rotation, unsigned run, uint16_t *target_row,
                                    size_t target_stride) {
    const unsigned pairs = rotation.rope_dim / 2, end = min(heads.width / 2, (run + 1) * (RUN / 2));
    for (unsigned i = run * (RUN / 2) + threadIdx.x % WARP; i < end; i += WARP) {
        const unsigned head = i / pairs, pair = i % pairs;
        const unsigned a = rotation.interleaved ? 2 * pair : pair, b = rotation.interleaved ? a + 1 : a + pairs;
        const size_t rope_head = head / heads.heads_per_rope_head;
        const uint32_t frequency = __ldg(rotation.frequency + rope_head * pairs + pair);
        const float cos = __ldg(rotation.cos + frequency), sin = __ldg(rotation.sin + frequency);
        const uint16_t *source = heads.row + head * heads.stride;
        uint16_t *target = target_row + head * target_stride;
        const float x = f32_from_bf16(source[a]), y = f32_from_bf16(source[b]);
        target[a] = bf16_from_f32(rotated(x, y, cos, -sin));
        target[b] = bf16_from_f32(rotated(y, x, cos, sin));
    }
}

// Rotates a lane's chunk of a row of heads of any size, one head per rope head. Zeros past the end of the row.
__device__ inline void rotate_values(const Heads &heads, const Rotation &rotation, unsigned start,
                                     float (&values)[CHUNK]) {
    const unsigned left = chunk_count(start, heads.width), pairs = rotation.rope_dim / 2;
    unsigned head = start / rotation.rope_dim, dim = start % rotation.rope_dim;
#pragma unroll
    for (unsigned j = 0; j < CHUNK; ++j) {
        values[j] = 0.0f;
        if (j < left) {
            const bool lower = rotation.interleaved ? dim % 2 == 0 : dim < pairs;
            const unsigned distance = rotation.interleaved ? 1 : pairs;
            const unsigned pair = rotation.interleaved ? dim / 2 : (lower ? dim : dim - pairs);
            const uint16_t *row = heads.row + head * heads.stride;
            const float own = f32_from_bf16(__ldg(row + dim));
            const float partner = f32_from_bf16(__ldg(row + (lower ? dim + distance : dim - distance)));
            const uint32_t frequency = __ldg(rotation.frequency + size_t(head) * pairs + pair);
            const float sin = __ldg(rotation.sin + frequency);
            values[j] = rotated(own, partner, __ldg(rotation.cos + frequency), lower ? -sin : sin);
        }
        if (++dim == rotation.rope_dim) {
            dim = 0;
            ++head;
        }
    }
}

// Loads a lane's chunk of a row of heads of any size without rotating it. Zeros past the end of the row.
__device__ inline void load_head_values(const Heads &heads, unsigned rope_dim, unsigned start,
                                        float (&values)[CHUNK]) {
    const unsigned left = chunk_count(start, heads.width);
    unsigned head = start / rope_dim, dim = start % rope_dim;
#pragma unroll
    for (unsigned j = 0; j < CHUNK; ++j) {
        values[j] = j < left ? f32_from_bf16(__ldg(heads.row + head * heads.stride + dim)) : 0.0f;
        if (++dim == rope_dim) {
            dim = 0;
            ++head;
        }
    }
}
