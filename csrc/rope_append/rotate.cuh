// Turns pairs of dimensions: `src/rope/mod.rs` on the device, to the bit. For a pair (a, b) with cosine c and sine s,
// a' = a c - b s and b' = b c + a s, each operation rounded, none contracted.
//
// Heads whose size is a power of two from 8 to 256 are turned a unit of 8 neighbouring dimensions of a lane at a time:
// no head then lies in two halves of a run, and a unit's partners are in the same lane or, all of them, in one other.
#pragma once

#include <stdint.h>

#include "../cache/quantize.cuh"
#include "../ptx/convert.cuh"

// What turns a token's heads.
struct Rotation {
    const float *cos, *sin;    // f32 [frequencies] at the token's position
    const uint32_t *frequency; // [rope heads, rope_dim / 2]
    unsigned rope_dim;
    bool interleaved;

    // Whether partners are in another lane.
    __device__ bool crosses_lanes() const { return !interleaved && rope_dim > UNIT; }
};

// A token's row of heads, [width / rope_dim, rope_dim].
struct Heads {
    const uint16_t *row;
    size_t stride; // from one head to the next
    unsigned width;
    unsigned heads_per_rope_head;
};

__device__ inline bool turns_in_units(unsigned rope_dim) {
    return rope_dim >= UNIT && rope_dim <= HALF_RUN && (rope_dim & (rope_dim - 1)) == 0;
}

__device__ inline float f32_from_bf16(uint16_t bits) { return f32_from_bf16_low(bits); }

// For each dimension of a unit, its own factor and its partner's. A head's lower dimension of a pair loses the other's
// share, so `sin` is negative there: -(b s) and b (-s) are the same bits.
struct UnitRotation {
    float cos[UNIT], sin[UNIT];

    // Of the unit that begins with dimension `dim` of a head.
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
        float c[UNIT / 2], s[UNIT / 2];
#pragma unroll
        for (unsigned j = 0; j < UNIT / 2; ++j) {
            c[j] = cos[j];
            s[j] = sin[j];
        }
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            cos[j] = rotation.interleaved ? c[j / 2] : c[j % 4];
            sin[j] = rotation.interleaved ? (j % 2 == 0 ? -s[j / 2] : s[j / 2]) : (j < 4 ? -s[j % 4] : s[j % 4]);
        }
    }

  private:
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

__device__ inline float turned(float own, float partner, float cos, float signed_sin) {
    return __fadd_rn(__fmul_rn(own, cos), __fmul_rn(partner, signed_sin));
}

// Where a unit of heads that are turned in units lies.
struct UnitPlace {
    unsigned head, dim;

    __device__ UnitPlace(unsigned start, unsigned rope_dim)
        : head(start >> (__ffs(rope_dim) - 1)), dim(start & (rope_dim - 1)) {}
};

// A lane's dimensions of a run; zeros behind the end of the row. Nothing is asked of the position, so the loads need
// not wait for it.
__device__ inline void load_units(const Heads &heads, unsigned rope_dim, unsigned run_start, LaneUnits &units) {
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const unsigned start = unit_start(run_start, half);
        const UnitPlace place(start, rope_dim);
        units[half] = {};
        if (start < heads.width) {
            units[half] = *reinterpret_cast<const uint4 *>(heads.row + place.head * heads.stride + place.dim);
        }
    }
}

// The partners of a unit's dimensions. All lanes of a warp call it.
__device__ inline uint4 partners(uint4 own, const Rotation &rotation) {
    if (rotation.crosses_lanes()) {
        const unsigned distance = rotation.rope_dim / 2 / UNIT;
        return {__shfl_xor_sync(ALL_LANES, own.x, distance), __shfl_xor_sync(ALL_LANES, own.y, distance),
                __shfl_xor_sync(ALL_LANES, own.z, distance), __shfl_xor_sync(ALL_LANES, own.w, distance)};
    }
    if (rotation.interleaved) {
        constexpr unsigned SWAP = 0x1032; // the halves of a word
        return {__byte_perm(own.x, 0, SWAP), __byte_perm(own.y, 0, SWAP), __byte_perm(own.z, 0, SWAP),
                __byte_perm(own.w, 0, SWAP)};
    }
    return {own.z, own.w, own.x, own.y};
}

