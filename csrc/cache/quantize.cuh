// Encodes values as the cache stores them: `src/cache/codec.rs` on the device, to the bit.
//
// A warp encodes a run of up to 512 values of a row at a time. Lane l holds values 8 l .. 8 l + 7 of each of the run's
// two halves, a chunk, which is a 32-bit word of int4 codes, 8 bytes of int8 codes or 16 bytes of bf16. A group of g
// values lies in g / 8 neighbouring lanes; one of 512 is the whole run, all lanes and both halves.
//
//     store_run:
//         for each half: bounds = the lane's smallest and largest value
//         if quantised, not Mse, chunks are whole, and f16 can hold all values of the warp: as from "combine" on
//         for each half: values past the end of the row = 0; count what the row cannot hold
//         if bf16: round and store; done
//         for each half: bounds = the lane's smallest and largest finite value
//         combine the bounds of the lanes (and halves) that share a group, by shuffles: no barriers
//         if Mse: of four ranges for each group, keep the one with the smallest squared error
//         for each half: compute scale and min of the group, then the lane's codes; store the codes, and in the first
//                        lane of the group its (scale, min)
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/chunk.cuh"
#include "../common/reduce.cuh"
#include "../params.h"
#include "../ptx/convert.cuh"
#include "../ptx/special.cuh"
#include "int4.cuh"
#include "layout.cuh"

constexpr unsigned HALVES = 2, HALF_RUN = WARP * CHUNK, RUN = HALVES * HALF_RUN;
static_assert(RUN == ROPE_APPEND_RUN, "the host divides rows into other runs");

// The values of a run that one lane holds: a chunk of each half.
typedef float LaneValues[HALVES][CHUNK];

// Index in the row of the first of a lane's values of one half of a run.
__device__ inline unsigned chunk_start(unsigned run_start, unsigned half) {
    return run_start + half * HALF_RUN + threadIdx.x % WARP * CHUNK;
}

// Replaces the values past the end of the row.
__device__ inline void blank(float (&values)[CHUNK], unsigned left, float with) {
    if (left < CHUNK) {
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            values[j] = j < left ? values[j] : with;
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

    // What of the range between them f16 can hold; 0 without values. Adding 0 makes +0 of -0.
    __device__ Bounds range() const {
        const bool any = lo <= hi;
        return {any ? __fadd_rn(fminf(fmaxf(lo, -F16_MAX), F16_MAX), 0.0f) : 0.0f,
                any ? __fadd_rn(fminf(fmaxf(hi, -F16_MAX), F16_MAX), 0.0f) : 0.0f};
    }

    // A value moved into the range; NaN becomes lo, as the maximum of lo and NaN is lo.
    __device__ float clamped(float value) const { return fminf(fmaxf(value, lo), hi); }
};

// The bounds of a lane's values of one half.
__device__ inline Bounds finite_bounds(const float (&values)[CHUNK]) {
    Bounds bounds;
#pragma unroll
    for (float value : values) {
        // Minimum and maximum ignore NaN.
        const float finite = fabsf(value) < CUDART_INF_F ? value : CUDART_NAN_F;
        bounds.include(finite, finite);
    }
    return bounds;
}

// The bounds of a lane's values of one half, NaN if one of them is.
__device__ inline Bounds bounds_of(const float (&values)[CHUNK]) {
    Bounds bounds{values[0], values[0]};
#pragma unroll
    for (unsigned j = 1; j < CHUNK; ++j) {
        bounds = {minimum_or_nan(bounds.lo, values[j]), maximum_or_nan(bounds.hi, values[j])};
    }
    return bounds;
}

// How the range that a group's codes cover is chosen: `cache::RangeSetting`.
enum class RangeSetting { MinMax, Mse };

// A group's map from values to codes.
struct Quantizer {
    Bounds range;  // that the codes cover
    float min, inverse;
    uint32_t affine;

    __device__ Quantizer(Bounds range, float max_code) : range(range) {
        const uint16_t min_bits = f16_from_f32_down(range.lo);
        min = f32_from_f16(min_bits);
        const uint16_t scale_bits = f16_from_f32_up(__fdiv_rn(__fsub_rn(range.hi, min), max_code));
        inverse = scale_bits == 0 ? 0.0f : __frcp_rn(f32_from_f16(scale_bits));
        affine = affine_pair(scale_bits, min_bits);
    }

    __device__ float scale() const { return affine_scale(affine); }

    static constexpr float LARGEST_INT4 = 15.0f, LARGEST_INT8 = 255.0f;

    // ROUNDER + x is ROUNDER + the integer nearest to x, ties to even; its bits are those of ROUNDER plus that integer.
    static constexpr float ROUNDER = 12582912.0f; // 1.5 * 2^23
    static constexpr uint32_t ROUNDER_BITS = 0x4B400000;

    __device__ float steps(float value) const { return __fmul_rn(__fsub_rn(value, min), inverse); }

    // ROUNDER + the code of 4 bits.
    __device__ static float nearest_int4(float steps) {
        return fminf(fmaxf(__fadd_rn(steps, ROUNDER), ROUNDER), ROUNDER + LARGEST_INT4);
    }

    // ROUNDER_BITS + the code of a value that is in the group's first range. With `Mse`, it may be outside of this one. With
    // `MinMax`, the nearest integer needs no clamping: as scale is at least (hi - min) / max_code, at most three roundings
    // of 2^-24 lift steps above max_code.
    template <RangeSetting RANGE>
    __device__ uint32_t biased_code(float value) const {
        if constexpr (RANGE == RangeSetting::Mse) {
            return __float_as_uint(nearest_int4(steps(value)));
        } else {
            return __float_as_uint(__fadd_rn(steps(value), ROUNDER));
        }
    }

    // The sum of the squares of the distances, in steps, between values and their codes of 4 bits.
    __device__ float squared_distances(const float (&values)[CHUNK], unsigned left) const {
        float sum = 0.0f;
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            const float x = steps(values[j]);
            const float distance = __fsub_rn(x, __fsub_rn(nearest_int4(x), ROUNDER));
            const float with_this = __fadd_rn(sum, __fmul_rn(distance, distance));
            sum = j < left ? with_this : sum;
        }
        return sum;
    }

    // 8 codes of 4 bits in one word: evens in the lower half, odds in the upper (`cache::NIBBLE_ORDER`). Those past
    // the end of the row are 0.
    template <RangeSetting RANGE>
    __device__ uint32_t nibbles(const float (&values)[CHUNK], unsigned left) const {
        uint32_t word = 0;
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            word += (biased_code<RANGE>(values[j]) << nibble_shift(j)) - (ROUNDER_BITS << nibble_shift(j));
        }
        if (left < CHUNK) {
#pragma unroll
            for (unsigned j = 0; j < CHUNK; ++j) {
                word &= j < left ? 0xFFFFFFFF : ~(15u << nibble_shift(j));
            }
        }
        return word;
    }

    // 8 codes of 8 bits, in their order.
    __device__ uint2 bytes(const float (&values)[CHUNK], unsigned left) const {
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (unsigned j = 0; j < CHUNK; ++j) {
            const unsigned shift = 8 * (j % 4);
            words[j / 4] += (biased_code<RangeSetting::MinMax>(values[j]) << shift) - (ROUNDER_BITS << shift);
        }
        if (left < CHUNK) {
            const uint64_t kept = (uint64_t(1) << 8 * left) - 1;
            words[0] &= static_cast<uint32_t>(kept);
            words[1] &= static_cast<uint32_t>(kept >> 32);
        }
        return {words[0], words[1]};
    }
};

