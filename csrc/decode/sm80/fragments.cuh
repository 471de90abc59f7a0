// A thread's registers of the operands of m16n8k16 products (ptx/mma.cuh), and where its elements belong.
#pragma once

#include "block.cuh"

// Of A, 16 x 16: four pairs of 16-bit elements.
using FragmentA = uint32_t[4];

// Of B, 16 x 8: two pairs of 16-bit elements.
using FragmentB = uint2;

// Of C, 16 x 8: four sums, in rows g and g + 8 of columns 2 t and 2 t + 1.
using FragmentC = float[4];

// What a warp computes of a tile's scores: SHARE m-tiles of 16 tokens, over one of K_SLICES equal parts of the
// contraction. The warps that share m-tiles then divide their fragments, m-tile by n-tile, among themselves: a warp has
// OWN neighbours. It is opaque, so that it is computed where it is needed.
template <typename S>
struct ScoreTile {
    unsigned m_group, k_slice;

    __device__ explicit ScoreTile(unsigned warp = thread_index() / WARP) {
        m_group = warp % (WARPS / S::K_SLICES);
        k_slice = warp / (WARPS / S::K_SLICES);
    }

    // The m-tile of the j-th of the warp's.
    __device__ unsigned m_tile(unsigned j) const { return S::SHARE * m_group + j; }
};

// The i-th of a warp's own fragments of scores.
template <typename S>
struct OwnFragment {
    unsigned m_tile, n_tile;
    bool exists;

    __device__ explicit OwnFragment(unsigned i, unsigned warp = thread_index() / WARP) {
        const ScoreTile<S> tile(warp);
        const unsigned number = S::OWN * tile.k_slice + i;
        m_tile = tile.m_tile(S::SHARE == 1 ? 0 : number / S::N_TILES);
        n_tile = S::SHARE == 1 ? number : number % S::N_TILES;
        exists = S::OWN * S::K_SLICES == S::SHARE * S::N_TILES || number < S::SHARE * S::N_TILES;
        if (!exists) {
            // Another one's, for whoever reads before asking.
            n_tile = 0;
        }
    }

    // The head of a lane's first column; the second is the next.
    __device__ unsigned head() const { return 8 * n_tile + thread_index() % 4 * 2; }
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

// Blocks of GROUP_BLOCK groups.
__device__ inline unsigned group_blocks(const DecodeParams &params) {
    return (params.cache.latent_groups + GROUP_BLOCK - 1) / GROUP_BLOCK;
}

// The group of m-tile j of a slice; those beyond the latent are in none, but all are alike.
template <typename S>
__device__ unsigned group_of(const DecodeParams &params, unsigned slice, unsigned j) {
    if constexpr (S::LATENTS == Latents::Whole) {
        return slice / WARPS;
    } else {
        const unsigned latent = STEP * slice + STEP / 2 * (j / 2);
        return min(latent >> params.latent_group_log2, params.cache.latent_groups - 1);
    }
}
