// `up_project` by Hopper's own instructions: keys and values of cached tokens, `src/reference/up_project.rs` on the
// device.
//
//     keys[s, g]   = (W_UK[g] c[s], rotated key of g's rope head)
//     values[s, g] = W_UV[g] c[s] + bias[g]
//
//     grid: x over tiles of 128 tokens, y over blocks that share the columns; three warpgroups to a block
//     each block, unless its first token does not exist:
//         find the tokens' places in the cache; barrier
//         for each tile of 256 columns of keys or values, every gridDim.y-th of all:
//             two warps, for each k-step of 64:                                           (up_project/sm90/load.cuh)
//                 wait until the stage is free;  start copies of weights
//                 latents, if they are not there yet:  bf16: start copies;  int4: dequantise, store
//                 when the copies of the k-step before are done:  arrive at that one's barrier
//             two warpgroups, 64 tokens each, for each k-step:                            (up_project/sm90/product.cuh)
//                 wait for it;  sums += latents * weights;  free the k-step before
//             the two:  round the sums with the bias, and store them
//         two warps: copy rotated keys, every gridDim.y-th 128 columns of all           (up_project/rope.cuh)
//
// Latents of up to 512 numbers stay in shared memory as bf16 for all columns of the block; longer ones are loaded and
// dequantised again for each tile of columns.
// Shared memory: 8 k-steps of latents (128 KiB), or 3; 3 stages of weights (96 KiB).
// Per tile of columns and k-step: 4.2 MFLOPs; 32 KiB of weights from L2, and of latents that are not kept 16 KiB (bf16)
//     or about 4 KiB (int4); products read 80 KiB of shared memory, and 32 KiB are written, or 48. That is 1024 cycles
//     of the tensor cores and 896 of shared memory, 1024 to 1120 with latents that are not kept: compute-bound, or close
//     to it. Predicted, as no GPU has timed it.
// Rounding: as in up_project.cu. A sum is a chain of products of 16 k, as there; how one of them adds is the
//     hardware's, so that the two kernels' results need not be of the same bits.

#include "up_project/rope.cuh"
#include "up_project/sm90/load.cuh"
#include "up_project/sm90/product.cuh"

extern "C" __global__ void __launch_bounds__(UP_PROJECT_SM90_THREADS, 1)
    up_project_sm90(const __grid_constant__ UpProjectParams params) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const Tokens tokens = tokens_of_block(params);
    if (tokens.count == 0) {
        return;
    }
    SharedMemory &memory = *reinterpret_cast<SharedMemory *>(shared);
    if (threadIdx.x >= CONSUMER_THREADS) {
        const unsigned i = threadIdx.x - CONSUMER_THREADS;
        const bool exists = i < tokens.count;
        memory.tokens.store(i, exists ? token_of_row(params, tokens.first + i) : CachedToken{});
    } else if (threadIdx.x < STAGES) {
        mbarrier_init(shared_address(&memory.full[threadIdx.x]), LOADERS);
        mbarrier_init(shared_address(&memory.empty[threadIdx.x]), CONSUMER_THREADS / WARP);
    } else if (threadIdx.x == STAGES) {
        mbarrier_init(shared_address(&memory.bias_free), CONSUMER_THREADS / WARP);
    }
    __syncthreads();
    if (threadIdx.x < CONSUMER_THREADS) {
        multiply_tiles(params, tokens, memory);
    } else if (threadIdx.x < CONSUMER_THREADS + LOADERS) {
        load_tiles(params, memory);
    } else {
        const unsigned rope_tiles = column_tiles(params.geometry, params.geometry.rope_dim, GEMM_TILE);
        for (unsigned tile = blockIdx.y; tile < rope_tiles; tile += gridDim.y) {
            const unsigned thread = threadIdx.x - CONSUMER_THREADS - LOADERS;
            copy_rope<COPIERS>(params, tokens, memory.tokens, tile * GEMM_TILE, thread);
        }
    }
}
