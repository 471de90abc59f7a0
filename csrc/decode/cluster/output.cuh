// The output of a tile in a cluster: as ../sm90/output.cuh has it where all weights are in the same terms, and unit by unit
// otherwise.
#pragma once

#include "../sm90/output.cuh"
#include "softmax.cuh"

// What a warpgroup has accumulated, and of a thread's heads what has been subtracted from the exponents in it.
template <typename S>
struct Accumulated {
    Output<S> output = {};
    float references[S::COLUMNS];
    // The first tile whose weights have the same references as the output, unless its units have raised theirs.
    unsigned settled = 0;

    __device__ Accumulated() {
#pragma unroll
        for (int i = 0; i < S::COLUMNS; ++i) {
            references[i] = LOWEST_REFERENCE;
        }
    }
};

// Adds a tile whose units have references of their own: each unit's products by themselves, which come to the others in
// common terms.
template <typename S>
__device__ void accumulate_units(const ClusterState<S> &state, uint32_t codes, uint64_t weights, unsigned slot,
                                 Accumulated<S> &sums) {
    static_assert(BLOCKS<S> == 1, "a warp has a block of latents");
    const unsigned t = threadIdx.x % 4;
#pragma unroll 1
    for (unsigned unit = 0; unit < TILE_UNITS; ++unit) {
        float factors[S::COLUMNS], shrink[S::COLUMNS];
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            const float2 reference = *reinterpret_cast<const float2 *>(&state.references[slot][unit][8 * n + 2 * t]);
#pragma unroll
            for (int i = 2 * n; i < 2 * n + 2; ++i) {
                const float own = i % 2 == 0 ? reference.x : reference.y, after = fmaxf(sums.references[i], own);
                shrink[i] = exp2_approximate(sums.references[i] - after), factors[i] = exp2_approximate(own - after);
                sums.references[i] = after;
            }
        }
        uint32_t half_words[4];
        FragmentA a[4];
        ldmatrix_x4_transposed(half_words, codes + unit * UNIT_TOKENS * S::ROW_STRIDE);
        spread_half_words(a, half_words);
        settle(a);
#pragma unroll
        for (int j = 0; j < S::M_TILES; ++j) {
            Sums<S> products;
            clear(products);
            settle(products);
            wgmma_fence();
            wgmma<false, S::N_TILES>(products, a[j], weights + unit * DESCRIPTOR_STEP);
            wgmma_commit();
            wgmma_wait<0>();
#pragma unroll
            for (int i = 0; i < S::SUMS; ++i) {
                const int column = i / 4 * 2 + i % 2;
                sums.output[j][i] = fmaf(sums.output[j][i], shrink[column], products[i] * factors[column]);
            }
        }
    }
}

// Adds the tile number `tile`, whose codes and weights are there.
template <typename S>
__device__ void accumulate_tile(const DecodeParams &params, const SharedMemory<S> &memory, const unsigned char *stage,
                                unsigned tile, unsigned slot, Accumulated<S> &sums) {
    const ClusterState<S> &state = cluster_state(memory);
    const uint32_t codes = shared_address(stage) + place_of_half_words<S>();
    const uint64_t weights = swizzled_descriptor(cluster_weights(memory, slot));
    const uint32_t *raised = state.raised[slot][0];
    if (__any_sync(ALL_LANES, raised[threadIdx.x % (TILE_UNITS * S::N_TILES)] != 0)) {
        sums.settled = tile + REFERENCE_LAG;
    }
    if (tile < sums.settled) {
        accumulate_units<S>(state, codes, weights, slot, sums);
    } else {
        accumulate<S>(params, codes, token_pairs<S>(params, stage), weights, sums.output);
    }
}
