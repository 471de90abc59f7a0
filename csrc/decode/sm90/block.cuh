// What a block of the Hopper kernel is: sizes fixed at compile time, roles of its warps, the order of tokens, and the
// few numbers that its warpgroups keep in shared memory.
#pragma once

#include <stdint.h>

#include "../../common/reduce.cuh"
#include "../../params.h"
#include "../../ptx/address.cuh"
#include "../latents.cuh"

constexpr unsigned WARPGROUP = 128, WARPGROUP_WARPS = WARPGROUP / WARP;

// Warpgroups that multiply, each with every other tile; the threads behind theirs copy.
constexpr unsigned CONSUMERS = 2, CONSUMER_THREADS = CONSUMERS * WARPGROUP;
constexpr unsigned PRODUCER_THREADS = DECODE_SM90_THREADS - CONSUMER_THREADS;

// Numbers of named barriers: of all that multiply, and from GROUP_BARRIER on of one warpgroup.
constexpr unsigned CONSUMER_BARRIER = 1, GROUP_BARRIER = 2;

constexpr unsigned TILE = DECODE_MAX_TILE;

// Stages of shapes whose warpgroups work together.
constexpr unsigned TOGETHER_STAGES = DECODE_SM90_TOGETHER_STAGES;

// Latents per k-step of the scores, and of an m-tile of the output.
constexpr unsigned STEP = DECODE_STEP;

// Values per k-step of the rotated key. Two are a block of the query.
constexpr unsigned ROPE_STEP = DECODE_ROPE_STEP;

template <Latents LATENTS_, int STEPS_, int BLOCK_TILES_, bool SHARED_ = BLOCK_TILES_ == 8 || LATENTS_ == Latents::Bf16>
struct Shape {
    static constexpr Latents LATENTS = LATENTS_;
    // Whether a warpgroup has the scores of half of the heads, for all tiles: of bf16, which nobody unpacks (bf16.cuh).
    static constexpr bool BY_HEADS = LATENTS == Latents::Bf16;
    // Whether latents have several scales, and how many 64 of them have.
    static constexpr bool GROUPED = LATENTS == Latents::Groups || LATENTS == Latents::Groups32;
    static constexpr int STEP_GROUPS = LATENTS == Latents::Groups32 ? 2 : 1;
    // k-steps of the scores, and m-tiles of the output.
    static constexpr int STEPS = STEPS_;
    // n-tiles of 8 heads of a block, and those whose scores a warpgroup has.
    static constexpr int BLOCK_TILES = BLOCK_TILES_, N_TILES = BY_HEADS ? BLOCK_TILES / 2 : BLOCK_TILES;
    static constexpr int HEADS = 8 * BLOCK_TILES, OWN_HEADS = 8 * N_TILES;
    // Sums that a thread has of a product of 64 rows.
    static constexpr int SUMS = 4 * N_TILES;
    // Whether the warpgroups work on two tiles together, each with the scores of one and half of the latents for both, as
    // the outputs of 64 heads are too many for one; with bf16 on one tile. Otherwise each has its own tiles and all latents.
    static constexpr bool SHARED = SHARED_;
    // Whether the outputs leave few registers to the scores.
    static constexpr bool CROWDED = BLOCK_TILES == 8;
    // m-tiles of 64 latents that a warpgroup accumulates.
    static constexpr int M_TILES = SHARED ? STEPS / 2 : STEPS;
    // Heads that a thread has sums of: columns 2 t and 2 t + 1 of each n-tile, in its two rows.
    static constexpr int COLUMNS = 2 * N_TILES;
    // Bytes of a token's codes, and from token to token in shared memory: an odd multiple of 16, so that 16 bytes of
    // each of eight tokens are in different banks, as `ldmatrix` reads them, or 32 of each of four, two apart.
    static constexpr unsigned ROW_BYTES = STEPS * STEP / 2, ROW_STRIDE = ROW_BYTES + 16;
    // Bytes of 64 numbers of the query of all heads, and of 64 weights of all heads.
    static constexpr unsigned BLOCK_BYTES = 128 * HEADS;
    static_assert(ROW_STRIDE % 32 == 16, "rows lie in the same banks");
    // Bytes of a token's pairs of (scale, min) in shared memory, and which of them is the first of its rotated key: as in
    // the cache.
    __device__ static unsigned pair_bytes(const DecodeParams &params) { return params.cache.affine_row_bytes; }
    __device__ static unsigned first_rope_pair(const DecodeParams &params) { return params.cache.latent_groups; }
    // Registers per thread of those that multiply and of those that copy: 64512 for the block, of 65536.
    static constexpr int CONSUMER_REGISTERS = M_TILES * SUMS > 64 ? 240 : 232;
    static constexpr int PRODUCER_REGISTERS = M_TILES * SUMS > 64 ? 24 : 40;
    static_assert(CONSUMERS * CONSUMER_REGISTERS + PRODUCER_REGISTERS <= 65536 / WARPGROUP, "too many registers");
};

// A thread's sums of 64 latents, or tokens, of all heads.
template <typename S>
using Sums = float[S::SUMS];

template <int SUMS>
__device__ void clear(float (&sums)[SUMS]) {
#pragma unroll
    for (int i = 0; i < SUMS; ++i) {
        sums[i] = 0.0f;
    }
}

// The four pairs of A that a thread has of 16 k.
using FragmentA = uint32_t[4];

// What lies in shared memory beside queries, weights and stages.
template <typename S>
struct BlockState {
    // The block's work: here rather than in registers.
    DecodeSplit split;
    // Barriers of each stage: its tile is there; its tile has been read.
    uint64_t full[DECODE_SM90_MAX_STAGES], empty[DECODE_SM90_MAX_STAGES];
    // The warpgroups' references (softmax.cuh).
    alignas(8) float references[CONSUMERS][S::OWN_HEADS];
    // Of heads 8 n + 2 t and the next, at [t][n]: number of the pair of (scale, min) of their group of a rotated key.
    alignas(8) uint8_t rope_words[4][8];
    // From a sum of products to the exponent of 2, for a scale of 1.
    float factor;
    // Each warp's largest magnitude of the query, as a bf16.
    uint32_t largest_query[CONSUMER_THREADS / WARP];
    // What each warp finds of a tile, for new references (softmax.cuh); in the end, for the merge, its sums of P and of
    // P min.
    union {
        float2 sums[S::OWN_HEADS];
        float largest[S::OWN_HEADS];
    } of_warp[CONSUMER_THREADS / WARP];
    // What the accumulated outputs are multiplied with in the end, and what is added then.
    float rescale[CONSUMERS][S::OWN_HEADS], offsets[S::OWN_HEADS];
};

// In which order eight tokens stand in the products, as rows of the scores and as k of the output: four neighbouring
// rows are tokens two apart, whose 32 bytes are in different banks.
__device__ inline unsigned token_in_row(unsigned g) { return g % 4 * 2 + g / 4; }
