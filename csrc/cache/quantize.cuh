// Encodes values as the cache stores them: `src/cache/codec.rs` on the device, to the bit.
//
// A warp encodes a run of up to 512 values of a row at a time, or rows of up to 256 values of several tokens. A lane
// holds two chunks of 8 values, each of which is a 32-bit word of int4 codes, 8 bytes of int8 codes or 16 bytes of bf16.
// Which two says `LanePlace`: they are `span` values apart, a power of two. A group of at most `span` values lies in one
// chunk each of neighbouring lanes, a larger one in both chunks.
//
//     store_run:
//         for each half: bounds = the lane's smallest and largest value
//         if quantised, not Mse, chunks are whole, and f16 can hold all values of the warp: as from "combine" on
//         for each half: values past the end of the row = 0; count what the row cannot hold
//         if bf16: round and store; done
//         for each half: bounds = the lane's smallest and largest finite value
//         combine the bounds of the halves and lanes that share a group, by shuffles: no barriers
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

// The values of a run that one lane holds: two chunks, which are its values of the run's halves.
typedef float LaneValues[HALVES][CHUNK];

// Where a lane's two chunks lie in a row, of whose runs each takes `lanes` lanes.
struct LanePlace {
    unsigned first;  // index in the row of the first chunk's first value
    unsigned span;   // values from there to the second chunk's first
    unsigned lanes;
    unsigned run_start;

    // Lane c, counted through all runs, would have chunks 2 c and 2 c + 1 if its chunks were neighbours. Each `span` / 8
    // lanes divide theirs, 2 `span` values, in another way: one of the first half and one of the second to each.
    __device__ LanePlace(unsigned run, unsigned lane, unsigned lanes, unsigned span)
        : span(span), lanes(lanes), run_start(run * lanes * HALVES * CHUNK) {
        const unsigned c = run * lanes + lane;
        first = HALVES * CHUNK * c - CHUNK * (c & (span / CHUNK - 1));
    }

    __device__ unsigned start(unsigned half) const { return first + half * span; }
};

// The place of a lane in a run that takes all lanes: values 8 l .. 8 l + 7 of either half of 256 are lane l's.
__device__ inline LanePlace place_in_run(unsigned run) { return {run, threadIdx.x % WARP, WARP, HALF_RUN}; }

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

constexpr float LARGEST_INT4 = 15.0f, LARGEST_INT8 = 255.0f;

// The largest code of a kind of rows, and one over it, rounded to nearest.
struct Codes {
    float largest, inverse;
};

__device__ inline Codes codes_of(unsigned kind) {
    return kind == ROW_INT4 ? Codes{LARGEST_INT4, 1.0f / LARGEST_INT4} : Codes{LARGEST_INT8, 1.0f / LARGEST_INT8};
}

// A group's map from values to codes.
struct Quantizer {
    Bounds range;  // that the codes cover
    float negated_min, inverse;
    uint32_t affine;

    __device__ Quantizer(Bounds range, const Codes &codes) : range(range) {
        const uint16_t min_bits = f16_from_f32_down(range.lo);
        // Subtracted from 0, as -min would be -0 for a min of 0, and -0 - 0 is the code -0.
        negated_min = __fsub_rn(0.0f, f32_from_f16(min_bits));
        const uint16_t scale_bits = f16_from_f32_up(over_largest(__fadd_rn(range.hi, negated_min), codes));
        inverse = scale_bits == 0 ? 0.0f : inverse_of_f16(f32_from_f16(scale_bits));
        affine = affine_pair(scale_bits, min_bits);
    }

    // x / codes.largest, rounded to nearest even: x times the rounded inverse, and a correction by the remainder, which
    // is exact. For 15 and 255 this is `x / largest` of every x from 0 to 300000, subnormal ones included (tried one by
    // one); the widest range is 131008.
    __device__ static float over_largest(float x, const Codes &codes) {
        const float quotient = __fmul_rn(x, codes.inverse);
        return __fmaf_rn(__fmaf_rn(-quotient, codes.largest, x), codes.inverse, quotient);
    }

