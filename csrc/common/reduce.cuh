// Reductions over the lanes of a warp. Every thread gets the result, in the same bits whatever other warps do.
#pragma once

// Lanes of a warp, and the mask of all of them.
constexpr unsigned WARP = 32, ALL_LANES = 0xFFFFFFFF;

struct Maximum {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

// Combines one value of each lane of a full warp by a butterfly of five exchanges, so that all lanes agree to the bit.
template <typename Operation>
__device__ float reduce_warp(float value, Operation operation) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = operation(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// x, which all lanes of a warp agree on: by a shuffle, which tells the compiler so. Then it is in one register for all.
__device__ inline unsigned uniform(unsigned x) { return __shfl_sync(ALL_LANES, x, 0); }

// Combines one value of each row of a C fragment (ptx/mma.cuh), lane 4 g + t having rows g and g + 8: over lanes with the
// same columns.
template <typename Operation>
__device__ float reduce_rows(float value, Operation operation) {
#pragma unroll
    for (int distance = WARP / 2; distance >= 4; distance /= 2) {
        value = operation(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}
