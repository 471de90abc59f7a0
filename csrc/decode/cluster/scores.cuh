// A tile's partial scores: what the block's latents and its part of the rotated keys give, sent to who does the softmax.
#pragma once

#include "../sm90/scores.cuh"
#include "block.cuh"

// Scores of the tile in a stage by the calling warpgroup, as exponents of 2, to the blocks that do its units' softmax. Of
// tokens that do not exist they are any numbers.
template <typename S>
__device__ void send_scores(const DecodeParams &params, const SharedMemory<S> &memory, const unsigned char *stage,
                            unsigned tile, unsigned rank) {
    ClusterState<S> &state = cluster_state(memory);
    const DecodeSm90Shared &map = params.sm90;
    const unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, warp = threadIdx.x % WARPGROUP / WARP;
    // The thread's tokens, of which the second is 8 further.
    const unsigned token = warp * UNIT_TOKENS + token_in_row(g), pair_bytes = S::pair_bytes(params);
    const unsigned char *low_pairs = stage + map.affine + token * pair_bytes;
    const PairRows pairs = {low_pairs, low_pairs + 8 * pair_bytes};
    const uint2 words = pairs.pairs(0);
    float2 scales = pairs.scales(0);
    Sums<S> scores;
    const unsigned char *keys = stage + map.rope + token * map.rope_stride + map.rope_lane_bytes * t;
    const unsigned char *codes = stage + token * S::ROW_STRIDE + 8 * t;
    score_tokens<S>(params, memory, codes, keys, pairs, words, scales, scores);

    const unsigned unit = TILE_UNITS * tile + warp, owner = owner_of_unit<S>(unit), slot = slot_of_unit<S>(unit);
    const uint32_t barrier = in_block(shared_address(&state.scored[slot]), owner);
    // What the warp has read before, those that copy tell.
    if (lane == 0) {
        cluster_announce(barrier, sizeof(state.partials[0][0]) + sizeof(state.pairs[0][0]));
    }
    const uint32_t to = in_block(shared_address(&state.partials[slot][rank][0][lane]), owner);
    scale_rows<S>({scales.x * state.factor, scales.y * state.factor}, scores);
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        cluster_store(to + n * sizeof(state.partials[0][0][0]),
                      uint4{__float_as_uint(scores[4 * n]), __float_as_uint(scores[4 * n + 1]),
                            __float_as_uint(scores[4 * n + 2]), __float_as_uint(scores[4 * n + 3])},
                      barrier);
    }
    if (t < 2) {
        cluster_store(in_block(shared_address(&state.pairs[slot][rank][g + 8 * t]), owner), t == 0 ? words.x : words.y,
                      barrier);
    }
}
