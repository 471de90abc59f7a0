// Reductions over the lanes of a warp or the threads of a block. Every thread gets the result, in the same bits
// whatever the other blocks do.
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

// Combines one value of each thread of a block of whole warps. `identity` stands for warps that the block lacks;
// `scratch` is shared memory for one value per possible warp, not to be written again before the next barrier.
template <typename Operation>
__device__ float reduce_block(float value, float identity, Operation operation, float (&scratch)[WARP]) {
    const unsigned lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    value = reduce_warp(value, operation);
    if (lane == 0) {
        scratch[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    return reduce_warp(lane < warps ? scratch[lane] : identity, operation);
}
