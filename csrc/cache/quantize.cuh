// Encodes values as the cache stores them: `src/cache/codec.rs` on the device, to the bit.
//
// A warp encodes a run of up to 512 values of a row at a time: lane l holds values 8 l .. 8 l + 7 of each of the run's
// two halves, which is a 32-bit word of int4 codes, 8 bytes of int8 codes or 16 bytes of bf16. A group of g values lies
// in g / 8 neighbouring lanes, a whole run in all lanes and both halves.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/reduce.cuh"
#include "../params.h"
#include "../ptx/convert.cuh"

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

constexpr float F16_MAX = 65504.0f;

// Smallest and largest finite value; lo > hi if there is none.
struct Bounds {
    float lo = CUDART_INF_F, hi = -CUDART_INF_F;

    __device__ void include(float lower, float upper) {
        lo = fminf(lo, lower);
        hi = fmaxf(hi, upper);
    }

    // The range between them that f16 can hold; 0 without values. Adding 0 turns -0 into +0.
    __device__ Bounds range() const {
        const bool any = lo <= hi;
        return {any ? __fadd_rn(fminf(fmaxf(lo, -F16_MAX), F16_MAX), 0.0f) : 0.0f,
                any ? __fadd_rn(fminf(fmaxf(hi, -F16_MAX), F16_MAX), 0.0f) : 0.0f};
    }

    // The maximum of lo and NaN is lo.
    __device__ float clamped(float value) const { return fminf(fmaxf(value, lo), hi); }
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

// How the range that a group's codes cover is chosen: `cache::RangeSetting`.
enum class RangeSetting { MinMax, Mse };

// A group's map from values to codes.
struct Quantizer {
    Bounds range; // that the codes cover
    float min, inverse;
    uint32_t affine;

    __device__ Quantizer(Bounds range, float max_code) : range(range) {
        const uint16_t min_bits = f16_from_f32_down(range.lo);
        min = f32_from_f16(min_bits);
        const uint16_t scale_bits = f16_from_f32_up(__fdiv_rn(__fsub_rn(range.hi, min), max_code));
        inverse = scale_bits == 0 ? 0.0f : __frcp_rn(f32_from_f16(scale_bits));
        affine = scale_bits | static_cast<uint32_t>(min_bits) << 16;
    }

    __device__ float scale() const { return f32_from_f16(static_cast<uint16_t>(affine)); }

    static constexpr float LARGEST_INT4 = 15.0f, LARGEST_INT8 = 255.0f;

    // ROUNDER + x is ROUNDER + the integer nearest to x, ties to even; its bits are those of ROUNDER plus that integer.
    static constexpr float ROUNDER = 12582912.0f; // 1.5 * 2^23
    static constexpr uint32_t ROUNDER_BITS = 0x4B400000;

    __device__ float steps(float value) const { return __fmul_rn(__fsub_rn(value, min), inverse); }

    // ROUNDER + the code of 4 bits.
    __device__ static float nearest_int4(float steps) {
        return fminf(fmaxf(__fadd_rn(steps, ROUNDER), ROUNDER), ROUNDER + LARGEST_INT4);
    }

    // ROUNDER_BITS + the code. With `Mse`, values are in the group's first range already, and may be outside of this
    // one. With `MinMax`, the nearest integer needs no clamping: as scale is at least (hi - min) / max_code, at most
    // three roundings of 2^-24 lift steps above max_code.
    template <RangeSetting RANGE>
    __device__ uint32_t biased_code(float value) const {
        if constexpr (RANGE == RangeSetting::Mse) {
            return __float_as_uint(nearest_int4(steps(value)));
        } else {
            return __float_as_uint(__fadd_rn(steps(range.clamped(value)), ROUNDER));
        }
    }

    // The sum of the squares of the distances, in steps, between values and their codes of 4 bits.
    __device__ float squared_distances(const float (&unit)[UNIT], unsigned left) const {
        float sum = 0.0f;
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            const float x = steps(unit[j]);
            const float distance = __fsub_rn(x, __fsub_rn(nearest_int4(x), ROUNDER));
            const float with_this = __fadd_rn(sum, __fmul_rn(distance, distance));
            sum = j < left ? with_this : sum;
        }
        return sum;
    }

