// `combine`: merges attention over splits of a sequence, `src/reference/combine.rs` on the device.
//
//     lse      = ln sum_p exp(lse_p)
//     o_latent = sum_p exp(lse_p - lse) o_latent_p
//
//     a block for each row:
//         for partials p, p + blockDim.x, .. of thread p:  weights[p] = lse_p;  their maximum
//         maximum over the block (barriers)
//         for the same partials:                           weights[p] = exp(lse_p - maximum);  their sum
//         sum over the block (barriers, which also show every thread all weights)
//         thread 0 writes lse
//         for latents t, t + blockDim.x, .. of thread t (four at a time in the vectorised path):
//             o_latent = sum_p weights[p] o_latent_p / sum, in ascending order of p
//
// Tile: a block merges one row, all of its latents.
// Accumulators: thread t owns latents 4 t .. 4 t + 3, and those 4 * blockDim.x further on (one at a time where 16-byte
//     accesses are not possible), in f32, over all partials in ascending order. No result depends on other rows.
// Shared memory: scratch of both reductions, 2 * 128 bytes; dynamic, one f32 per partial: its weight, relative to the
//     largest. Thread p writes those of partials p, p + blockDim.x, ...; every thread reads all of them.
// Per row, with s of the S partials not empty and latents of L numbers: reads 4 S + 4 s L bytes, each of them once;
//     writes 2 L + 4 bytes; 2 s L + L FLOPs.
// What bounds it: half a FLOP per byte, so it is memory-bound.
//
// A row's partials are all partials, or, of decode's split results, those of its query token; a row without partials is
// another kernel's, and left alone. A partial whose lse is infinite saw nothing: minus infinity is the logarithm of its
// empty sum, plus infinity is what FlashAttention 2 writes for it. Its weight is 0, and what has weight 0 is not read,
// whatever bytes lie there. A partial whose lse is NaN makes its row NaN, lse and latents: whatever went wrong must be
// seen.

#include <math_constants.h>

#include "common/reduce.cuh"
#include "params.h"
#include "ptx/convert.cuh"

namespace {

__device__ void add_scaled(float &sum, float weight, float x) { sum = fmaf(weight, x, sum); }

__device__ void add_scaled(float4 &sum, float weight, float4 x) {
    add_scaled(sum.x, weight, x.x);
    add_scaled(sum.y, weight, x.y);
    add_scaled(sum.z, weight, x.z);
    add_scaled(sum.w, weight, x.w);
}

__device__ uint16_t scaled_bf16(float x, float factor) { return bf16_from_f32(x * factor); }

__device__ uint2 scaled_bf16(float4 x, float factor) {
    return {bf16x2_from_f32(x.x * factor, x.y * factor), bf16x2_from_f32(x.z * factor, x.w * factor)};
}

// Partials whose loads may overlap.
constexpr unsigned BATCH = 4;

// One row of the output, `Values` (and the `Rounded` of them) at a time. `partials` is the row in the first partial,
// `stride` the distance to the next partial's; both count `Values`, as does `width`.
template <typename Values, typename Rounded>
__device__ void merge_row(const Values *partials, size_t stride, unsigned splits, unsigned width,
                          const float *weights, float normaliser, Rounded *out) {
    for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
        Values sum{};
        for (unsigned first = 0; first < splits; first += BATCH) {
            // All loads before all sums, so that a weight of 0 makes a predicated load and not a branch around one.
            float weight[BATCH];
            Values value[BATCH];
#pragma unroll
            for (unsigned i = 0; i < BATCH; ++i) {
                const unsigned p = first + i;
                weight[i] = p < splits ? weights[p] : 0.0f;
                value[i] = weight[i] > 0.0f ? __ldg(partials + p * stride + column) : Values{};
            }
#pragma unroll
            for (unsigned i = 0; i < BATCH; ++i) {
                add_scaled(sum, weight[i], value[i]);
            }
        }
        out[column] = scaled_bf16(sum, normaliser);
    }
}

__device__ bool is_aligned(uint64_t address, unsigned bytes) { return address % bytes == 0; }

}  // namespace

extern "C" __global__ void __launch_bounds__(COMBINE_MAX_THREADS)
    combine(const __grid_constant__ CombineParams params) {
    extern __shared__ float weights[];
    __shared__ float scratch_max[WARP], scratch_sum[WARP];
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
    largest = reduce_block(largest, -CUDART_INF_F, Maximum(), scratch_max);

    // `largest` is never NaN, since fmaxf() prefers numbers, so a NaN comes through expf() into the sum. Where no
    // partial saw anything, exponents would be inf - inf; the sum is 0 then, and its logarithm minus infinity.
    float sum = 0.0f;
    for (unsigned p = threadIdx.x; p < splits; p += blockDim.x) {
        weights[p] = weights[p] == -CUDART_INF_F ? 0.0f : expf(weights[p] - largest);
        sum += weights[p];
    }
    // The barrier in it also shows every thread all weights.
    sum = reduce_block(sum, 0.0f, Sum(), scratch_sum);
    if (threadIdx.x == 0) {
        reinterpret_cast<float *>(params.lse)[row] = largest + logf(sum);
    }

    const float normaliser = sum == 0.0f ? 0.0f : 1.0f / sum;
    const float *o_partial = reinterpret_cast<const float *>(params.o_partial) + first * width;
    uint16_t *o_latent = reinterpret_cast<uint16_t *>(params.o_latent) + row * width;
    if (width % 4 == 0 && is_aligned(params.o_partial, 16) && is_aligned(params.o_latent, 8)) {
        merge_row(reinterpret_cast<const float4 *>(o_partial), stride * width / 4, splits, width / 4, weights,
                  normaliser, reinterpret_cast<uint2 *>(o_latent));
    } else {
        merge_row(o_partial, stride * width, splits, width, weights, normaliser, o_latent);
    }
}