    // 1 / x, rounded to nearest even, for an x of f16, which is not 0. With r = (1 + e) / x the step below has a relative
    // error of e^2, at most 2^-44, before it is rounded, and 1 / x is no closer than 2^-36 to the middle between two
    // numbers of f32: x has 11 bits, the middle 25.
    __device__ static float inverse_of_f16(float x) {
        const float r = reciprocal_approximate(x);
        return __fmaf_rn(r, __fmaf_rn(-x, r, 1.0f), r);
    }

    __device__ float scale() const { return affine_scale(affine); }

    // ROUNDER + x is ROUNDER + the integer nearest to x, ties to even.
    static constexpr float ROUNDER = 12582912.0f; // 1.5 * 2^23

    __device__ float steps(float value) const { return __fmul_rn(__fadd_rn(value, negated_min), inverse); }

    // ROUNDER + the code of 4 bits.
    __device__ static float nearest_int4(float steps) {
        return fminf(fmaxf(__fadd_rn(steps, ROUNDER), ROUNDER), ROUNDER + LARGEST_INT4);
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

    // Pair j: the codes of values 2 j (bits 15..0) and 2 j + 1. Divided by SUBNORMAL, steps are subnormal numbers of f16,
    // whose bits are integers: the conversion rounds to the nearest, ties to even. With `Mse`, values may be outside of
    // the range. With `MinMax`, codes need no clamping: as scale is at least (hi - min) / largest, at most three
    // roundings of 2^-24 lift steps above the largest code.
    template <RangeSetting RANGE>
    __device__ void code_pairs(const float (&values)[CHUNK], uint32_t (&pairs)[CHUNK / 2]) const {
        const float small_inverse = __fmul_rn(inverse, 1.0f / SUBNORMAL);
        const auto small_steps = [&](float value) {
            const float steps = __fmul_rn(__fadd_rn(value, negated_min), small_inverse);
            return RANGE == RangeSetting::Mse ? fminf(fmaxf(steps, 0.0f), LARGEST_INT4 / SUBNORMAL) : steps;
        };
#pragma unroll
        for (unsigned j = 0; j < CHUNK; j += 2) {
            pairs[j / 2] = f16x2_from_f32(small_steps(values[j]), small_steps(values[j + 1]));
        }
    }

    // 8 codes of 4 bits in one word: evens in the lower half, odds in the upper (`cache::NIBBLE_ORDER`). Those past
    // the end of the row are 0.
    template <RangeSetting RANGE>
    __device__ uint32_t nibbles(const float (&values)[CHUNK], unsigned left) const {
        uint32_t pairs[CHUNK / 2];
        code_pairs<RANGE>(values, pairs);
        uint32_t word = pairs[0] + (pairs[1] << 4) + (pairs[2] << 8) + (pairs[3] << 12);
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
        constexpr unsigned EVEN_BYTES = 0x6420;
        uint32_t pairs[CHUNK / 2];
        code_pairs<RangeSetting::MinMax>(values, pairs);
        uint2 words = {__byte_perm(pairs[0], pairs[1], EVEN_BYTES), __byte_perm(pairs[2], pairs[3], EVEN_BYTES)};
        if (left < CHUNK) {
            const uint64_t kept = (uint64_t(1) << 8 * left) - 1;
            words.x &= static_cast<uint32_t>(kept);
            words.y &= static_cast<uint32_t>(kept >> 32);
        }
        return words;
    }
};

__device__ inline float shuffled(float value, unsigned distance) { return __shfl_xor_sync(ALL_LANES, value, distance); }

// The group of a row, or as many of its values as a run has: there are no others.
__device__ inline unsigned group_in_run(unsigned group, const LanePlace &place) {
    return min(group, HALVES * CHUNK * place.lanes);
}

// The bounds of two lanes' values, each of which gets the other's.
__device__ inline void exchange_bounds(Bounds &bounds, unsigned distance) {
    bounds.include(shuffled(bounds.lo, distance), shuffled(bounds.hi, distance));
}

// Combines what lanes have of each half for those whose values share a group.
__device__ inline void combine_bounds(Bounds (&halves)[HALVES], unsigned group, const LanePlace &place) {
    if (group == RUN) {
        halves[0].include(halves[1].lo, halves[1].hi);
#pragma unroll
        for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
            exchange_bounds(halves[0], distance);
        }
        halves[1] = halves[0];
    } else if (group > place.span) {
        halves[0].include(halves[1].lo, halves[1].hi);
#pragma unroll 1
        for (unsigned distance = group / CHUNK / HALVES / 2; distance > 0; distance /= 2) {
            exchange_bounds(halves[0], distance);
        }
        halves[1] = halves[0];
    } else {
#pragma unroll 1
        for (unsigned distance = group / CHUNK / 2; distance > 0; distance /= 2) {
            exchange_bounds(halves[0], distance);
            exchange_bounds(halves[1], distance);
        }
    }
}

