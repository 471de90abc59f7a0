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

#include <math_constants.h>

#include "common/reduce.cuh"
#include "params.h"
#include "ptx/address.cuh"
#include "ptx/convert.cuh"
#include "ptx/griddepcontrol.cuh"

namespace {

// Sums that are made of many partials, the latents of a lane, and loads that it has in flight.
constexpr unsigned WAYS = COMBINE_THREADS / WARP, LATENTS = COMBINE_CHUNK / WARP, LOADS = COMBINE_BATCH / WAYS;

// A lane's sums of weights times latents, and of weights.
struct Sums {
    float latents[LATENTS];
    float weights;
};

// Those of the ways of a chunk.
struct Ways {
    float4 latents[WAYS][WARP];
    float weights[WAYS];
};

// A row: its partials, which stand `stride` numbers apart, their weights, and where its latents go.
struct Row {
    const float *partials;
    size_t stride;
    unsigned splits;
    unsigned width;
    const float *weights;
    uint16_t *out;
};

// A lane's first latent of a chunk.
template <bool IS_ALIGNED>
__device__ unsigned first_latent(unsigned chunk) {
    const unsigned lane = threadIdx.x % WARP;
    return chunk * COMBINE_CHUNK + (IS_ALIGNED ? lane * LATENTS : lane);
}

// A lane's latents of a partial, zeros if it is not to be read. `left` latents are left in the row.
template <bool IS_ALIGNED>
__device__ void load(float (&values)[LATENTS], const float *partial, unsigned left, bool is_read) {
    if constexpr (IS_ALIGNED) {
        const float4 four = is_read ? __ldg(reinterpret_cast<const float4 *>(partial)) : float4{};
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    } else {
#pragma unroll
        for (unsigned i = 0; i < LATENTS; ++i) {
            values[i] = is_read && i * WARP < left ? __ldg(partial + i * WARP) : 0.0f;
        }
    }
}

// A lane's sums over partials first, first + step, .. in ascending order.
template <bool IS_ALIGNED>
__device__ Sums sum(const Row &row, unsigned chunk, unsigned first, unsigned step) {
    Sums sums{};
    const unsigned latent = first_latent<IS_ALIGNED>(chunk);
    if (latent >= row.width) {
        return sums;
    }
    // Partials at a time. What is not aligned takes a load for each latent.
    constexpr unsigned BATCH = IS_ALIGNED ? LOADS : LOADS / LATENTS;
    const size_t stride = step * row.stride;
    const float *partial = row.partials + first * row.stride + latent;
    for (unsigned p = first; p < row.splits; p += BATCH * step, partial += BATCH * stride) {
        // All loads before all sums, so that a weight of 0 makes a predicated load and not a branch around one; the last
        // one first, so that the compiler cannot begin with the sums.
        float weight[BATCH], values[BATCH][LATENTS];
        const float *at = partial + BATCH * stride;
#pragma unroll
        for (unsigned i = BATCH; i-- > 0;) {
            at = stepped(at - stride);
            weight[i] = row.weights[p + i * step];
            load<IS_ALIGNED>(values[i], at, row.width - latent, weight[i] > 0.0f);
        }
#pragma unroll
        for (unsigned i = 0; i < BATCH; ++i) {
            sums.weights += weight[i];
#pragma unroll
            for (unsigned j = 0; j < LATENTS; ++j) {
                sums.latents[j] = fmaf(weight[i], values[i][j], sums.latents[j]);
            }
        }
    }
    return sums;
}

// The sum of all ways: of neighbours, then of neighbouring pairs, and so on.
__device__ Sums sum_of_ways(const Ways &ways) {
    Sums sums[WAYS];
#pragma unroll
    for (unsigned way = 0; way < WAYS; ++way) {
        const float4 four = ways.latents[way][threadIdx.x % WARP];
        sums[way] = {{four.x, four.y, four.z, four.w}, ways.weights[way]};
    }
#pragma unroll
    for (unsigned distance = 1; distance < WAYS; distance *= 2) {
#pragma unroll
        for (unsigned way = 0; way < WAYS; way += 2 * distance) {
            sums[way].weights += sums[way + distance].weights;
#pragma unroll
            for (unsigned j = 0; j < LATENTS; ++j) {
                sums[way].latents[j] += sums[way + distance].latents[j];
            }
        }
    }
    return sums[0];
}

template <bool IS_ALIGNED>
__device__ void store(const Row &row, unsigned chunk, const Sums &sums) {
    const unsigned latent = first_latent<IS_ALIGNED>(chunk);
    // Where no partial saw anything, zeros.
    const float normaliser = sums.weights == 0.0f ? 0.0f : 1.0f / sums.weights;
    float x[LATENTS];
#pragma unroll
    for (unsigned i = 0; i < LATENTS; ++i) {
        x[i] = sums.latents[i] * normaliser;
    }
    if constexpr (IS_ALIGNED) {
        if (latent < row.width) {
            *reinterpret_cast<uint2 *>(row.out + latent) = {bf16x2_from_f32(x[0], x[1]), bf16x2_from_f32(x[2], x[3])};
        }
    } else {
#pragma unroll
        for (unsigned i = 0; i < LATENTS; ++i) {
            if (latent + i * WARP < row.width) {
                row.out[latent + i * WARP] = bf16_from_f32(x[i]);
            }
        }
    }
}

// Merges chunks begin .. end - 1. Returns the sum of the weights, to thread 0.
template <bool IS_ALIGNED>
__device__ float merge(const Row &row, unsigned begin, unsigned end, Ways &ways) {
    const unsigned warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    float weights = 0.0f;
    if (row.splits <= COMBINE_FEW) {
        for (unsigned chunk = begin + warp; chunk < end; chunk += warps) {
            const Sums sums = sum<IS_ALIGNED>(row, chunk, 0, 1);
            store<IS_ALIGNED>(row, chunk, sums);
            weights = sums.weights;
        }
        return weights;
    }
    for (unsigned chunk = begin; chunk < end; ++chunk) {
        for (unsigned way = warp; way < WAYS; way += warps) {
            const Sums sums = sum<IS_ALIGNED>(row, chunk, way, WAYS);
            const float(&x)[LATENTS] = sums.latents;
            ways.latents[way][threadIdx.x % WARP] = {x[0], x[1], x[2], x[3]};
            // Other lanes may be past the end of the row.
            if (threadIdx.x % WARP == 0) {
                ways.weights[way] = sums.weights;
            }
        }
        __syncthreads();
        if (warp == 0) {
            const Sums sums = sum_of_ways(ways);
            store<IS_ALIGNED>(row, chunk, sums);
            weights = sums.weights;
        }
        __syncthreads();
    }
    return weights;
}

__device__ bool is_aligned(uint64_t address, unsigned bytes) { return address % bytes == 0; }

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