// Turns what `load_units` has loaded. All lanes of a warp call it.
__device__ inline void turn_units(const Heads &heads, const Rotation &rotation, unsigned run_start,
                                  const LaneUnits &units, LaneValues &values) {
    UnitRotation factors{};
    unsigned loaded = ~0u;
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const uint4 other = partners(units[half], rotation);
        const uint32_t own_pairs[] = {units[half].x, units[half].y, units[half].z, units[half].w};
        const uint32_t other_pairs[] = {other.x, other.y, other.z, other.w};
        const unsigned start = unit_start(run_start, half);
        if (start < heads.width) {
            // The same dimensions of every head fall to a lane, so heads that share a rope head share the factors.
            const UnitPlace place(start, rotation.rope_dim);
            const unsigned rope_head = place.head / heads.heads_per_rope_head;
            if (rope_head != loaded) {
                factors.load(rotation, rope_head, place.dim);
                loaded = rope_head;
            }
        }
#pragma unroll
        for (unsigned j = 0; j < UNIT; j += 2) {
            const uint32_t own = own_pairs[j / 2], partner = other_pairs[j / 2];
            values[half][j] =
                turned(f32_from_bf16_low(own), f32_from_bf16_low(partner), factors.cos[j], factors.sin[j]);
            values[half][j + 1] =
                turned(f32_from_bf16_high(own), f32_from_bf16_high(partner), factors.cos[j + 1], factors.sin[j + 1]);
        }
    }
}

// A lane's unit of a row with one head per rope head, turned, for heads of any size. Zeros behind the end of the row.
__device__ inline void turn_any_unit(const Heads &heads, const Rotation &rotation, unsigned start,
                                     float (&unit)[UNIT]) {
    const unsigned left = values_left(start, heads.width), pairs = rotation.rope_dim / 2;
    unsigned head = start / rotation.rope_dim, dim = start % rotation.rope_dim;
#pragma unroll
    for (unsigned j = 0; j < UNIT; ++j) {
        unit[j] = 0.0f;
        if (j < left) {
            const bool lower = rotation.interleaved ? dim % 2 == 0 : dim < pairs;
            const unsigned distance = rotation.interleaved ? 1 : pairs;
            const unsigned pair = rotation.interleaved ? dim / 2 : (lower ? dim : dim - pairs);
            const uint16_t *row = heads.row + head * heads.stride;
            const float own = f32_from_bf16(__ldg(row + dim));
            const float partner = f32_from_bf16(__ldg(row + (lower ? dim + distance : dim - distance)));
            const uint32_t frequency = __ldg(rotation.frequency + size_t(head) * pairs + pair);
            const float sin = __ldg(rotation.sin + frequency);
            unit[j] = turned(own, partner, __ldg(rotation.cos + frequency), lower ? -sin : sin);
        }
        if (++dim == rotation.rope_dim) {
            dim = 0;
            ++head;
        }
    }
}

// The same as it is, not turned.
__device__ inline void load_any_unit(const Heads &heads, unsigned rope_dim, unsigned start, float (&unit)[UNIT]) {
    const unsigned left = values_left(start, heads.width);
    unsigned head = start / rope_dim, dim = start % rope_dim;
#pragma unroll
    for (unsigned j = 0; j < UNIT; ++j) {
        unit[j] = j < left ? f32_from_bf16(__ldg(heads.row + head * heads.stride + dim)) : 0.0f;
        if (++dim == rope_dim) {
            dim = 0;
            ++head;
        }
    }
}
