// Rotates pairs of dimensions: `src/rope/mod.rs` on the device, to the bit. With cosine c and sine s, a pair (a, b)
// becomes a' = a c - b s and b' = b c + a s, each operation rounded, none contracted.
//
// There are three ways:
//     rotate_chunks   aligned heads whose size is a power of two from 8 to 256. A lane rotates two chunks of 8
//                     neighbouring dimensions, which are 8 pairs: each of both chunks where the dimensions of a pair are a
//                     chunk or more apart, else of one.
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

    // Whether a chunk's partners (the other dimensions of its pairs) are in another chunk.
    __device__ bool crosses_chunks() const { return !interleaved && rope_dim > CHUNK; }
};

// A token's row of heads, [width / rope_dim, rope_dim].
struct Heads {
    const uint16_t *row;
    size_t stride;  // elements from one head to the next
    unsigned width;
    unsigned heads, rope_heads;  // as many heads, one after the other, are rotated like the same rope head
    const float *factors, *gain;  // of normalised keys: f32 [heads], and [width]; else null

    // The rope head of a head. Divisions take longer than everything else here: most layers need none.
    __device__ unsigned rope_head(unsigned head) const {
        if (heads == rope_heads) {
            return head;
        }
        if (rope_heads == 1) {
            return 0;
        }
        if (((heads & (heads - 1)) | (rope_heads & (rope_heads - 1))) == 0) {
            return head >> (__ffs(heads) - __ffs(rope_heads));
        }
        return head / (heads / rope_heads);
    }

    // A number of a head as it is rotated: normalised if the heads are. `place` is its own among all of the row.
    __device__ float prepared(float value, unsigned head, unsigned place) const {
        return factors == nullptr ? value : __fmul_rn(__fmul_rn(value, __ldg(factors + head)), __ldg(gain + place));
    }
};

__device__ inline bool rotates_in_chunks(unsigned rope_dim) {
    return rope_dim >= CHUNK && rope_dim <= HALF_RUN && (rope_dim & (rope_dim - 1)) == 0;
}

__device__ inline float f32_from_bf16(uint16_t bits) { return f32_from_bf16_low(bits); }

// One dimension, rotated. `signed_sin` is -s for the lower dimension of a pair and s for the upper.
__device__ inline float rotated(float own, float partner, float cos, float signed_sin) {
    return __fadd_rn(__fmul_rn(own, cos), __fmul_rn(partner, signed_sin));
}

// The head in which a chunk lies, and the chunk's first dimension in it, for heads that are rotated in chunks.
struct ChunkPlace {
    unsigned head, dim;

    __device__ ChunkPlace(unsigned start, unsigned rope_dim)
        : head(start >> (__ffs(rope_dim) - 1)), dim(start & (rope_dim - 1)) {}
};

// Loads a lane's chunks of a run of heads; zeros past the end of the row. The position is not needed for it, so these
// loads do not wait for the one of the position.
__device__ inline void load_chunks(const Heads &heads, unsigned rope_dim, const LanePlace &lane, LaneChunks &chunks) {
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = lane.start(half);
        const ChunkPlace place(start, rope_dim);
        chunks[half] = {};
        if (start < heads.width) {
            chunks[half] = *reinterpret_cast<const Chunk *>(heads.row + place.head * heads.stride + place.dim);
        }
    }
}

// The cosines and sines of a lane's 8 pairs.
struct PairFactors {
    float cos[CHUNK], sin[CHUNK];

    // Loads those of four pairs from `First` on, whose frequencies stand at `frequency`.
    template <unsigned First>
    __device__ void load(const Rotation &rotation, const uint32_t *frequency) {
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

// Rotates the values of a lane's chunks. If partners are in another chunk, it is the lane's other one.
__device__ inline void rotate_chunks(const Heads &heads, const Rotation &rotation, const LanePlace &lane,
                                     LaneValues &values) {
    const unsigned pairs = rotation.rope_dim / 2;
    const auto frequency = [&](const ChunkPlace &place) {
        const unsigned pair = rotation.interleaved ? place.dim / 2 : place.dim;
        return rotation.frequency + size_t(heads.rope_head(place.head)) * pairs + pair;
    };
    PairFactors factors{};
    if (lane.start(0) < heads.width) {
        const uint32_t *first = frequency(ChunkPlace(lane.start(0), rotation.rope_dim));
        factors.load<0>(rotation, first);
        if (rotation.crosses_chunks()) {
            factors.load<4>(rotation, first + 4);
        } else if (lane.start(1) < heads.width) {
            factors.load<4>(rotation, frequency(ChunkPlace(lane.start(1), rotation.rope_dim)));
        }
    }
    const auto rotate = [&factors](unsigned pair, float &a, float &b) {
        const float lower = a, upper = b, cos = factors.cos[pair], sin = factors.sin[pair];
        a = rotated(lower, upper, cos, -sin);
        b = rotated(upper, lower, cos, sin);
    };
    if (rotation.crosses_chunks()) {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            rotate(j, values[0][j], values[1][j]);
        }
    } else if (rotation.interleaved) {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            rotate(j, values[j / 4][j % 4 * 2], values[j / 4][j % 4 * 2 + 1]);
        }
    } else {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            rotate(j, values[j / 4][j % 4], values[j / 4][j % 4 + 4]);
        }
    }
}

// Normalises the values of a lane's chunks of heads that are rotated in chunks.
__device__ inline void normalise_chunks(const Heads &heads, unsigned rope_dim, const LanePlace &lane,
                                        LaneValues &values) {
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = lane.start(half);
        if (start < heads.width) {
            float gain[CHUNK];
            load_values(heads.gain, start, heads.width, gain);
            const float factor = __ldg(heads.factors + ChunkPlace(start, rope_dim).head);
#pragma unroll
            for (unsigned j = 0; j < CHUNK; ++j) {
                values[half][j] = __fmul_rn(__fmul_rn(values[half][j], factor), gain[j]);
            }
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
        const size_t rope_head = heads.rope_head(head);
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
            const unsigned other = lower ? dim + distance : dim - distance, first = head * rotation.rope_dim;
            const float own = heads.prepared(f32_from_bf16(__ldg(row + dim)), head, first + dim);
            const float partner = heads.prepared(f32_from_bf16(__ldg(row + other)), head, first + other);
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
        const float value = j < left ? f32_from_bf16(__ldg(heads.row + head * heads.stride + dim)) : 0.0f;
        values[j] = j < left ? heads.prepared(value, head, start + j) : 0.0f;
        if (++dim == rope_dim) {
            dim = 0;
            ++head;
        }
    }
}