__device__ inline float shuffled(float value, unsigned distance) { return __shfl_xor_sync(ALL_LANES, value, distance); }

__device__ inline Bounds shuffled(const Bounds &bounds, unsigned distance) {
    return {shuffled(bounds.lo, distance), shuffled(bounds.hi, distance)};
}

// Combines what lanes have of each half for those whose values share a group: both halves first if the run is one
// group, then a butterfly.
template <typename Value, typename Operation>
__device__ void reduce_groups(Value (&halves)[HALVES], unsigned group, Operation operation) {
    if (group == RUN) {
        halves[0] = operation(halves[0], halves[1]);
        halves[1] = halves[0];
    }
    for (unsigned distance = min(group / CHUNK, WARP) / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (Value &half : halves) {
            half = operation(half, shuffled(half, distance));
        }
    }
}

// `Mse` as `src/cache/range.rs` specifies it: the least number of values in a group that has a choice, the number of
// ranges, and the number of parts into which the first range is divided to shorten it.
constexpr unsigned MSE_LEAST_VALUES = 96, MSE_RANGES = 4;
constexpr float MSE_PARTS = 32.0f;

// Replaces the range of each int4 group, in which its `values` lie, by the one of four with the smallest squared error.
__device__ inline void tighten(const CachedRow &row, unsigned width, unsigned run_start, const LaneValues &values,
                               Bounds (&ranges)[HALVES]) {
    Bounds first[HALVES];
    float least[HALVES];
    bool has_choice[HALVES];
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        first[half] = ranges[half];
        least[half] = CUDART_INF_F;
        // Groups are powers of two.
        const unsigned start = chunk_start(run_start, half), group_start = start & ~(row.group - 1);
        has_choice[half] = start < width && min(width - group_start, row.group) >= MSE_LEAST_VALUES;
    }
    // One copy of the code: a warp alone on its multiprocessor waits for its instructions, too.
