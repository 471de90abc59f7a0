// A thread's registers of the operands of m16n8k16 products (ptx/mma.cuh), and where its elements belong.
#pragma once

#include "block.cuh"

// Of A, 16 x 16: four pairs of 16-bit elements.
using FragmentA = uint32_t[4];

// Of B, 16 x 8: two pairs of 16-bit elements.
using FragmentB = uint2;

// Of C, 16 x 8: four sums, in rows g and g + 8 of columns 2 t and 2 t + 1.
using FragmentC = float[4];

// What a warp computes of a tile's scores: an m-tile of 16 tokens, over one k-slice of the contraction, which is every
// k_slices-th k-step. It is opaque, so that it is computed where it is needed.
struct ScoreTile {
    unsigned m_tile, k_slice;
    __device__ explicit ScoreTile(const DecodeParams &params) {
        const unsigned warp = thread_index() / WARP;
        m_tile = warp & (params.m_tiles - 1);
        k_slice = warp * params.k_slices / WARPS;
    }
};

// The tokens of a lane's rows g and g + 8 of an m-tile; a tile of fewer than 16 tokens has the same in both.
struct RowTokens {
    unsigned low, high;
    __device__ RowTokens(const DecodeParams &params, unsigned lane, unsigned m_tile) {
        const unsigned position = 16 * m_tile + lane / 4, mask = params.tile_tokens - 1;
        low = token_at(position) & mask;
        high = token_at(position + 8) & mask;
    }
};

// C fragments of 64 latents, m-tile j in rows g and g + 8. Whole: 8 g + 2 j and 8 g + 2 j + 1. Groups: j / 2 is the
// half, in it 4 g + 2 (j % 2) and 4 g + 2 (j % 2) + 1. Bf16: 16 j + g and 16 j + g + 8.
template <typename S>
using Output = FragmentC[S::SLICES][4][S::N_TILES];

// The latent of m-tile j of a slice in a lane's row g + 8 `row`.
template <typename S>
__device__ unsigned latent_of(unsigned slice, unsigned j, unsigned row) {
    const unsigned g = threadIdx.x % WARP / 4;
    switch (S::LATENTS) {
        case Latents::Whole:
            return STEP * slice + 8 * g + 2 * j + row;
        case Latents::Groups:
            return STEP * slice + STEP / 2 * (j / 2) + 4 * g + 2 * (j % 2) + row;
        default:
            return STEP * slice + 16 * j + g + 8 * row;
    }
}

// The group of m-tile j of a slice; those beyond the latent are in none, but all are alike.
template <typename S>
__device__ unsigned group_of(const DecodeParams &params, unsigned slice, unsigned j) {
    if constexpr (S::LATENTS == Latents::Whole) {
        return slice / WARPS;
    } else {
        const unsigned latent = STEP * slice + STEP / 2 * (j / 2);
        return min(latent >> (__ffs(params.cache.latent_group) - 1), params.cache.latent_groups - 1);
    }
}
