// What a block of `decode` is: sizes fixed at compile time, its static shared memory, and the order of tokens.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include <type_traits>

#include "../../common/reduce.cuh"
#include "../../params.h"
#include "../../ptx/address.cuh"
#include "../../ptx/special.cuh"
#include "../latents.cuh"
#include "../query_sums.cuh"

constexpr unsigned WARPS = DECODE_THREADS / WARP;

// Latents per k-step of the scores, and of a slice of the output.
constexpr unsigned STEP = DECODE_STEP;

// `WARPS` slices of `STEP` latents are a run: as many as share a scale in `Latents::Whole`.
constexpr unsigned RUN = WARPS * STEP;

// Values per k-step of the rotated key.
constexpr unsigned ROPE_STEP = DECODE_ROPE_STEP;

// Groups of latents whose mins one tensor-core product takes: a block of groups.
constexpr unsigned GROUP_BLOCK = DECODE_GROUP_BLOCK;

template <Latents LATENTS_, int SLICES_, int N_TILES_, int TOKENS_>
struct Shape {
    static constexpr Latents LATENTS = LATENTS_;
    static constexpr bool CODED = LATENTS != Latents::Bf16;
    // Slices of latents that a warp accumulates: slice w + 8 i is warp w's, and lies in run i.
    static constexpr int SLICES = SLICES_;
    // n-tiles of 8 heads.
    static constexpr int N_TILES = N_TILES_;
    static constexpr int HEADS = 8 * N_TILES;
    // Tokens of a tile, or of 16 the most: tiles may have 8.
    static constexpr int TOKENS = TOKENS_;
    static constexpr int M_TILES = TOKENS / 16;
    // m-tiles of a warp's scores: each fragment of the query is read once for all of them. Two where the query is long,
    // as then there are more parts of scores to be added up.
    static constexpr int SHARE = SLICES > 2 && M_TILES > 1 ? 2 : 1;
    // Warps that share the scores of these m-tiles, each with a slice of the contraction.
    static constexpr int K_SLICES = WARPS * SHARE / M_TILES;
    // Most fragments of a tile's scores of which a warp makes weights (fragments.cuh).
    static constexpr int OWN = (SHARE * N_TILES + K_SLICES - 1) / K_SLICES;
    // Where the tokens lie that a lane takes to scores, two, and to the output, four; of Bf16 the row of its matrices.
    using ScorePlaces = std::conditional_t<CODED, uint2, uint32_t>;
    using CodePlaces = std::conditional_t<CODED, uint4, uint32_t>;
    // Bytes from head to head of the latents' query, an odd multiple of 16, if it is the same for all layers: where room
    // is short it is the layer's.
    static constexpr int QUERY_STRIDE = SLICES > 2 ? 0 : 2 * SLICES * RUN + 16;
    // Bytes from token to token of a stage's codes, as src/ops/decode/sm80.rs has them, in the layers that the kernel
    // serves most: of 512, 1024 and 2048 latents.
    static constexpr unsigned LATENT_STRIDE = ((SLICES < 4 ? SLICES : 4) * RUN / 2 + 95) / 128 * 128 + 32;
    static_assert(OWN == 1 || SHARE == 1, "a warp's own fragments are of one m-tile");
    // Runs of latents that share a scale in Latents::Whole.
    static constexpr int RUNS = LATENTS == Latents::Whole ? SLICES : 1;
    // Most groups with a scale and a min each.
    static constexpr int GROUPS = LATENTS == Latents::Groups ? SLICES * RUN / 32 : RUNS;
    // Groups in one slice of latents may be two.
    static constexpr int HALVES = LATENTS == Latents::Groups ? 2 : 1;
    // Planes of weights. Whole: a weight times the scale of each run. Bf16: a weight is the sum of two.
    static constexpr int PLANES = LATENTS == Latents::Bf16 ? 2 : RUNS;
};

// From a head's accumulated score to the exponent of its weight: score * factor + offset (softmax.cuh).
struct alignas(8) HeadExponent {
    float factor, offset;
};

