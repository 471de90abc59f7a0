// What the two warpgroups have is merged and written: one finishes heads of even number, the other those of odd number,
// each with what the other has accumulated of them.
#pragma once

#include <math_constants.h>

#include "../../common/chunk.cuh"
#include "../results.cuh"
#include "softmax.cuh"

// Each head's sums over all warps: leaves what its outputs are multiplied with and what is added, and writes its lse.
template <typename S>
__device__ void merge_sums(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                           BlockState<S> &block, const SoftmaxState<S> &state) {
    const unsigned thread = threadIdx.x, lane = thread % WARP;
#pragma unroll
    for (int i = 0; i < S::COLUMNS; ++i) {
        const float2 sums = {reduce_rows(state.sum[i], Sum()), reduce_rows(state.mins[i], Sum())};
        const unsigned head = i / 2 * 8 + 2 * lane + i % 2;
        if (lane < 4) {
            block.of_warp[thread / WARP].sums[head] = sums;
        }
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    if (thread < S::HEADS) {
        const float references[CONSUMERS] = {
            block.references[0][thread], block.references[S::SHARED ? 0 : 1][thread]};
        const float reference = fmaxf(references[0], references[1]);
        float shrink[CONSUMERS], sum = 0.0f, mins = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < CONSUMERS; ++i) {
            shrink[i] = exp2_approximate(references[i] - reference);
#pragma unroll
            for (unsigned j = 0; j < WARPGROUP_WARPS; ++j) {
                const float2 sums = block.of_warp[WARPGROUP_WARPS * i + j].sums[thread];
                sum = fmaf(sums.x, shrink[i], sum);
                mins = fmaf(sums.y, shrink[i], mins);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < CONSUMERS; ++i) {
            block.rescale[i][thread] = shrink[i] / sum * OUTPUT_UNIT<S>;
        }
        block.offsets[thread] = mins / sum;
        write_lse(params, split, first_head + thread, (reference + log2f(sum)) * CUDART_LN2_F);
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
}

// Of a block of latents a lane has every other one of eight (rows g), and of eight others (rows g + 8); it exchanges
// the ones or the others with the lane of the remaining. `values` are of four m-tiles, two each. Returns whether it has
// the others.
__device__ inline bool gather_latents(const float (&values)[CHUNK], float (&x)[CHUNK]) {
    const bool odd = threadIdx.x % 8 >= 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float kept = odd ? values[2 * j + 1] : values[2 * j];
        const float other = __shfl_xor_sync(ALL_LANES, odd ? values[2 * j] : values[2 * j + 1], 4);
        x[2 * j] = odd ? other : kept;
        x[2 * j + 1] = odd ? kept : other;
    }
    return odd;
}

// Writes a thread's latents of a head, which all m-tiles have two each of. The block's are those from `begin` on.
template <typename S>
__device__ void write_column(const DecodeParams &params, const DecodeSplit &split, unsigned head, unsigned begin,
                             bool vectors, const float (&x)[2 * S::M_TILES]) {
    const unsigned thread = S::SHARED ? threadIdx.x : threadIdx.x % WARPGROUP;
#pragma unroll
    for (unsigned block = 0; block < BLOCKS<S>; ++block) {
        float latents[CHUNK];
        const bool others = gather_latents(reinterpret_cast<const float(&)[CHUNK]>(x[CHUNK * block]), latents);
        // Lanes g and g + 1 have a word of 8 codes, and the one 32 latents further.
        const unsigned first =
            begin + STEP * (thread / WARP * BLOCKS<S> + block) + thread % WARP / 8 * CHUNK + (others ? STEP / 2 : 0);
        if (head < params.geometry.query_heads) {
            write_latents(params, split, head, first, vectors, latents);
        }
    }
}

// Each warpgroup has its latents of all tiles; the block's are those from `begin` on.
template <typename S>
__device__ void write_outputs(const DecodeParams &params, const DecodeSplit &split, unsigned first_head, unsigned begin,
                              const BlockState<S> &block, const Output<S> &output) {
    const unsigned t = threadIdx.x % 4;
    const bool vectors = writes_vectors(params, split);
#pragma unroll
    for (int i = 0; i < S::COLUMNS; ++i) {
        const unsigned own = i / 2 * 8 + 2 * t + i % 2;
        const float factor = block.rescale[0][own], offset = block.offsets[own];
        float x[2 * S::M_TILES];
#pragma unroll
        for (int j = 0; j < S::M_TILES; ++j) {
            const float scaled = j % 2 == 1 ? factor * ODD_TILE<S> : factor;
            x[2 * j] = fmaf(output[j][i / 2 * 4 + i % 2], scaled, offset);
            x[2 * j + 1] = fmaf(output[j][i / 2 * 4 + i % 2 + 2], scaled, offset);
        }
        write_column<S>(params, split, first_head + own, begin, vectors, x);
    }
}

// The warpgroups' outputs of their own tiles.
template <typename S>
__device__ void merge_outputs(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                                const SharedMemory<S> &memory, const Output<S> &output) {
    BlockState<S> &block = memory.state();
    const unsigned group = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, t = thread % 4;
    const bool odd = group == 1;
    const bool vectors = writes_vectors(params, split);
    // The two sums of a column in an m-tile, as numbers of the output.
    const auto pair = [&](int i, int n, bool column, float factor) {
        const float scaled = i % 2 == 1 ? factor * ODD_TILE<S> : factor;
        return float2{(column ? output[i][4 * n + 1] : output[i][4 * n]) * scaled,
                      (column ? output[i][4 * n + 3] : output[i][4 * n + 2]) * scaled};
    };
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const float factor = block.rescale[group][8 * n + 2 * t + (odd ? 0 : 1)];
        float4 *to = memory.exchange(group) + n * (S::STEPS / 2) * WARPGROUP + thread;
#pragma unroll
        for (int i = 0; i < S::STEPS; i += 2) {
            const float2 first = pair(i, n, !odd, factor), second = pair(i + 1, n, !odd, factor);
            to[i / 2 * WARPGROUP] = {first.x, first.y, second.x, second.y};
        }
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const unsigned own = 8 * n + 2 * t + group;
        const float factor = block.rescale[group][own], offset = block.offsets[own];
        const float4 *from = memory.exchange(1 - group) + n * (S::STEPS / 2) * WARPGROUP + thread;
        float x[2 * S::STEPS];
#pragma unroll
        for (int i = 0; i < S::STEPS; i += 2) {
            const float4 other = from[i / 2 * WARPGROUP];
            const float2 first = pair(i, n, odd, factor), second = pair(i + 1, n, odd, factor);
            x[2 * i] = first.x + other.x + offset, x[2 * i + 1] = first.y + other.y + offset;
            x[2 * i + 2] = second.x + other.z + offset, x[2 * i + 3] = second.y + other.w + offset;
        }
        write_column<S>(params, split, first_head + own, 0, vectors, x);
    }
}

template <typename S>
__device__ void merge_and_write(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                                const SharedMemory<S> &memory, const SoftmaxState<S> &state, const Output<S> &output) {
    merge_sums<S>(params, split, first_head, memory.state(), state);
    if constexpr (S::SHARED) {
        write_outputs<S>(params, split, first_head, 0, memory.state(), output);
    } else {
        merge_outputs<S>(params, split, first_head, memory, output);
    }
}
