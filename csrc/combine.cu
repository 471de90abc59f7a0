// `combine`: merges attention over splits of a sequence, `src/reference/combine.rs` on the device.
//
//     lse      = ln sum_p exp(lse_p)
//     o_latent = sum_p exp(lse_p - lse) o_latent_p
//
//     a block for each row and its share of the row's chunks of COMBINE_CHUNK latents:
//         for partials p, p + blockDim.x, .. of thread p:  weights[p] = lse_p;  their maximum
//         maximum over the block (barrier)
//         for the same partials:                           weights[p] = exp(lse_p - maximum);  barrier
//         up to COMBINE_FEW partials:  each warp has a chunk at a time
//             sum_p weights[p] o_latent_p, and sum_p weights[p]
//         more:                        the warps share a chunk at a time, each has some of its WAYS
//             the same sums over partials way, way + WAYS, ..; barrier; a warp adds up those of all ways; barrier
//         o_latent = the one sum / the other;  of the first chunk also lse
//
// Order of sums: up to COMBINE_FEW partials in ascending order. Of more, WAYS sums, each of every WAYS-th partial in
//     ascending order; then of neighbours, of neighbouring pairs, and so on. Weights are summed in the same order. So no
//     result depends on anything but the row's own partials and their number, however many warps and chunks a block has.
// Tile: a lane has four latents of a chunk, 4 l .. 4 l + 3, or l, l + 32, .. where 16-byte accesses are not possible; LOADS
//     loads of partials are in flight. Where partials are many, blocks of WAYS warps have one chunk each.
// Accumulators: a lane's four latents and the weights, in f32.
// Shared memory: scratch of the maximum, 128 bytes; sums of the ways of a chunk, 4.1 KB; dynamic, one f32 per partial: its
//     weight, relative to the largest, and zeros as far as a batch reaches. Thread p writes those of partials p,
//     p + blockDim.x, ..; every warp reads them.
// Per row, with s of the S partials not empty and latents of L numbers: reads 4 s L bytes, each of them once, and 4 S in
//     every block; writes 2 L + 4 bytes; 2 s L + L FLOPs.
// What bounds it: half a FLOP per byte, so many rows are memory-bound. Few rows are bound by latency, of starts, lse and
//     partials, which wait for each other: hence the loads in flight, and WAYS warps for a chunk.
//
// A row's partials are all partials, or, of decode's split results, those of its query token; a row without partials is
// another kernel's, and left alone. A partial whose lse is infinite saw nothing: minus infinity is the logarithm of its
// empty sum, plus infinity is what FlashAttention 2 writes for it. Its weight is 0, and what has weight 0 is not read,
// whatever bytes lie there. A partial whose lse is NaN makes its row NaN, lse and latents: whatever went wrong must be
// seen.

#include "combine/rows.cuh"
#include "params.h"
#include "ptx/griddepcontrol.cuh"

namespace {

using namespace merging;

// Merges chunks begin .. end - 1. Returns the sum of the weights, to thread 0.
template <bool IS_ALIGNED>
__device__ float merge(const Row &row, unsigned begin, unsigned end, Ways &ways) {
    float weights = 0.0f;
    if (row.splits <= COMBINE_FEW) {
        const unsigned warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
        for (unsigned chunk = begin + warp; chunk < end; chunk += warps) {
            weights = merge_few<IS_ALIGNED>(row, chunk);
        }
        return weights;
    }
    for (unsigned chunk = begin; chunk < end; ++chunk) {
        weights = merge_many<IS_ALIGNED, WholeBlock>(row, chunk, ways);
    }
    return weights;
}

}  // namespace

// Four blocks of the largest kind on a multiprocessor, and eight of those for many rows: more wait for less. On Blackwell
// the newest compiler would spill a few bytes for the fourth.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define COMBINE_BLOCKS 3
#else
#define COMBINE_BLOCKS 4
#endif

extern "C" __global__ void __launch_bounds__(COMBINE_THREADS, COMBINE_BLOCKS)
    combine(const __grid_constant__ CombineParams params) {
    extern __shared__ float weights[];
    __shared__ float scratch[WARP];
    __shared__ Ways ways;
    wait_for_kernel_in_front();
    const unsigned row = blockIdx.x;
    const size_t width = params.latent_rank;

    // The row's first partial and its number of partials, which stand `stride` rows apart.
    size_t first = row, stride = params.rows;
    unsigned splits = params.splits;
    if (params.split_starts != 0) {
        const int32_t *starts = reinterpret_cast<const int32_t *>(params.split_starts) + row / params.heads;
        const int32_t start = __ldg(starts);
        splits = __ldg(starts + 1) - start;
        stride = params.heads;
        first = start * stride + row % params.heads;
        if (splits == 0) {
            return;
        }
    }

    const float *lse_partial = reinterpret_cast<const float *>(params.lse_partial) + first;
    const unsigned padded = (splits + COMBINE_BATCH - 1) / COMBINE_BATCH * COMBINE_BATCH;
    const float largest = weigh<WholeBlock>(lse_partial, stride, splits, padded, weights, scratch);

    const Row own{reinterpret_cast<const float *>(params.o_partial) + first * width,
                  stride * width,
                  splits,
                  params.latent_rank,
                  weights,
                  reinterpret_cast<uint16_t *>(params.o_latent) + row * width};
    const unsigned chunks = chunks_of(params.latent_rank);
    const unsigned share = (chunks + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * share;
    const unsigned end = min(chunks, begin + share);
    const bool is_vector = takes_vectors(params.latent_rank, params.o_partial, params.o_latent);
    const float sum = is_vector ? merge<true>(own, begin, end, ways) : merge<false>(own, begin, end, ways);
    if (blockIdx.y == 0 && threadIdx.x == 0) {
        reinterpret_cast<float *>(params.lse)[row] = largest + logf(sum);
    }
}
