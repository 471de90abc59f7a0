// The softmax of a block's units: from partial scores of all blocks to weights for all of them. Warp n of the warpgroup has
// the 8 heads of n-tile n.
//
// A weight is P = 2^(x - reference), x being the score as an exponent of 2, and what is multiplied with a block's codes is W
// = P times the scale of the token's latents there, rounded to f16 once. References are the same for a long time, as in
// ../sm90/softmax.cuh: a unit's are those that all units up to REFERENCE_LAG tiles before ask for, which all blocks know
// then without waiting for each other; and only if a W is beyond f16, the unit has references of its own, which make the
// largest W 2^6, and tells all blocks (output.cuh). So they are the same from run to run, whoever is faster.
#pragma once

#include <math_constants.h>

#include "../../ptx/convert.cuh"
#include "../../ptx/special.cuh"
#include "../../ptx/stmatrix.cuh"
#include "../sm90/softmax.cuh"
#include "block.cuh"

// A reference before any token is known, with which every W is infinite but those of tokens that do not exist.
constexpr float LOWEST_REFERENCE = -1e38f;

// Of a thread's two heads, 2 t and 2 t + 1 of the n-tile: the sums of P and, for each block, of P times the min of its
// latents, of the thread's tokens, and what is subtracted from their exponents.
template <typename S>
struct UnitSums {
    float sum[2] = {}, mins[S::RUNS][2] = {};
    float reference[2] = {LOWEST_REFERENCE, LOWEST_REFERENCE};

    // Adds a unit's two tokens, in the terms of its references. `pairs` are those of each block's latents.
    __device__ void add(const float (&p)[4], const uint32_t (&pairs)[S::RUNS][2], const float (&unit_reference)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float after = fmaxf(reference[i], unit_reference[i]);
            const float shrink = exp2_approximate(reference[i] - after);
            const float factor = exp2_approximate(unit_reference[i] - after);
            reference[i] = after;
            sum[i] = fmaf(sum[i], shrink, (p[i] + p[i + 2]) * factor);
#pragma unroll
            for (unsigned run = 0; run < S::RUNS; ++run) {
                const float added = fmaf(p[i], affine_min(pairs[run][0]), p[i + 2] * affine_min(pairs[run][1]));
                mins[run][i] = fmaf(mins[run][i], shrink, added * factor);
            }
        }
    }
};

// The exponents of a unit of the warp's heads, in the order of their fragments: the blocks' parts in ascending order.
template <typename S>
__device__ void add_partials(const ClusterState<S> &state, unsigned slot, unsigned n, float (&x)[4]) {
    const unsigned lane = threadIdx.x % WARP;
    float4 sum = state.partials[slot][0][n][lane];
#pragma unroll
    for (unsigned run = 1; run < S::RUNS; ++run) {
        const float4 part = state.partials[slot][run][n][lane];
        sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    x[0] = sum.x, x[1] = sum.y, x[2] = sum.z, x[3] = sum.w;
}

// Weights of the warp's heads for unit `quarter` of tile `tile`, whose place among the weights is `weights_slot`, to all
// blocks. `slot` is the place of the unit's partial scores.
template <typename S>
__device__ void weigh_unit(const SharedMemory<S> &memory, unsigned n, unsigned tile, unsigned quarter, unsigned slot,
                           unsigned weights_slot, const float (&common)[2], UnitSums<S> &sums) {
    constexpr unsigned RUNS = S::RUNS;
    ClusterState<S> &state = cluster_state(memory);
    const unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float x[4], p[4], reference[2] = {common[0], common[1]};
    add_partials(state, slot, n, x);
    {
        const unsigned token = tiles_begin(state.split) + tile * TILE + quarter * UNIT_TOKENS + token_in_row(g);
        const bool low_exists = token >= state.split.first && token < state.split.end;
        const bool high_exists = token + 8 >= state.split.first && token + 8 < state.split.end;
        x[0] = low_exists ? x[0] : -CUDART_INF_F, x[1] = low_exists ? x[1] : -CUDART_INF_F;
        x[2] = high_exists ? x[2] : -CUDART_INF_F, x[3] = high_exists ? x[3] : -CUDART_INF_F;
    }
    uint32_t pairs[RUNS][2];
#pragma unroll
    for (unsigned run = 0; run < RUNS; ++run) {
        pairs[run][0] = state.pairs[slot][run][g], pairs[run][1] = state.pairs[slot][run][g + 8];
    }
    uint32_t weights[RUNS][2];
    // A second time with new references, which bring all weights into f16 but those of scores that are no numbers.
    bool raised = false;
#pragma unroll 1
    while (true) {
        uint32_t largest = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            p[i] = exp2_approximate(x[i] - reference[i % 2]);
        }
#pragma unroll
        for (unsigned run = 0; run < RUNS; ++run) {
            const float low = LatentAffine(pairs[run][0]).scale, high = LatentAffine(pairs[run][1]).scale;
            weights[run][0] = f16x2_from_f32(p[0] * low, p[1] * low);
            weights[run][1] = f16x2_from_f32(p[2] * high, p[3] * high);
            // Weights are not negative: their bits have their order, infinity above all numbers and NaN above that.
            largest = __vmaxu2(largest, __vmaxu2(weights[run][0], weights[run][1]));
        }
        // 0x7C00 is infinity.
        const bool beyond = ((largest + 0x04000400) & 0x80008000) != 0;
        if (raised || !__any_sync(ALL_LANES, beyond)) {
            break;
        }
        raised = true;
        float low = 0.0f, high = 0.0f;
#pragma unroll
        for (unsigned run = 0; run < RUNS; ++run) {
            low = fmaxf(low, LatentAffine(pairs[run][0]).scale), high = fmaxf(high, LatentAffine(pairs[run][1]).scale);
        }
        low = log2_approximate(low), high = log2_approximate(high);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float found = reduce_rows(fmaxf(x[i] + low, x[i + 2] + high), Maximum());
            reference[i] = fmaxf(common[i], found - LARGEST_WEIGHT_LOG2);
        }
    }
    sums.add(p, pairs, reference);

    // All lanes have read the partial scores, and what they staged before.
    __syncwarp();
    constexpr unsigned UNIT_BYTES = 16 * sizeof(uint4) + 8 * sizeof(float) + sizeof(uint32_t);
    const uint32_t barrier = shared_address(&state.weighed[weights_slot]);
    // Four lanes for each block.
    const bool tells = g < RUNS;
    const uint32_t barrier_there = in_block(barrier, tells ? g : 0);
    if (tells && t == 0) {
        cluster_arrive_expecting(barrier_there, UNIT_BYTES);
    }
    const uint32_t staged = shared_address(state.staged[n]);