#pragma unroll 1
    for (unsigned k = 0; k < MSE_RANGES; ++k) {
        Bounds tried[HALVES];
        float errors[HALVES], scales[HALVES];
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            const auto &[lo, hi] = first[half];
            const float cut = __fmul_rn(__fsub_rn(hi, lo), static_cast<float>(k) / MSE_PARTS);
            tried[half] = {__fadd_rn(lo, cut), __fsub_rn(hi, cut)};
        }
        Quantizer quantizer(tried[0], Quantizer::LARGEST_INT4);
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            if (half > 0 && row.group < RUN) {
                quantizer = Quantizer(tried[half], Quantizer::LARGEST_INT4);
            }
            scales[half] = quantizer.scale();
            const unsigned left = chunk_count(chunk_start(run_start, half), width);
            errors[half] = 0.0f;
            if (left == CHUNK) {
                errors[half] = quantizer.squared_distances(values[half], CHUNK);
            } else if (left > 0) {
                errors[half] = quantizer.squared_distances(values[half], left);
            }
        }
        reduce_groups(errors, row.group, [](float a, float b) { return __fadd_rn(a, b); });
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            const float error = __fmul_rn(errors[half], __fmul_rn(scales[half], scales[half]));
            if (has_choice[half] && scales[half] > 0.0f && error < least[half]) {
                least[half] = error;
                ranges[half] = tried[half];
            }
        }
    }
}

// The quantised case of `store_run`, by the bounds of the lane's values. `ALL_HELD`: none of the warp's is beyond what f16
// can hold, so that all are in the range of their group.
template <RangeSetting RANGE, bool ALL_HELD>
__device__ inline void store_quantized(const CachedRow &row, unsigned width, unsigned run_start, LaneValues &values,
                                       Bounds (&bounds)[HALVES]) {
    reduce_groups(bounds, row.group, [](Bounds a, const Bounds &b) {
        a.include(b.lo, b.hi);
        return a;
    });
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        bounds[half] = bounds[half].range();
        if constexpr (!ALL_HELD) {
#pragma unroll
            for (float &value : values[half]) {
                value = bounds[half].clamped(value);
            }
        }
    }
    if constexpr (RANGE == RangeSetting::Mse) {
        // Later groups of the run have no more values than its first.
        const unsigned most = min(width - run_start, row.group);
        if (row.kind == ROW_INT4 && most >= MSE_LEAST_VALUES) {
            tighten(row, width, run_start, values, bounds);
        }
    }
    const float max_code = row.kind == ROW_INT4 ? Quantizer::LARGEST_INT4 : Quantizer::LARGEST_INT8;
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = chunk_start(run_start, half), left = chunk_count(start, width);
        const Quantizer quantizer(bounds[half], max_code);
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

// Rounds the values of a chunk, ties to even.
__device__ inline Chunk bf16_from_f32(const float (&values)[CHUNK]) {
    return {bf16x2_from_f32(values[0], values[1]), bf16x2_from_f32(values[2], values[3]),
            bf16x2_from_f32(values[4], values[5]), bf16x2_from_f32(values[6], values[7])};
}

// Stores the values of one run of a row of `width`, and the row's padding if the run is its last. All lanes of a warp
// call it, and their `values` are overwritten. Returns how many of this lane's values were not finite or beyond what the
// row can hold.
template <RangeSetting RANGE>
__device__ inline unsigned store_run(const CachedRow &row, unsigned width, unsigned run_start, LaneValues &values) {
    Bounds bounds[HALVES];
    // With `Mse`, trying ranges costs so much more that it is not worth another copy of the code.
    if (RANGE == RangeSetting::MinMax && row.kind != ROW_BF16) {
        bool held = true;
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            const unsigned left = chunk_count(chunk_start(run_start, half), width);
            bounds[half] = left == 0 ? Bounds() : bounds_of(values[half]);
            const bool fits = left == CHUNK && bounds[half].lo >= -F16_MAX && bounds[half].hi <= F16_MAX;
            held = held && (left == 0 || fits);
        }
        if (__all_sync(ALL_LANES, held)) {
            store_quantized<RANGE, true>(row, width, run_start, values, bounds);
            return 0;
        }
    }
    const float largest = row.kind == ROW_BF16 ? CUDART_MAX_NORMAL_F : F16_MAX;
    unsigned saturated = 0;
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        blank(values[half], chunk_count(chunk_start(run_start, half), width), 0.0f);
#pragma unroll
        for (float value : values[half]) {
            saturated += !(fabsf(value) <= largest);
        }
    }
    if (row.kind != ROW_BF16) {
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            blank(values[half], chunk_count(chunk_start(run_start, half), width), CUDART_NAN_F);
            bounds[half] = finite_bounds(values[half]);
        }
        store_quantized<RANGE, false>(row, width, run_start, values, bounds);
        return saturated;
    }
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = chunk_start(run_start, half);
        if (start < width) {
            // The conversion makes 0x7FFF of every NaN, as the cache's specification does.
            const Chunk chunk = bf16_from_f32(values[half]);
            store_chunk(reinterpret_cast<uint16_t *>(row.bytes) + start, chunk, CHUNK, true);
        }
    }
    return saturated;
}
