// Encodes values as the cache stores them: `src/cache/codec.rs` on the device, to the bit.
//
// A warp encodes a run of up to 512 values of a row at a time: lane l holds values 8 l .. 8 l + 7 of each of the run's
// two halves, which is a 32-bit word of int4 codes, 8 bytes of int8 codes or 16 bytes of bf16. A group of g values lies
// in g / 8 neighbouring lanes, a whole run in all lanes and both halves.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../params.h"
#include "../ptx/convert.cuh"
#include "reduce.cuh"

constexpr unsigned UNIT = 8, UNITS = 2, HALF_RUN = WARP * UNIT, RUN = UNITS * HALF_RUN;
static_assert(RUN == ROPE_APPEND_RUN, "the host divides rows into other runs");

// The values of a run that one lane holds, and the same as bf16 in memory has them.
typedef float LaneValues[UNITS][UNIT];
typedef uint4 LaneUnits[UNITS];

// Place in the row of the first of a lane's values of one half of a run.
__device__ inline unsigned unit_start(unsigned run_start, unsigned half) {
    return run_start + half * HALF_RUN + threadIdx.x % WARP * UNIT;
}

// How many of the `UNIT` values from `start` on are still in the row.
__device__ inline unsigned values_left(unsigned start, unsigned width) {
    return start < width ? min(width - start, UNIT) : 0;
}

// One token's row in a page.
struct StoredRow {
    uint8_t *bytes;     // 16-byte aligned
    uint32_t *affine;   // (scale, min) of its groups
    unsigned row_bytes; // padding included, a multiple of 16
    unsigned width, kind, group;
};

// Replaces what is behind the end of the row.
__device__ inline void blank(float (&unit)[UNIT], unsigned left, float with) {
    if (left < UNIT) {
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            unit[j] = j < left ? unit[j] : with;
        }
    }
}

// Smallest and largest finite value; lo > hi if there is none.
struct Bounds {
    float lo = CUDART_INF_F, hi = -CUDART_INF_F;

    __device__ void include(float lower, float upper) {
        lo = fminf(lo, lower);
        hi = fmaxf(hi, upper);
    }
};

__device__ inline Bounds finite_bounds(const float (&unit)[UNIT]) {
    Bounds bounds;
#pragma unroll
    for (float value : unit) {
        // Minimum and maximum pass over NaN.
        const float finite = fabsf(value) < CUDART_INF_F ? value : CUDART_NAN_F;
        bounds.include(finite, finite);
    }
    return bounds;
}

constexpr float F16_MAX = 65504.0f;

// A group's map from values to codes.
struct Quantizer {
    float lo, hi, min, inverse;
    uint32_t affine;

    __device__ Quantizer(Bounds bounds, float max_code) {
        const bool any = bounds.lo <= bounds.hi;
        // Adding 0 turns -0 into +0.
        lo = any ? __fadd_rn(fminf(fmaxf(bounds.lo, -F16_MAX), F16_MAX), 0.0f) : 0.0f;
        hi = any ? __fadd_rn(fminf(fmaxf(bounds.hi, -F16_MAX), F16_MAX), 0.0f) : 0.0f;
        const uint16_t min_bits = f16_from_f32_down(lo);
        min = f32_from_f16(min_bits);
        const uint16_t scale_bits = f16_from_f32_up(__fdiv_rn(__fsub_rn(hi, min), max_code));
        inverse = scale_bits == 0 ? 0.0f : __frcp_rn(f32_from_f16(scale_bits));
        affine = scale_bits | static_cast<uint32_t>(min_bits) << 16;
    }

    // ROUNDER + x is ROUNDER + the integer nearest to x, ties to even; its bits are those of ROUNDER plus that integer.
    static constexpr float ROUNDER = 12582912.0f; // 1.5 * 2^23
    static constexpr uint32_t ROUNDER_BITS = 0x4B400000;

    // ROUNDER_BITS + the code. As scale is at least (hi - min) / max_code, at most three roundings of 2^-24 lift x
    // above max_code: the nearest integer needs no clamping.
    __device__ uint32_t biased_code(float value) const {
        // The maximum of lo and NaN is lo.
        const float inside = fminf(fmaxf(value, lo), hi);
        const float x = __fmul_rn(__fsub_rn(inside, min), inverse);
        return __float_as_uint(__fadd_rn(x, ROUNDER));
    }

