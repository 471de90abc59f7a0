// Reductions over the threads of a block. Every thread gets the result, in the same bits whatever the other blocks do.
#pragma once

// Lanes of a warp, and the mask of all of them.
constexpr unsigned WARP = 32, ALL_LANES = 0xFFFFFFFF;

struct Maximum {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

// Combines one value of each lane of a full warp: five steps of a butterfly, so that all lanes agree to the bit.
template <typename Operation>
__device__ float reduce_warp(float value, Operation operation) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = operation(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// Sums each of N values (a power of two, up to 32) over the lanes of a full warp: lane l gets the total of value
// l / (32 / N). Each step halves the values that a lane cares for, so that it takes about N shuffles instead of 5 N.
template <int N, int DISTANCE = WARP / 2>
__device__ float sum_each(const float (&values)[N]) {
    if constexpr (DISTANCE == 0) {
        return values[0];
    } else if constexpr (N == 1) {
        const float sum[1] = {values[0] + __shfl_xor_sync(ALL_LANES, values[0], DISTANCE)};
        return sum_each<1, DISTANCE / 2>(sum);
    } else {
        const bool upper = (threadIdx.x & DISTANCE) != 0;
        float sums[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            const float mine = upper ? values[i + N / 2] : values[i], other = upper ? values[i] : values[i + N / 2];
            sums[i] = mine + __shfl_xor_sync(ALL_LANES, other, DISTANCE);
        }
        return sum_each<N / 2, DISTANCE / 2>(sums);
    }
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