// What a lane's weights add to the sums of its own fragments' two heads: number 0 exact weights, then rounded ones. Whole:
// those of each run, and behind them what they give times the mins.
template <typename S>
struct Sums {
    static constexpr int COUNT = S::LATENTS == Latents::Whole ? 1 + 2 * S::RUNS : S::LATENTS == Latents::Groups ? 2 : 1;
    // The number of the rounded weights that a run's output is divided by.
    __device__ static constexpr int divisor(int run) {
        return S::LATENTS == Latents::Whole ? 1 + 2 * run : COUNT - 1;
    }
    float2 of[S::OWN][COUNT];
};

// Addresses in the cache of the rows that a warp copies of a tile: of its first token. All are 0 past the end of the split.
// (24 bytes: 8 bytes of eight of them are in different banks.)
struct CopiedRows {
    uint64_t latents, rope, affine;
};

// What a warp's number adds to addresses, in bytes; what a lane's adds is in places.cuh.
struct alignas(16) WarpPlaces {
    // From the start of a stage to the rows of the tokens that it copies.
    uint32_t to_latents, to_rope, to_affine;
    // Scores: from the start of a stage to its first m-tile's rows and its k-slice in them, and from the beginning of a row
    // of the query to its k-slice; its k-steps.
    uint32_t codes, query, steps;
};

// The same of a warp's own fragments: the number of the first, its n-tile, and the rows of pairs and of rotated keys of its
// m-tile. (Apart from the above, as the compiler would keep the address of both in a register.)
struct alignas(16) OwnPlaces {
    uint32_t fragment, n_tile, affine, rope;
};

// The k-steps of the rotated key in which the rope heads of an n-tile lie: the first, and how many; bytes to where the
// n-tile's heads begin in the query and in its sums.
struct alignas(16) RopeTile {
    uint32_t first, count, query, sums;
};

// The static shared memory of a block: a few small arrays whose sizes the kernel knows. Aligned, so that dynamic shared
// memory behind it begins on a multiple of 128 bytes.
template <typename S>
struct __align__(128) BlockState {
    // Of the tile at hand and the next (load.cuh).
    CopiedRows rows[2][WARPS];
    WarpPlaces warps[WARPS];
    OwnPlaces own[WARPS];
    // The block's work: here rather than in registers.
    DecodeSplit split;
    // The unit of a group's scales, and what this tile made of the one before (scales.cuh).
    float units[S::GROUPS], renormalise[S::GROUPS];
    // Whole: the inverse of each run's unit.
    float inverse_units[S::RUNS];
    alignas(16) HeadExponent exponents[S::HEADS];
    // What sums and outputs so far are multiplied with when a tile has changed a head's offset.
    float rescale[S::HEADS];
    // Largest exponents of a tile without the offset, of each m-tile.
    float largest[S::M_TILES][S::HEADS];
    // Per lane, where its numbers lie in a stage or in the query (places.cuh): rows g and g + 8 of pairs, then of rotated
    // keys.
    uint4 row_places[WARP];
    uint32_t query_places[WARP], rope_query_places[WARP];
    typename S::ScorePlaces score_places[WARP];
    typename S::CodePlaces code_places[WARP];
    RopeTile rope_tiles[S::N_TILES];
    // The first token of the last tile that had a weight too large for its format.
    unsigned overflowed;
};

// In which order a tile's tokens stand in the products: as row of the scores, and as k of the output. For a position its
// token, and for a token its position. Neighbouring positions, and the four even or odd ones of a half of 16, are tokens
// that differ modulo 4, and rows of latents that differ modulo 4 are in different banks: scores read rows g, the output
// the rows 2 t and 2 t + 1.
__device__ inline unsigned token_at(unsigned position) { return position ^ (position >> 2 & 3); }

// Where a position's number stands in a row of 16-bit numbers that lanes read 8 bytes of at once: lane t of a quarter has
// positions 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of 16, as a B fragment does.
__device__ inline unsigned place_in_row(unsigned position) {
    return (position & ~15u) + position % 8 / 2 * 4 + position % 16 / 8 * 2 + position % 2;
}
