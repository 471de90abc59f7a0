// What a block of `decode` is: sizes fixed at compile time, small shared arrays, and who does what.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "../common/reduce.cuh"
#include "../params.h"
#include "../ptx/address.cuh"
#include "../ptx/special.cuh"

// How latents lie in the cache: int4 with a scale for each run of 512, int4 with smaller groups, bf16.
enum class Latents { Whole, Groups, Bf16 };

constexpr unsigned WARPS = DECODE_THREADS / WARP;

// Latents per step of the scores' contraction, and of a slice of the output.
constexpr unsigned STEP = 64;

// `WARPS` slices of `STEP` latents are a run: as many as share a scale in `Latents::Whole`.
constexpr unsigned RUN = WARPS * STEP;

// Values per step of the rotated key.
constexpr unsigned ROPE_STEP = 32;

template <Latents LATENTS_, int SLICES_, int TILES_>
struct Shape {
    static constexpr Latents LATENTS = LATENTS_;
    // Slices of latents that a warp accumulates: slice w + 8 i is warp w's, and lies in run i.
    static constexpr int SLICES = SLICES_;
    // n-tiles of 8 heads.
    static constexpr int TILES = TILES_;
    static constexpr int HEADS = 8 * TILES;
    // Runs of latents whose weights differ.
    static constexpr int RUNS = LATENTS == Latents::Whole ? SLICES : 1;
    // Copies of the weights: one for each run, or the two halves of each weight.
    static constexpr int PLANES = LATENTS == Latents::Bf16 ? 2 : RUNS;
};

// In Latents::Whole, for each position of a tile: what brings a P to a weight's unit; what takes the rounded weight
// back to a P; the same times the token's min.
struct __align__(16) TokenFactors {
    float into[DECODE_MAX_TILE], back[DECODE_MAX_TILE], shift[DECODE_MAX_TILE];
};

// A lane's part of its head's sums, relative to the largest exponent: of P, and for each run of Phat and (Whole) Phat *
// min (softmax.cuh).
template <int RUNS>
struct SoftmaxState {
    float sum, rounded[RUNS], shifted[RUNS];
};

// Aligned, so that dynamic shared memory behind it begins on a multiple of 128 bytes.
template <typename S>
struct __align__(128) SmallArrays {
    // Addresses of the tokens' pages, of the tile at hand and the next; 0 past the item's end.
    uint64_t pages[2][DECODE_MAX_TILE];
    // The block's work: here rather than in registers.
    DecodeItem item;
    // Whole: what the weights of a run need of this tile's tokens (softmax.cuh). After the last tile, per head: out =
    // accumulator * factor + offset.
    union {
        TokenFactors tokens[S::RUNS];
        struct {
            float factor[S::HEADS], offset[S::HEADS];
        } out[S::RUNS];
    };
    // The unit of a run's weights, and what this tile made of the one before.
    float units[S::RUNS], renormalise[S::RUNS];
    // The largest exponent of 2 so far, per head.
    float largest[S::HEADS];
    // From accumulated score to the exponent of 2, per head.
    float logit_factor[S::HEADS];
    // Sums of the scaled query over each run (Whole).
    float q_sums[S::RUNS][S::HEADS];
    // What the accumulated output is to be multiplied with before this tile's.
    float rescale[S::RUNS][S::HEADS];
    // Steps of the rotated key in which an n-tile's heads have a part: the first, and how many.
    uint2 rope_steps[S::TILES];
    // Per thread, if there is one run.
    SoftmaxState<S::RUNS> states[S::RUNS == 1 ? DECODE_THREADS : 1];
};

template <typename T>
__device__ const T &at(const unsigned char *base, unsigned offset) {
    return *reinterpret_cast<const T *>(base + offset);
}

// In which order a tile's tokens stand in the products: as row of the scores, and as k of the output, where lane t of a
// quarter has positions 4 t .. 4 t + 3 of 16. For a position its token, and for a token its position. Both four
// neighbouring positions and four that are 4 apart are tokens that differ modulo 4, and rows of latents that differ
// modulo 4 are in different banks; so the one as well as the other can be read at once.
__device__ inline unsigned token_at(unsigned position) { return position ^ (position >> 2 & 3); }
