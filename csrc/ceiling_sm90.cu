// What Hopper's tensor cores can do at most by `wgmma`, for other kernels to be held against: `ceiling.cu` measures what every
// GPU has.
//
//     ceiling_wgmma, each warpgroup:
//         for each round: PRODUCTS of m64n64k16, A in registers, B in shared memory, one accumulator
//         store a number that depends on all sums
//     shared memory: two tiles of B, 64 columns of 64 k each, 16 KB
//
// Per warp and round: PRODUCTS * 2 * 16 * 64 * 16 FLOPs (bf16 with f32 sums) and no bytes; compute-bound: the four
// warpgroups of a multiprocessor's two blocks take turns, so that one waits while others multiply.

#include "params.h"
#include "ptx/address.cuh"
#include "ptx/proxy.cuh"
#include "ptx/wgmma.cuh"

namespace {

// Products between two waits: equal ones in a row ptxas would make one of (findings/ptxas-merges-equal-wgmma.sh), so that a
// stage has a step for each 16 k of both tiles, and a round several stages.
constexpr unsigned STEPS = 8, STAGES = 4, PRODUCTS = STAGES * STEPS;
static_assert(PRODUCTS * 2 * 16 * 64 * 16 == 32 * CEILING_MMA_FLOPS_PER_WARP, "as the host counts");

// Bytes of a tile of B, and its 16 k.
constexpr unsigned TILE_BYTES = 64 * 128, TILE_STEPS = 4;

}  // namespace

extern "C" __global__ void __launch_bounds__(CEILING_THREADS, 2)
    ceiling_wgmma(const __grid_constant__ CeilingMmaParams params) {
    __shared__ __align__(1024) uint32_t tiles[STEPS / TILE_STEPS * TILE_BYTES / 4];
    // bf16 pairs of 1.0; any finite numbers would do.
    constexpr uint32_t ONES = 0x3F803F80;
    for (unsigned i = threadIdx.x; i < sizeof(tiles) / 4; i += blockDim.x) {
        tiles[i] = ONES;
    }
    fence_proxy_async();
    __syncthreads();
    // Read, and so not known: of known numbers the compiler makes registers of their own for each product.
    uint32_t a[4];
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        a[i] = tiles[CEILING_THREADS * i + threadIdx.x];
    }
    const uint32_t base = shared_address(tiles);
    float sums[32] = {};
#pragma unroll 1
    for (unsigned round = 0; round < params.rounds; ++round) {
#pragma unroll
        for (unsigned stage = 0; stage < STAGES; ++stage) {
            wgmma_fence();
#pragma unroll
            for (unsigned step = 0; step < STEPS; ++step) {
                const uint64_t tile = swizzled_descriptor(base + step / TILE_STEPS * TILE_BYTES);
                wgmma<true, 8>(sums, a, tile + step % TILE_STEPS * DESCRIPTOR_STEP);
            }
            wgmma_commit();
        }
        wgmma_wait<0>();
    }
    // Each sum is 16 * PRODUCTS * rounds. Storing a number that depends on all of them keeps the compiler from omitting any.
    float total = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < 32; ++i) {
        total += sums[i];
    }
    reinterpret_cast<float *>(params.out)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
