// A rotated key as A operand: 32 values in k, of which lane t of a quarter has 8 t .. 8 t + 7.
#pragma once

#include <stdint.h>

#include "../cache/int4.cuh"
#include "../params.h"
#include "../ptx/address.cuh"

// Bytes of 32 values as they lie in the cache.
__device__ constexpr unsigned rope_step_bytes(unsigned kind) {
    return kind == ROW_BF16 ? 64 : kind == ROW_INT8 ? 32 : 16;
}

// The lane's values of 32 values number `step`, as bf16 or as codes that are subnormal f16. `row` is where those of the
// first 32 lie.
template <unsigned KIND>
__device__ uint4 rope_values(const unsigned char *row, unsigned step) {
    if constexpr (KIND == ROW_BF16) {
        return at<uint4>(row, 64 * step);
    } else if constexpr (KIND == ROW_INT8) {
        const uint2 bytes = at<uint2>(row, 32 * step);
        return {subnormal_bytes<0>(bytes.x), subnormal_bytes<1>(bytes.x), subnormal_bytes<0>(bytes.y),
                subnormal_bytes<1>(bytes.y)};
    } else {
        const uint32_t word = at<uint32_t>(row, 16 * step);
        return {subnormal_pair<0>(word), subnormal_pair<1>(word), subnormal_pair<2>(word), subnormal_pair<3>(word)};
    }
}