    // Each partial's lse waits in the place of its weight; the thread that put it there is the one that reads it back.
    const float *lse_partial = reinterpret_cast<const float *>(params.lse_partial) + first;
    float largest = -CUDART_INF_F;
    for (unsigned p = threadIdx.x; p < splits; p += blockDim.x) {
        const float lse = __ldg(lse_partial + p * stride);
        weights[p] = lse == CUDART_INF_F ? -CUDART_INF_F : lse;
        largest = fmaxf(largest, weights[p]);
    }
    largest = reduce_block(largest, -CUDART_INF_F, Maximum(), scratch);

    // `largest` is never NaN, since fmaxf() prefers numbers, so a NaN comes through expf() into the weight. Where no
    // partial saw anything, exponents would be inf - inf; the sum is 0 then, and its logarithm minus infinity.
    const unsigned padded = (splits + COMBINE_BATCH - 1) / COMBINE_BATCH * COMBINE_BATCH;
    for (unsigned p = threadIdx.x; p < padded; p += blockDim.x) {
        weights[p] = p >= splits || weights[p] == -CUDART_INF_F ? 0.0f : expf(weights[p] - largest);
    }
    __syncthreads();

    const Row own{reinterpret_cast<const float *>(params.o_partial) + first * width,
                  stride * width,
                  splits,
                  params.latent_rank,
                  weights,
                  reinterpret_cast<uint16_t *>(params.o_latent) + row * width};
    const unsigned chunks = (params.latent_rank + COMBINE_CHUNK - 1) / COMBINE_CHUNK;
    const unsigned share = (chunks + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * share;
    const unsigned end = min(chunks, begin + share);
    const bool is_vector = width % LATENTS == 0 && is_aligned(params.o_partial, 16) && is_aligned(params.o_latent, 8);
    const float sum = is_vector ? merge<true>(own, begin, end, ways) : merge<false>(own, begin, end, ways);
    if (blockIdx.y == 0 && threadIdx.x == 0) {
        reinterpret_cast<float *>(params.lse)[row] = largest + logf(sum);
    }
}