// Adds what lanes have of each half for those whose values share a group, those farthest apart first.
__device__ inline void sum_groups(float (&halves)[HALVES], unsigned group, const LanePlace &place) {
    for (unsigned values = group / 2; values >= CHUNK; values /= 2) {
        if (values == place.span) {
            halves[0] = __fadd_rn(halves[0], halves[1]);
            halves[1] = halves[0];
        } else {
            const unsigned distance = values / CHUNK / (values > place.span ? HALVES : 1);
#pragma unroll
            for (float &half : halves) {
                half = __fadd_rn(half, shuffled(half, distance));
            }
        }
    }
}

// `Mse` as `src/cache/range.rs` specifies it: the least number of values in a group that has a choice, the number of
// ranges, and the number of parts into which the first range is divided to shorten it.
constexpr unsigned MSE_LEAST_VALUES = 96, MSE_RANGES = 4;
constexpr float MSE_PARTS = 32.0f;

// Replaces the range of each int4 group, in which its `values` lie, by the one of four with the smallest squared error.
__device__ inline void tighten(const CachedRow &row, unsigned width, const LanePlace &place, const LaneValues &values,
                               Bounds (&ranges)[HALVES]) {
    const unsigned group = group_in_run(row.group, place);
    const Codes codes = codes_of(ROW_INT4);
    Bounds first[HALVES];
    float least[HALVES];
    bool has_choice[HALVES];
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        first[half] = ranges[half];
        least[half] = CUDART_INF_F;
        // Groups are powers of two.
        const unsigned start = place.start(half), group_start = start & ~(row.group - 1);
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
        Quantizer quantizer(tried[0], codes);
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            if (half > 0 && group <= place.span) {
                quantizer = Quantizer(tried[half], codes);
            }
            scales[half] = quantizer.scale();
            const unsigned left = chunk_count(place.start(half), width);
            errors[half] = 0.0f;
            if (left == CHUNK) {
                errors[half] = quantizer.squared_distances(values[half], CHUNK);
            } else if (left > 0) {
                errors[half] = quantizer.squared_distances(values[half], left);
            }
        }
        sum_groups(errors, group, place);
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

