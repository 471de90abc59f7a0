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

// Aligned, so that dynamic shared memory behind it begins on a multiple of 128 bytes.
template <typename S>
struct __align__(128) SmallArrays {
    // Addresses of the tokens' pages, of the tile at hand and the next; 0 past the item's end.
    uint64_t pages[2][DECODE_MAX_TILE];
    // The block's work: here rather than in registers.
    DecodeItem item;
    // Per thread: its running sum of the softmax, and the largest exponent of 2 so far of that sum's head.
    float sums[DECODE_THREADS], largest[DECODE_THREADS];
    // Per run and warp, all alike: the unit of the weights (softmax.cuh).
    float units[S::RUNS][WARPS];
    // From accumulated score to the exponent of 2, per head.
    float logit_factor[S::HEADS];
    // Sums of the scaled query over each run (Whole).
    float q_sums[S::RUNS][S::HEADS];
    // What the accumulated output is to be multiplied with before this tile's.
    float rescale[S::RUNS][S::HEADS];
    // out = accumulator * out_factor + out_offset.
    float out_factor[S::RUNS][S::HEADS];
    float out_offset[S::RUNS][S::HEADS];
    // Steps of the rotated key in which an n-tile's heads have a part.
    unsigned rope_first[S::TILES], rope_end[S::TILES];
};

template <typename T>
__device__ const T &at(const unsigned char *base, unsigned offset) {
    return *reinterpret_cast<const T *>(base + offset);
}

// In which order a step of 16 tokens stands in the contraction: lane t of a quarter's k = 2 t, 2 t + 1, 2 t + 8, 2 t +
// 9 are tokens t, t + 4, t + 8, t + 12, and in memory these four weights are neighbours.
__device__ inline unsigned weight_position(unsigned token) {
    return (token & ~15u) + 4 * (token & 3) + (token >> 2 & 3);
}
