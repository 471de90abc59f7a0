// `absorb`: the up-projections, moved to the query and the output; `src/reference/absorb.rs` on the device.
//
//     absorb_query:   q_latent[t, h, l] = sum_i W_UK[g, i, l] q_nope[t, h, i]
//     expand_output:  out[t, h, i]      = sum_l W_UV[g, i, l] o_latent[t, h, l] + bias[g, i]
//
// Both are one product for each KV head g: outputs [m x n] = weights [m x k] inputs [k x n], n being the query tokens
// times the query heads per KV head. They differ in how weights lie: rows of outputs in `expand_output` (k dense), rows
// of k in `absorb_query` (m dense; `Transposed` below). Sums are f32, rounded once at the end; within a kernel their
// order does not depend on n. `_few_ordered`, `_medium` and `_many` have the same order, see common/gemm.cuh; `_few`,
// which splits k over warps, has another.
//
// Weights of a layer are little work for a GPU, so that how many blocks there are, and how much of k each has in flight,
// counts for more than how often a byte is read again from L2. The smallest blocks are taken while they have room at a
// time (`src/ops/absorb.rs`): `_few`, then `_medium`, then `_many`.
//
// `_few`: a block computes 64 outputs (`absorb_query`) or 16 (`expand_output`) of a KV head for 16 of n.
//
//     sums = 0                                            every warp: all outputs of the tile, over its k-slice
//     for each of the warp's loads: 32 k (`absorb_query`) or 4 times 32 k (`expand_output`); the 4 warps alternate
//         load weights (A) and inputs (B) from global memory to the registers that MMA takes
//         multiply-add
//     write the sums to shared memory, 16 or 4 KiB for 4 warps; barrier
//     each warp, for its quarter of the sums: add those of the 4 warps in order, add the bias, round, store
//
//   Weights go from global memory to registers without a copy in shared memory. The order of k is free if inputs have
//       it too, and the order of m if outputs are written accordingly, so loads can be 16 bytes: lane 4 g + t has
//       numbers 8 t .. 8 t + 7 of each 32 along k (two MMAs), for outputs g and g + 8, where rows are dense in k. Where
//       they are dense in m, it has outputs 8 g .. 8 g + 7 for the same k: fragment j takes outputs 2 j and 2 j + 1 of
//       each lane as its rows g and g + 8, which one `prmt` per register brings together from two rows.
//   Per KV head and 16 of n: reads 2 m k bytes of weights once, and in each block 32 k bytes of inputs (from L2); 32 m k
//       FLOPs, 16 for each byte of weights: memory-bound.
//
// `_few_ordered`, n <= 16, for callers whose results must not depend on n: the tile of common/gemm.cuh with 16 inputs
// (A) by 64 outputs (weights are B).
//
//   Each of the 4 warps has 16 outputs and all of k, in order. What `_few` gains by splitting k is made up for by bytes
//       in flight: 7 k-steps of 5 KiB, in up to 5 blocks on a multiprocessor of an H100.
//   Per KV head: bytes and FLOPs of `_few`; memory-bound.
//
// `_medium`: the tile of common/gemm.cuh with 64 inputs by 64 outputs, in 4 warps of 32 by 32, where large tiles would
// leave most multiprocessors without one.
//
//   A block is alone on its multiprocessor or nearly so, and goes through k one stage at a time, so that what a stage
//       costs whatever it holds (the barrier, the copies' addresses, latencies) counts: a stage is 64 k, and two stages
//       of 16 KiB are in flight besides.
//   Per tile: 128 k bytes of inputs and 128 k of weights, from L2 mostly, and 8192 k FLOPs, 32 per byte: latency-bound.
//
// `_many`: the tile of common/gemm.cuh with 128 inputs by 128 outputs.
//
//   Per tile: 256 k bytes of inputs and 256 k of weights, both from L2, and 32768 k FLOPs, 64 per byte: compute-bound.

#include "absorb/few.cuh"
#include "absorb/tiled.cuh"
#include "ptx/griddepcontrol.cuh"

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    absorb_query_few(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    few<true>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    expand_output_few(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    few<false>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    absorb_query_few_ordered(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<SmallTile, true>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(ABSORB_FEW_THREADS)
    expand_output_few_ordered(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<SmallTile, false>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(ABSORB_MEDIUM_THREADS)
    absorb_query_medium(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<MediumTile, true>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(ABSORB_MEDIUM_THREADS)
    expand_output_medium(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<MediumTile, false>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
    absorb_query_many(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<LargeTile, true>(params, blockIdx);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
    expand_output_many(const __grid_constant__ AbsorbParams params) {
    wait_for_kernel_in_front();
    tiled<LargeTile, false>(params, blockIdx);
}
