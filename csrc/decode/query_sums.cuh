// Sums of the query, by which mins give to the scores: of each group of values, min * (sum of the query over the group).
// They are operands of the tensor cores, f16 in two parts, which are as good as f32.
#pragma once

#include <stdint.h>

#include "../cache/int4.cuh"
#include "../ptx/convert.cuh"

// Scores that mins are added to are in units of 2^9: sums over 512 numbers of up to 2^15 (scaled_query.cuh) fit an f16
// then. Powers of two, so that nothing is rounded.
constexpr float SCORE_UNIT = 512.0f;

// From sums of codes as subnormal f16 times the query, for a scale of 1, to scores.
constexpr float CODE_UNIT = SUBNORMAL / SCORE_UNIT;

// A sum of the query in units of scores, in two parts of 11 bits each.
struct SumParts {
    uint32_t high, low;

    __device__ explicit SumParts(float sum) {
        sum *= 1.0f / SCORE_UNIT;
        high = f16x2_from_f32(sum, 0.0f);
        low = f16x2_from_f32(sum - f32x2_from_f16x2(high).x, 0.0f);
    }
};