#pragma unroll
    for (unsigned run = 0; run + 1 < RUNS; run += 2) {
        stmatrix_x4_transposed(staged + 256 * run + 16 * lane, weights[run][0], weights[run][1], weights[run + 1][0],
                               weights[run + 1][1]);
    }
    if constexpr (RUNS % 2 == 1) {
        stmatrix_x2_transposed(staged + 256 * (RUNS - 1) + 16 * (lane % 16), weights[RUNS - 1][0], weights[RUNS - 1][1]);
    }
    if (tells) {
        float *references = &state.references[weights_slot][quarter][8 * n + 2 * t];
        cluster_store(in_block(shared_address(references), g), float2{reference[0], reference[1]}, barrier_there);
        if (t == 0) {
            cluster_store(in_block(shared_address(&state.raised[weights_slot][n][quarter]), g),
                          static_cast<uint32_t>(raised), barrier_there);
        }
    }
    __syncwarp();
    // Of each block's 16 rows of 8 tokens a lane has the one of head `lane % 8` in every other block.
    const uint32_t row = cluster_weights(memory, weights_slot) + 1024 * n +
                         swizzled(lane % 8, 2 * UNIT_TOKENS * quarter + 16 * (lane / 8 % 2));
#pragma unroll
    for (unsigned i = 0; 2 * i < RUNS; ++i) {
        const unsigned run = 2 * i + lane / 16;
        if (2 * i + 1 < RUNS || lane < 16) {
            cluster_store(in_block(row, run), state.staged[n][32 * i + lane], in_block(barrier, run));
        }
    }
}

// The softmax of all of the block's units, and their sums to all blocks.
template <typename S>
__device__ void weigh_tiles(const SharedMemory<S> &memory, unsigned rank) {
    ClusterState<S> &state = cluster_state(memory);
    const unsigned n = uniform((threadIdx.x - WEIGHERS_BEGIN) / WARP), g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    if (n >= S::N_TILES) {
        return;
    }
    const unsigned tiles = tile_count(state.split);
    UnitSums<S> sums;
    float common[2] = {LOWEST_REFERENCE, LOWEST_REFERENCE};
    Slot unit_slot, weights_slot, known_slot;
    unsigned unit = rank;
    for (unsigned tile = 0; tile < tiles; ++tile) {
        if (tile >= REFERENCE_LAG) {
            const unsigned known = known_slot.index();
            cluster_wait(shared_address(&state.weighed[known]), known_slot.parity());
            const uint4 raised = *reinterpret_cast<const uint4 *>(state.raised[known][n]);
            if ((raised.x | raised.y | raised.z | raised.w) != 0) {
#pragma unroll
                for (unsigned i = 0; i < TILE_UNITS; ++i) {
                    const float2 reference =
                        *reinterpret_cast<const float2 *>(&state.references[known][i][8 * n + 2 * t]);
                    common[0] = fmaxf(common[0], reference.x), common[1] = fmaxf(common[1], reference.y);
                }
            }
            known_slot.advance(1, WEIGHT_TILES);
        }
#pragma unroll 1
        for (; unit < TILE_UNITS * (tile + 1); unit += S::RUNS) {
            cluster_wait(shared_address(&state.scored[unit_slot.index()]), unit_slot.parity());
            weigh_unit<S>(memory, n, tile, unit % TILE_UNITS, unit_slot.index(), weights_slot.index(), common, sums);
            unit_slot.advance(1, S::UNITS);
        }
        weights_slot.advance(1, WEIGHT_TILES);
    }
    // Four lanes for each block.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float sum = reduce_rows(sums.sum[i], Sum());
        float own_mins = 0.0f;
#pragma unroll
        for (unsigned run = 0; run < S::RUNS; ++run) {
            const float mins = reduce_rows(sums.mins[run][i], Sum());
            own_mins = g == run ? mins : own_mins;
        }
        if (g < S::RUNS) {
            cluster_store(in_block(shared_address(&state.totals[rank][8 * n + 2 * t + i]), g),
                          float4{sum, own_mins, sums.reference[i], 0.0f});
        }
    }
}
