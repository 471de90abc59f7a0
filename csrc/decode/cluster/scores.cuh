// A tile's partial scores: what the block's latents and its part of the rotated keys give, sent to who does the softmax.
#pragma once

#include "../sm90/rope.cuh"
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
    const unsigned token = warp * UNIT_TOKENS + token_in_row(g), pair_bytes = 4 + 4 * own_rope_groups(params);
    const unsigned char *pairs = stage + map.affine + token * pair_bytes;
    const uint32_t words[2] = {at<uint32_t>(pairs, 0), at<uint32_t>(pairs, 8 * pair_bytes)};
    const LatentAffine low(words[0]), high(words[1]);
    Sums<S> scores;
    const unsigned char *keys = stage + map.rope + token * map.rope_stride + map.rope_lane_bytes * t;
    const RopeRows rope = {keys,
                           keys + 8 * map.rope_stride,
                           pairs + 4,
                           pairs + 8 * pair_bytes + 4,
                           reciprocal_approximate(low.scale),
                           reciprocal_approximate(high.scale)};
    score_rope<S>(params, rope, memory, scores);
    const unsigned char *codes = stage + token * S::ROW_STRIDE + 8 * t;
    score_latents<S>(codes, codes + 8 * S::ROW_STRIDE, swizzled_descriptor(shared_address(memory.q_latent())), scores);

    const unsigned unit = TILE_UNITS * tile + warp, owner = owner_of_unit<S>(unit), slot = slot_of_unit<S>(unit);
    const uint32_t barrier = in_block(shared_address(&state.scored[slot]), owner);
    // What the warp has read before, those that copy tell.
    if (lane == 0) {
        cluster_announce(barrier, sizeof(state.partials[0][0]) + sizeof(state.pairs[0][0]));
    }
    const uint32_t to = in_block(shared_address(&state.partials[slot][rank][0][lane]), owner);
    const float low_factor = low.scale * state.factor, high_factor = high.scale * state.factor;
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const float2 q_sum = *reinterpret_cast<const float2 *>(state.heads[0][4 * n + t].q_sums);
        const float4 x = {fmaf(scores[4 * n], low_factor, low.min * q_sum.x),
                          fmaf(scores[4 * n + 1], low_factor, low.min * q_sum.y),
                          fmaf(scores[4 * n + 2], high_factor, high.min * q_sum.x),
                          fmaf(scores[4 * n + 3], high_factor, high.min * q_sum.y)};
        cluster_store(to + n * sizeof(state.partials[0][0][0]),
                      uint4{__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w)},
                      barrier);
    }
    if (t < 2) {
        cluster_store(in_block(shared_address(&state.pairs[slot][rank][g + 8 * t]), owner), t == 0 ? words[0] : words[1],
                      barrier);
    }
}