    // 8 codes of 4 bits in one word: evens in the lower half, odds in the upper (`cache::NIBBLE_ORDER`). Those behind
    // the end of the row are 0.
    __device__ uint32_t nibbles(const float (&unit)[UNIT], unsigned left) const {
        uint32_t word = 0;
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            word += (biased_code(unit[j]) << shift(j)) - (ROUNDER_BITS << shift(j));
        }
        if (left < UNIT) {
#pragma unroll
            for (unsigned j = 0; j < UNIT; ++j) {
                word &= j < left ? 0xFFFFFFFF : ~(15u << shift(j));
            }
        }
        return word;
    }

    // 8 codes of 8 bits, in their order.
    __device__ uint2 bytes(const float (&unit)[UNIT], unsigned left) const {
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            words[j / 4] += (biased_code(unit[j]) << 8 * (j % 4)) - (ROUNDER_BITS << 8 * (j % 4));
        }
        if (left < UNIT) {
            const uint64_t kept = (uint64_t(1) << 8 * left) - 1;
            words[0] &= static_cast<uint32_t>(kept);
            words[1] &= static_cast<uint32_t>(kept >> 32);
        }
        return {words[0], words[1]};
    }

    __device__ static constexpr unsigned shift(unsigned j) { return 4 * (j / 2) + 16 * (j % 2); }
};

__device__ inline void store_quantized(const StoredRow &row, unsigned run_start, LaneValues &values) {
    Bounds bounds[UNITS];
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        blank(values[half], values_left(unit_start(run_start, half), row.width), CUDART_NAN_F);
        bounds[half] = finite_bounds(values[half]);
    }
    if (row.group == RUN) {
        bounds[0].include(bounds[1].lo, bounds[1].hi);
        bounds[1] = bounds[0];
    }
    for (unsigned distance = min(row.group / UNIT, WARP) / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (Bounds &b : bounds) {
            b.include(__shfl_xor_sync(ALL_LANES, b.lo, distance), __shfl_xor_sync(ALL_LANES, b.hi, distance));
        }
    }
    const float max_code = row.kind == ROW_INT4 ? 15.0f : 255.0f;
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const unsigned start = unit_start(run_start, half), left = values_left(start, row.width);
        const Quantizer quantizer(bounds[half], max_code);
        if (left > 0 && start % row.group == 0) {
            row.affine[start / row.group] = quantizer.affine;
        }
        if (row.kind == ROW_INT4) {
            const uint32_t word = quantizer.nibbles(values[half], left);
            if (start / 2 < row.row_bytes) {
                *reinterpret_cast<uint32_t *>(row.bytes + start / 2) = word;
            }
        } else {
            const uint2 words = quantizer.bytes(values[half], left);
            if (start < row.row_bytes) {
                *reinterpret_cast<uint2 *>(row.bytes + start) = words;
            }
        }
    }
}

__device__ inline uint4 bf16_from_unit(const float (&unit)[UNIT]) {
    return {bf16x2_from_f32(unit[0], unit[1]), bf16x2_from_f32(unit[2], unit[3]), bf16x2_from_f32(unit[4], unit[5]),
            bf16x2_from_f32(unit[6], unit[7])};
}

// Stores the values of one run, and the row's padding if they are its last. All lanes of a warp call it, which may
// change their `values`. Returns how many of this lane's values were not finite or beyond what the row can hold.
__device__ inline unsigned store_run(const StoredRow &row, unsigned run_start, LaneValues &values) {
    const float largest = row.kind == ROW_BF16 ? CUDART_MAX_NORMAL_F : F16_MAX;
    unsigned saturated = 0;
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        blank(values[half], values_left(unit_start(run_start, half), row.width), 0.0f);
#pragma unroll
        for (float value : values[half]) {
            saturated += !(fabsf(value) <= largest);
        }
    }
    if (row.kind != ROW_BF16) {
        store_quantized(row, run_start, values);
        return saturated;
    }
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const unsigned start = unit_start(run_start, half);
        if (start < row.width) {
            // The conversion makes 0x7FFF of every NaN, as the cache has it.
            *reinterpret_cast<uint4 *>(row.bytes + 2 * start) = bf16_from_unit(values[half]);
        }
    }
    return saturated;
}
