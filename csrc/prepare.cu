// `prepare`: `absorb_query` and `rope_append` of a step of few tokens in one launch, `src/ops/prepare.rs`.
//
//     grid: the blocks of `rope_append`, then those of `absorb_query_few` or `absorb_query_few_ordered`
//     each block does what it would do in its own kernel, with the same bits
//
// Neither reads what the other writes, so that blocks of the two run side by side: a launch less where launches are what a
// step of few tokens takes longest for. Blocks of `rope_append` stand in front, as they wait longest, for three loads that
// depend on each other.
// Bytes, FLOPs and shared memory are those of the two. What bounds it: `absorb_query`'s weights, so that it is memory-bound.
//
// A kernel for each pair of kernels, as one with a choice would have the registers of the largest everywhere.

#include "absorb/few.cuh"
#include "absorb/tiled.cuh"
#include "params.h"
#include "ptx/griddepcontrol.cuh"
#include "rope_append/append.cuh"

static_assert(ABSORB_FEW_THREADS == ROPE_APPEND_THREADS, "blocks of both have as many threads");

template <RangeSetting RANGE, bool IS_ORDERED>
__device__ void prepare_block(const PrepareParams &params) {
    wait_for_kernel_in_front();
    const unsigned appending = params.append_blocks * params.append_runs;
    if (blockIdx.x < appending) {
        append_run<RANGE>(params.append, blockIdx.x % params.append_blocks, blockIdx.x / params.append_blocks);
        return;
    }
    const unsigned rest = blockIdx.x - appending, x = params.absorb_x, y = params.absorb_y;
    const uint3 block = {rest % x, rest / x % y, rest / x / y};
    if constexpr (IS_ORDERED) {
        tiled<SmallTile, true>(params.absorb, block);
    } else {
        few<true>(params.absorb, block);
    }
}

// At least one block: without a number ptxas spills for one of its own choice.
#define PREPARE_KERNEL(name, range, is_ordered)                         \
    extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS, 1) \
        name(const __grid_constant__ PrepareParams params) {            \
        prepare_block<RangeSetting::range, is_ordered>(params);         \
    }

PREPARE_KERNEL(prepare, MinMax, false)
PREPARE_KERNEL(prepare_mse, Mse, false)
PREPARE_KERNEL(prepare_ordered, MinMax, true)
PREPARE_KERNEL(prepare_ordered_mse, Mse, true)