    // 8 codes of 4 bits in one word: evens in the lower half, odds in the upper (`cache::NIBBLE_ORDER`). Those behind
    // the end of the row are 0.
    template <RangeSetting RANGE>
    __device__ uint32_t nibbles(const float (&unit)[UNIT], unsigned left) const {
        uint32_t word = 0;
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            word += (biased_code<RANGE>(unit[j]) << shift(j)) - (ROUNDER_BITS << shift(j));
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
            words[j / 4] += (biased_code<RangeSetting::MinMax>(unit[j]) << 8 * (j % 4)) - (ROUNDER_BITS << 8 * (j % 4));
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

__device__ inline float shuffled(float value, unsigned distance) { return __shfl_xor_sync(ALL_LANES, value, distance); }

__device__ inline Bounds shuffled(const Bounds &bounds, unsigned distance) {
    return {shuffled(bounds.lo, distance), shuffled(bounds.hi, distance)};
}

// Combines what lanes have of each half for those whose values share a group: both halves first if the run is one
// group, then a butterfly.
template <typename Value, typename Operation>
__device__ void reduce_groups(Value (&halves)[UNITS], unsigned group, Operation operation) {
    if (group == RUN) {
        halves[0] = operation(halves[0], halves[1]);
        halves[1] = halves[0];
    }
    for (unsigned distance = min(group / UNIT, WARP) / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (Value &half : halves) {
            half = operation(half, shuffled(half, distance));
        }
    }
}

// What `src/cache/range.rs` says of `Mse`: values that a group must have, the number of ranges, and the parts of the
// first that they are counted in.
constexpr unsigned MSE_LEAST_VALUES = 96, MSE_RANGES = 4;
constexpr float MSE_PARTS = 32.0f;

// Of a row of int4: replaces each group's range, which `values` are in, by the one with the smallest squared error.
__device__ inline void tighten(const StoredRow &row, unsigned run_start, const LaneValues &values,
                               Bounds (&ranges)[UNITS]) {
    Bounds first[UNITS];
    float least[UNITS];
    bool has_choice[UNITS];
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        first[half] = ranges[half];
        least[half] = CUDART_INF_F;
        // Groups are powers of two.
        const unsigned start = unit_start(run_start, half), group_start = start & ~(row.group - 1);
        has_choice[half] = start < row.width && min(row.width - group_start, row.group) >= MSE_LEAST_VALUES;
    }
    // One copy of the code: a warp alone on its multiprocessor waits for its instructions, too.
#pragma unroll 1
    for (unsigned k = 0; k < MSE_RANGES; ++k) {
        Bounds tried[UNITS];
        float errors[UNITS], scales[UNITS];
#pragma unroll
        for (unsigned half = 0; half < UNITS; ++half) {
            const auto &[lo, hi] = first[half];
            const float cut = __fmul_rn(__fsub_rn(hi, lo), static_cast<float>(k) / MSE_PARTS);
            tried[half] = {__fadd_rn(lo, cut), __fsub_rn(hi, cut)};
        }
        Quantizer quantizer(tried[0], Quantizer::LARGEST_INT4);
#pragma unroll
        for (unsigned half = 0; half < UNITS; ++half) {
            if (half > 0 && row.group < RUN) {
                quantizer = Quantizer(tried[half], Quantizer::LARGEST_INT4);
            }
            scales[half] = quantizer.scale();
            const unsigned left = values_left(unit_start(run_start, half), row.width);
            errors[half] = 0.0f;
            if (left == UNIT) {
                errors[half] = quantizer.squared_distances(values[half], UNIT);
            } else if (left > 0) {
                errors[half] = quantizer.squared_distances(values[half], left);
            }
        }
        reduce_groups(errors, row.group, [](float a, float b) { return __fadd_rn(a, b); });
#pragma unroll
        for (unsigned half = 0; half < UNITS; ++half) {
            const float error = __fmul_rn(errors[half], __fmul_rn(scales[half], scales[half]));
            if (has_choice[half] && scales[half] > 0.0f && error < least[half]) {
                least[half] = error;
                ranges[half] = tried[half];
            }
        }
    }
}

template <RangeSetting RANGE>
__device__ inline void store_quantized(const StoredRow &row, unsigned run_start, LaneValues &values) {
    Bounds bounds[UNITS];
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        blank(values[half], values_left(unit_start(run_start, half), row.width), CUDART_NAN_F);
        bounds[half] = finite_bounds(values[half]);
    }
    reduce_groups(bounds, row.group, [](Bounds a, const Bounds &b) {
        a.include(b.lo, b.hi);
        return a;
    });
    if constexpr (RANGE == RangeSetting::Mse) {
#pragma unroll
        for (unsigned half = 0; half < UNITS; ++half) {
            bounds[half] = bounds[half].range();
#pragma unroll
            for (float &value : values[half]) {
                value = bounds[half].clamped(value);
            }
        }
        // Later groups of the run have no more values than its first.
        const unsigned most = min(row.width - run_start, row.group);
        if (row.kind == ROW_INT4 && most >= MSE_LEAST_VALUES) {
            tighten(row, run_start, values, bounds);
        }
    }
    const float max_code = row.kind == ROW_INT4 ? Quantizer::LARGEST_INT4 : Quantizer::LARGEST_INT8;
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const unsigned start = unit_start(run_start, half), left = values_left(start, row.width);
        const Quantizer quantizer(bounds[half].range(), max_code);
        if (left > 0 && start % row.group == 0) {
            row.affine[start / row.group] = quantizer.affine;
        }
        if (row.kind == ROW_INT4) {
            const uint32_t word = quantizer.template nibbles<RANGE>(values[half], left);
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
template <RangeSetting RANGE>
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
        store_quantized<RANGE>(row, run_start, values);
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
