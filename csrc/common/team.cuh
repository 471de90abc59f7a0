// Threads that work together and meet: a whole block, some of its warps, or one warp.
#pragma once

#include "reduce.cuh"

struct WholeBlock {
    __device__ static unsigned index() { return threadIdx.x; }
    __device__ static unsigned threads() { return blockDim.x; }
    __device__ static void meet() { __syncthreads(); }
};

struct OneWarp {
    __device__ static unsigned index() { return threadIdx.x % WARP; }
    __device__ static unsigned threads() { return WARP; }
    __device__ static void meet() { __syncwarp(); }
};

// Combines one value of each thread of a team of whole warps, so that all agree to the bit. `identity` stands for warps
// that the team lacks; `scratch` is shared memory for one value per possible warp, not to be written again before they
// meet next, and not used by one warp.
template <typename Team, typename Operation>
__device__ float reduce_team(float value, float identity, Operation operation, float *scratch) {
    value = reduce_warp(value, operation);
    const unsigned lane = threadIdx.x % WARP, warps = Team::threads() / WARP;
    if (warps == 1) {
        return value;
    }
    if (lane == 0) {
        scratch[Team::index() / WARP] = value;
    }
    Team::meet();
    return reduce_warp(lane < warps ? scratch[lane] : identity, operation);
}