// The quantised case of `store_run`, by the bounds of the lane's values. `ALL_HELD`: chunks are whole, and none of the
// warp's values is beyond what f16 can hold, so that all are in the range of their group.
template <RangeSetting RANGE, bool ALL_HELD>
__device__ inline void store_quantized(const CachedRow &row, unsigned width, const LanePlace &place, LaneValues &values,
                                       Bounds (&bounds)[HALVES], bool is_stored) {
    const unsigned group = group_in_run(row.group, place);
    combine_bounds(bounds, group, place);
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        if constexpr (ALL_HELD) {
            bounds[half] = {__fadd_rn(bounds[half].lo, 0.0f), __fadd_rn(bounds[half].hi, 0.0f)};
        } else {
            bounds[half] = bounds[half].range();
#pragma unroll
            for (float &value : values[half]) {
                value = bounds[half].clamped(value);
            }
        }
    }
    if constexpr (RANGE == RangeSetting::Mse) {
        // Later groups of the run have no more values than its first.
        const unsigned most = min(width - place.run_start, row.group);
        if (row.kind == ROW_INT4 && most >= MSE_LEAST_VALUES) {
            tighten(row, width, place, values, bounds);
        }
    }
    if (!is_stored) {
        return;
    }
    const Codes codes = codes_of(row.kind);
    Quantizer quantizer(bounds[0], codes);
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        if (half > 0 && group <= place.span) {
            quantizer = Quantizer(bounds[half], codes);
        }
        const unsigned start = place.start(half), left = ALL_HELD ? CHUNK : chunk_count(start, width);
        if (start < width && (start & (row.group - 1)) == 0) {
            row.affine[start >> (__ffs(row.group) - 1)] = quantizer.affine;
        }
        if (row.kind == ROW_INT4) {
            const uint32_t word = start < width ? quantizer.template nibbles<RANGE>(values[half], left) : 0;
            if (start / 2 < row.row_bytes) {
                *reinterpret_cast<uint32_t *>(row.bytes + start / 2) = word;
            }
        } else {
            const uint2 words = start < width ? quantizer.bytes(values[half], left) : uint2{0, 0};
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
// row can hold. If not `is_stored`, which all lanes of a row agree on, nothing is stored, and `row` has no address.
template <RangeSetting RANGE>
__device__ inline unsigned store_run(const CachedRow &row, unsigned width, const LanePlace &place, LaneValues &values,
                                     bool is_stored) {
    Bounds bounds[HALVES];
    // With `Mse`, trying ranges costs so much more that it is not worth another copy of the code.
    if (RANGE == RangeSetting::MinMax && row.kind != ROW_BF16) {
        bool held = width % CHUNK == 0;
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            bounds[half] = place.start(half) < width ? bounds_of(values[half]) : Bounds{0.0f, 0.0f};
            held = held && bounds[half].lo >= -F16_MAX && bounds[half].hi <= F16_MAX;
            bounds[half] = place.start(half) < width ? bounds[half] : Bounds();
        }
        if (__all_sync(ALL_LANES, held)) {
            store_quantized<RANGE, true>(row, width, place, values, bounds, is_stored);
            return 0;
        }
    }
    const float largest = row.kind == ROW_BF16 ? CUDART_MAX_NORMAL_F : F16_MAX;
    unsigned saturated = 0;
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        blank(values[half], chunk_count(place.start(half), width), 0.0f);
#pragma unroll
        for (float value : values[half]) {
            saturated += !(fabsf(value) <= largest);
        }
    }
    if (row.kind != ROW_BF16) {
#pragma unroll
        for (unsigned half = 0; half < HALVES; ++half) {
            blank(values[half], chunk_count(place.start(half), width), CUDART_NAN_F);
            bounds[half] = finite_bounds(values[half]);
        }
        store_quantized<RANGE, false>(row, width, place, values, bounds, is_stored);
        return is_stored ? saturated : 0;
    }
    if (!is_stored) {
        return 0;
    }
#pragma unroll
    for (unsigned half = 0; half < HALVES; ++half) {
        const unsigned start = place.start(half);
        if (start < width) {
            // The conversion makes 0x7FFF of every NaN, as the cache's specification does.
            const Chunk chunk = bf16_from_f32(values[half]);
            store_chunk(reinterpret_cast<uint16_t *>(row.bytes) + start, chunk, CHUNK, true);
        }
    }
    return saturated;
}
