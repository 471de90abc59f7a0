// What a cluster of the Hopper kernel for long latents is: roles of its blocks and of their warps, and what they hand to
// each other.
//
// Units: a tile's tokens are four units of 16, as many as one warp of a warpgroup has scores of, and as one product takes.
// Unit w of tile i is number u = 4 i + w, and its softmax is done by the cluster's block u % RUNS.
#pragma once

#include "../../ptx/cluster.cuh"
#include "../../ptx/mbarrier.cuh"
#include "../sm90/block.cuh"
#include "../sm90/shared.cuh"
#include "../split.cuh"

// Of the block's four warpgroups the first two multiply; then the one that copies, and the one that makes weights.
constexpr unsigned WEIGHERS_BEGIN = CONSUMER_THREADS + PRODUCER_THREADS;
static_assert(WEIGHERS_BEGIN + WARPGROUP == DECODE_CLUSTER_SM90_THREADS, "a block has four warpgroups");

// Units of a tile, and the tokens of one.
constexpr unsigned TILE_UNITS = WARPGROUP_WARPS, UNIT_TOKENS = TILE / TILE_UNITS;

// Scores are made so many tiles ahead of the products of their weights, and the weights of a tile with the references of
// tiles so many before it (softmax.cuh).
constexpr unsigned TILES_AHEAD = DECODE_CLUSTER_SM90_TILES_AHEAD, REFERENCE_LAG = TILES_AHEAD;

// A warp sends scores of tile i behind its products of tile i - SCORES_BEHIND, for which it has waited for weights, and so
// for all who read the partial scores of that tile: these may be overwritten, so that they are held of SCORES_BEHIND tiles.
constexpr unsigned SCORES_BEHIND = TILES_AHEAD + 1;

// Tiles whose weights are held. Those of tile i are made when all warps of all blocks that multiply have done with tile i -
// SCORES_BEHIND, as the warps that copy tell. And they are made behind weights of tiles i - REFERENCE_LAG and before, so
// behind all that was read for those of references: for tile i - REFERENCE_LAG, or the one before if a block has no unit of
// this, of tiles REFERENCE_LAG before.
constexpr unsigned WEIGHT_TILES = DECODE_CLUSTER_SM90_WEIGHT_TILES;
static_assert(WEIGHT_TILES >= SCORES_BEHIND && WEIGHT_TILES >= 2 * REFERENCE_LAG + 1, "weights would be overwritten");

// Groups of a rotated key in a block's part of it, which is `rope_blocks` blocks of 64 values: as many (scale, min) pairs of
// a token it has behind that of its latents. Where the whole key has one pair, every block has it.
__device__ inline unsigned own_rope_groups(const DecodeParams &params) {
    const unsigned steps = 2 * params.sm90.rope_blocks;
    return params.cache.rope_group == 0 || steps == 0 ? 0 : max(1u, steps >> params.rope_group_log2);
}

// Which of the key's groups is the first of block `rank`'s part.
__device__ inline unsigned own_rope_group(const DecodeParams &params, unsigned rank) {
    return 2 * params.sm90.rope_blocks * rank >> params.rope_group_log2;
}

template <Latents LATENTS_, int RUNS_, int N_TILES_>
struct ClusterShape : Shape<LATENTS_, DECODE_CLUSTER_SM90_RUN / STEP, N_TILES_, true> {
    // Blocks of the cluster, each with a run of latents.
    static constexpr unsigned RUNS = RUNS_;
    // Units whose partial scores a block holds: its own of SCORES_BEHIND tiles.
    static constexpr unsigned UNITS = (SCORES_BEHIND * TILE_UNITS + RUNS - 1) / RUNS;
    // Of a token a block has one pair for its latents, and behind it those of its part of the rotated key.
    __device__ static unsigned pair_bytes(const DecodeParams &params) { return 4 + 4 * own_rope_groups(params); }
    __device__ static unsigned first_rope_pair(const DecodeParams &) { return 1; }
    // Registers per thread of those that multiply, copy, and make weights: 65536 for the block.
    static constexpr int CONSUMER_REGISTERS = 184, PRODUCER_REGISTERS = 40, WEIGHER_REGISTERS = 104;
    static_assert(CONSUMERS * CONSUMER_REGISTERS + PRODUCER_REGISTERS + WEIGHER_REGISTERS <= 65536 / WARPGROUP,
                  "too many registers");
};

// What lies in a block's shared memory beside queries, weights and stages.
template <typename S>
struct ClusterState : BlockState<S> {
    // Barriers: the partial scores of a unit are there; a tile's weights are there.
    uint64_t scored[S::UNITS], weighed[WEIGHT_TILES];
    // What every block's latents and its part of the rotated keys give to the scores of a unit, as exponents of 2, in the
    // fragments of their products.
    float4 partials[S::UNITS][S::RUNS][S::N_TILES][WARP];
    // The (scale, min) pairs of every block's latents, of a unit's tokens.
    uint32_t pairs[S::UNITS][S::RUNS][UNIT_TOKENS];
    // What a tile's units have subtracted from the exponents, and whether that is more than what tiles up to REFERENCE_LAG
    // before asked for.
    alignas(16) float references[WEIGHT_TILES][TILE_UNITS][S::HEADS];
    alignas(16) uint32_t raised[WEIGHT_TILES][S::N_TILES][TILE_UNITS];
    // A warp's weights for all blocks, on their way there: of each block two matrices of 8 heads and 8 tokens.
    uint4 staged[S::N_TILES][S::RUNS * 16];
    // Of every block and head, in the end: the sums of P and of P times the min of this block's latents; what was
    // subtracted from the exponents.
    float4 totals[S::RUNS][S::HEADS];
};

template <typename S>
__device__ ClusterState<S> &cluster_state(const SharedMemory<S> &memory) {
    return static_cast<ClusterState<S> &>(memory.state());
}

// Who does the softmax of a unit.
template <typename S>
__device__ unsigned owner_of_unit(unsigned unit) {
    return unit % S::RUNS;
}

// Where its partial scores lie there.
template <typename S>
__device__ unsigned slot_of_unit(unsigned unit) {
    return unit / S::RUNS % S::UNITS;
}

// The weights of a tile: [heads][64], swizzled.
template <typename S>
__device__ uint32_t cluster_weights(const SharedMemory<S> &memory, unsigned slot) {
    return memory.weights(0, 0) + slot * S::BLOCK_BYTES;
}

// The tiles of a split.
__device__ inline unsigned tile_count(const DecodeSplit &split) {
    return (split.end - tiles_begin(split) + TILE - 1) / TILE;
}
