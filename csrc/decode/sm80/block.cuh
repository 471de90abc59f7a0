// What a block of `decode` is: sizes fixed at compile time, its static shared memory, and the order of tokens.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../../common/reduce.cuh"
#include "../../params.h"
#include "../../ptx/address.cuh"
#include "../../ptx/special.cuh"
#include "../latents.cuh"

constexpr unsigned WARPS = DECODE_THREADS / WARP;

// Latents per k-step of the scores, and of a slice of the output.
constexpr unsigned STEP = DECODE_STEP;

// `WARPS` slices of `STEP` latents are a run: as many as share a scale in `Latents::Whole`.
constexpr unsigned RUN = WARPS * STEP;

// Values per k-step of the rotated key.
constexpr unsigned ROPE_STEP = DECODE_ROPE_STEP;

// Groups of latents whose mins one tensor-core product takes: a block of groups.
constexpr unsigned GROUP_BLOCK = DECODE_GROUP_BLOCK;

// A query's numbers are up to 2^15 (../scaled_query.cuh), and sums of 128 of them times this fit an f16.
constexpr float Q_SUM_UNIT = 1.0f / 128.0f;

template <Latents LATENTS_, int SLICES_, int N_TILES_>
struct Shape {
    static constexpr Latents LATENTS = LATENTS_;
    static constexpr bool CODED = LATENTS != Latents::Bf16;
    // Slices of latents that a warp accumulates: slice w + 8 i is warp w's, and lies in run i.
    static constexpr int SLICES = SLICES_;
    // n-tiles of 8 heads.
    static constexpr int N_TILES = N_TILES_;
    static constexpr int HEADS = 8 * N_TILES;
    // Runs of latents that share a scale in Latents::Whole.
    static constexpr int RUNS = LATENTS == Latents::Whole ? SLICES : 1;
    // Most groups with a scale and a min each.
    static constexpr int GROUPS = LATENTS == Latents::Groups ? SLICES * RUN / 32 : RUNS;
    // Groups in one slice of latents may be two.
    static constexpr int HALVES = LATENTS == Latents::Groups ? 2 : 1;
    // Copies of the weights: a bf16 weight is the sum of two.
    static constexpr int PLANES = LATENTS == Latents::Bf16 ? 2 : 1;
};

// What a lane contributes to its head's sums, relative to the largest exponent: of P, and of P as the weights have it.
struct SoftmaxState {
    float sum, rounded;
};

// The static shared memory of a block: a few small arrays whose sizes the kernel knows. Aligned, so that dynamic shared
// memory behind it begins on a multiple of 128 bytes.
template <typename S>
struct __align__(128) BlockState {
    // Addresses of the pages of each warp's tokens (load.cuh), of the tile at hand and the next; 0 past the split.
    uint64_t pages[2][WARPS];
    // The block's work: here rather than in registers.
    DecodeSplit split;
    // The unit of a group's scales, and what this tile made of the one before (scales.cuh).
    float units[S::GROUPS], renormalise[S::GROUPS];
    // The largest exponent of 2 so far, per head.
    float largest[S::HEADS];
    // From accumulated score to the exponent of 2, per head.
    float logit_factor[S::HEADS];
    // Sums of the scaled query over each run (Whole).
    float q_sums[S::RUNS][S::HEADS];
    // What the accumulated output is to be multiplied with: before a tile's is added, and after the last one.
    float rescale[S::HEADS];
    // k-steps of the rotated key in which the rope heads of an n-tile lie: the first, and how many.
    uint2 rope_steps[S::N_TILES];
    // Per thread: here rather than in registers, which are the output's.
    SoftmaxState states[DECODE_THREADS];
};

// In which order a tile's tokens stand in the products: as row of the scores, and as k of the output, where lane t of a
// quarter has positions 4 t .. 4 t + 3 of 16. For a position its token, and for a token its position. Both four
// neighbouring positions and four that are 4 apart are tokens that differ modulo 4, and rows of latents that differ
// modulo 4 are in different banks; so the one as well as the other can be read at once.
__device__ inline unsigned token_at(unsigned position) { return position ^ (position >> 2 & 3); }
