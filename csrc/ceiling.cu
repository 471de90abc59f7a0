// What the machine can do at most, for other kernels to be held against: `ceiling_copy` moves bytes, `ceiling_read` only
// reads them, `ceiling_mma` multiplies matrices on the tensor cores by `mma.sync`, all as fast as this file knows how.
//
//     ceiling_copy, thread i of the grid:
//         for units of 16 bytes i, i + threads, ..., UNROLL of them at a time: load all, store all
//     ceiling_read, thread i of the grid:
//         the same units, UNROLL_READ of them at a time: load all, and combine them by exclusive or
//         each warp combines its threads' and stores that, its only word, at `to`
//     ceiling_mma, each warp:
//         for each round: for each of CHAINS accumulators of m16n8k16: one MMA, with operands in registers
//         store a number that depends on all sums
//     no shared memory, no barriers
//
// `ceiling_copy`, per unit: reads 16 bytes, writes 16, computes nothing; memory-bound.
// `ceiling_read`, per unit: reads 16 bytes, two operations of 32 bits; memory-bound.
// `ceiling_mma`, per warp and round: CHAINS * 2 * 16 * 8 * 16 FLOPs (bf16 with f32 sums) and no bytes; compute-bound,
//     since CHAINS independent accumulators keep the tensor cores from waiting for a result.

#include "params.h"
#include "ptx/mma.cuh"

namespace {

// Loads of a thread that are in flight together, and independent accumulators of a warp.
constexpr unsigned UNROLL = 4, UNROLL_READ = 8, CHAINS = 8;

}  // namespace

extern "C" __global__ void __launch_bounds__(CEILING_THREADS)
    ceiling_copy(const __grid_constant__ CeilingCopyParams params) {
    const uint4 *from = reinterpret_cast<const uint4 *>(params.from);
    uint4 *to = reinterpret_cast<uint4 *>(params.to);
    const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    uint64_t unit = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; unit + (UNROLL - 1) * threads < params.units; unit += UNROLL * threads) {
        uint4 values[UNROLL];
#pragma unroll
        for (unsigned i = 0; i < UNROLL; ++i) {
            values[i] = __ldcs(from + unit + i * threads);
        }
#pragma unroll
        for (unsigned i = 0; i < UNROLL; ++i) {
            __stcs(to + unit + i * threads, values[i]);
        }
    }
    for (; unit < params.units; unit += threads) {
        to[unit] = from[unit];
    }
}

extern "C" __global__ void __launch_bounds__(CEILING_THREADS)
    ceiling_read(const __grid_constant__ CeilingCopyParams params) {
    const uint4 *from = reinterpret_cast<const uint4 *>(params.from);
    const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    uint32_t low = 0, high = 0;
    uint64_t unit = thread;
    for (; unit + (UNROLL_READ - 1) * threads < params.units; unit += UNROLL_READ * threads) {
        uint4 values[UNROLL_READ];
#pragma unroll
        for (unsigned i = 0; i < UNROLL_READ; ++i) {
            values[i] = __ldcs(from + unit + i * threads);
        }
#pragma unroll
        for (unsigned i = 0; i < UNROLL_READ; ++i) {
            low ^= values[i].x ^ values[i].z;
            high ^= values[i].y ^ values[i].w;
        }
    }
    for (; unit < params.units; unit += threads) {
        const uint4 value = __ldcs(from + unit);
        low ^= value.x ^ value.z;
        high ^= value.y ^ value.w;
    }
#pragma unroll
    for (unsigned lanes = 16; lanes > 0; lanes /= 2) {
        low ^= __shfl_xor_sync(~0u, low, lanes);
        high ^= __shfl_xor_sync(~0u, high, lanes);
    }
    if (threadIdx.x % 32 == 0) {
        reinterpret_cast<uint64_t *>(params.to)[thread / 32] = static_cast<uint64_t>(high) << 32 | low;
    }
}

extern "C" __global__ void __launch_bounds__(CEILING_THREADS)
    ceiling_mma(const __grid_constant__ CeilingMmaParams params) {
    // bf16 pairs of 1.0; any finite numbers would do.
    const uint32_t a[4] = {0x3F803F80, 0x3F803F80, 0x3F803F80, 0x3F803F80};
    const uint32_t b = 0x3F803F80;
    float sums[CHAINS][4] = {};
    for (unsigned round = 0; round < params.rounds; ++round) {
#pragma unroll
        for (unsigned i = 0; i < CHAINS; ++i) {
            mma_bf16(sums[i], a, b, b);
        }
    }
    // Each sum is 16 * rounds. Storing a number that depends on all of them keeps the compiler from omitting any.
    float total = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < CHAINS; ++i) {
        total += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    }
    reinterpret_cast<float *>(params.out)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
