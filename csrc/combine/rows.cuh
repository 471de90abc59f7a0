// The arithmetic of merging: the partials of a row weighed, summed and divided by the sum of their weights. `combine` and
// the blocks of `decode` that merge what they have written share it, so that their results have the same bits.
//
// Partials are read by ordinary loads, which see what other blocks of the same launch have written and released.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/team.cuh"
#include "../params.h"
#include "../ptx/address.cuh"
#include "../ptx/convert.cuh"

namespace merging {

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
        const float4 four = is_read ? *reinterpret_cast<const float4 *>(partial) : float4{};
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    } else {
#pragma unroll
        for (unsigned i = 0; i < LATENTS; ++i) {
            values[i] = is_read && i * WARP < left ? partial[i * WARP] : 0.0f;
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
__device__ inline Sums sum_of_ways(const Ways &ways) {
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

// Leaves the weights of a row's partials, relative to the largest, which it returns, and zeros up to `padded`: by all of a
// team, who read it when they have met. The row's lse stand `stride` apart.
template <typename Team>
__device__ float weigh(const float *lse_partial, size_t stride, unsigned splits, unsigned padded, float *weights,
                       float *scratch) {
    // Each partial's lse waits in the place of its weight; the thread that put it there is the one that reads it back.
    float largest = -CUDART_INF_F;
    for (unsigned p = Team::index(); p < splits; p += Team::threads()) {
        const float lse = lse_partial[p * stride];
        weights[p] = lse == CUDART_INF_F ? -CUDART_INF_F : lse;
        largest = fmaxf(largest, weights[p]);
    }
    largest = reduce_team<Team>(largest, -CUDART_INF_F, Maximum(), scratch);

    // `largest` is never NaN, since fmaxf() prefers numbers, so a NaN comes through expf() into the weight. Where no
    // partial saw anything, exponents would be inf - inf; the sum is 0 then, and its logarithm minus infinity.
    for (unsigned p = Team::index(); p < padded; p += Team::threads()) {
        weights[p] = p >= splits || weights[p] == -CUDART_INF_F ? 0.0f : expf(weights[p] - largest);
    }
    Team::meet();
    return largest;
}

// Merges a chunk of up to COMBINE_FEW partials, by a warp. Returns the sum of the weights.
template <bool IS_ALIGNED>
__device__ float merge_few(const Row &row, unsigned chunk) {
    const Sums sums = sum<IS_ALIGNED>(row, chunk, 0, 1);
    store<IS_ALIGNED>(row, chunk, sums);
    return sums.weights;
}

// Merges a chunk of more partials, by a team. Returns the sum of the weights, to its first warp.
template <bool IS_ALIGNED, typename Team>
__device__ float merge_many(const Row &row, unsigned chunk, Ways &ways) {
    const unsigned warp = Team::index() / WARP;
    for (unsigned way = warp; way < WAYS; way += Team::threads() / WARP) {
        const Sums sums = sum<IS_ALIGNED>(row, chunk, way, WAYS);
        const float(&x)[LATENTS] = sums.latents;
        ways.latents[way][threadIdx.x % WARP] = {x[0], x[1], x[2], x[3]};
        // Other lanes may be past the end of the row.
        if (threadIdx.x % WARP == 0) {
            ways.weights[way] = sums.weights;
        }
    }
    Team::meet();
    float weights = 0.0f;
    if (warp == 0) {
        const Sums sums = sum_of_ways(ways);
        store<IS_ALIGNED>(row, chunk, sums);
        weights = sums.weights;
    }
    Team::meet();
    return weights;
}

// Chunks of a row.
__device__ inline unsigned chunks_of(unsigned latent_rank) { return (latent_rank + COMBINE_CHUNK - 1) / COMBINE_CHUNK; }

// Whether a lane's latents of a chunk are neighbours, which rows of so many latents have to allow.
__device__ inline bool takes_vectors(unsigned latent_rank, uint64_t o_partial, uint64_t o_latent) {
    return latent_rank % LATENTS == 0 && o_partial % 16 == 0 && o_latent % 8 == 0;
}

}  // namespace merging
