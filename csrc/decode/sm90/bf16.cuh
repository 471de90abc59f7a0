// Latents of bf16, which nobody unpacks: A of both products is the tile as it lies in shared memory, once with its latents
// in k and once with its tokens.
//
//     S [tokens x heads] = C Q^T,  O [latents x heads] += C^T P^T
//
// A stage has blocks of 64 values, [64 tokens][64] each, swizzled: latents, and behind them rotated keys where these are
// bf16 too; otherwise rows of codes and pairs of (scale, min) as with int4. Its last bytes are those of weights, below.
//
// Both warpgroups work on the same tile: each has the scores of half of the heads, and accumulates half of the latents for
// all heads. So there is one tile at a time, and two stages, which is all that there is room for with 512 latents, are
// enough for copies to go on while it is multiplied.
//
// A weight is P, the sum of two bf16, high and low, 16 bits of it: the output is two products. The lower parts lie in
// the stage: where copies write all bytes of a block of rotated keys, over the last of these, which has been
// multiplied by then.
#pragma once

#include <math_constants.h>

#include "../../ptx/convert.cuh"
#include "../results.cuh"
#include "rope.cuh"
#include "softmax.cuh"

// Where high and low parts of a tile's weights begin: [heads][64], swizzled.
template <typename S>
__device__ uint2 weight_parts(const SharedMemory<S> &memory, const unsigned char *stage) {
    return {memory.weights(0, 0), shared_address(stage) + memory.map().stage_bytes - S::BLOCK_BYTES};
}

// The scores that a warpgroup has of a tile.
template <typename S>
__device__ void score_values(const DecodeParams &params, const SharedMemory<S> &memory, const unsigned char *stage,
                             const RopeRows &keys, unsigned group, Sums<S> &scores) {
    const unsigned first_tile = S::N_TILES * group, own = first_tile * 1024;
    score_rope<S>(params, keys, memory, first_tile, scores);
    if (params.sm90.rope_way != 0) {
        score_mins<S>(params, keys.pairs, keys.pairs.pairs(0),
                      swizzled_descriptor(shared_address(memory.q_sums()) + own), scores);
    }
    const uint64_t values = swizzled_descriptor(shared_address(stage));
    const uint64_t query = swizzled_descriptor(shared_address(memory.q_latent()) + own);
    const auto multiply = [&](unsigned block) {
#pragma unroll
        for (unsigned k = 0; k < 4; ++k) {
            wgmma_shared<false, S::N_TILES>(
                scores, values + block * descriptor_bytes(VALUE_BLOCK_BYTES) + k * DESCRIPTOR_STEP,
                query + block * descriptor_bytes(S::BLOCK_BYTES) + k * DESCRIPTOR_STEP);
        }
    };
    const unsigned end = S::STEPS + (params.cache.rope_kind == ROW_BF16 ? params.sm90.rope_blocks : 0);
    settle(scores);
#pragma unroll 1
    for (unsigned block = S::STEPS; block < end; ++block) {
        wgmma_fence();
        multiply(block);
        wgmma_commit();
        wgmma_wait<0>();
    }
    wgmma_fence();
#pragma unroll
    for (unsigned block = 0; block < S::STEPS; ++block) {
        multiply(block);
    }
    wgmma_commit();
    wgmma_wait<0>();
}

// A tile's P, and its weights in shared memory, from the thread's place in either part on; returns whether any of the
// thread's is at least 2^16, or no number.
template <typename S>
__device__ bool weigh_values(const TokenRows &rows, const Sums<S> &scores, const BlockState<S> &block, unsigned group,
                             uint2 parts, Sums<S> &p) {
    uint32_t high[2 * S::N_TILES], low[2 * S::N_TILES], largest = 0;
    exponents<S, true>(rows, scores, block, group, p);
#pragma unroll
    for (int i = 0; i < 2 * S::N_TILES; ++i) {
        float &first = p[2 * i], &second = p[2 * i + 1];
        first = exp2_approximate(first), second = exp2_approximate(second);
        high[i] = bf16x2_from_f32(first, second);
        low[i] = bf16x2_from_f32(first - f32_from_bf16_low(high[i]), second - f32_from_bf16_high(high[i]));
        largest = __vmaxu2(largest, high[i]);
    }
    store_weights<S>(parts.x, high);
    store_weights<S>(parts.y, low);
    fence_proxy_async();
    // 0x4780 is 2^16. The bits of weights, which are not negative, have their order.
    return ((largest + 0x38803880) & 0x80008000) != 0;
}

// output += the tile's latents that the warpgroup has * weights.
template <typename S>
__device__ void accumulate_values(const unsigned char *stage, uint2 parts, unsigned group, Output<S> &output) {
    const uint64_t values = swizzled_descriptor(shared_address(stage) + group * (S::M_TILES * VALUE_BLOCK_BYTES));
    const uint64_t weights[2] = {swizzled_descriptor(parts.x), swizzled_descriptor(parts.y)};
    settle(output);
    wgmma_fence();
#pragma unroll
    for (unsigned part = 0; part < 2; ++part) {
#pragma unroll
        for (unsigned k = 0; k < TILE / 16; ++k) {
#pragma unroll
            for (unsigned j = 0; j < S::M_TILES; ++j) {
                wgmma_shared<true, S::BLOCK_TILES>(
                    output[j], values + j * descriptor_bytes(VALUE_BLOCK_BYTES) + k * descriptor_bytes(16 * 128),
                    weights[part] + k * DESCRIPTOR_STEP);
            }
        }
    }
    wgmma_commit();
    wgmma_wait<0>();
}

// Writes what the block has: each head's lse, and its latents, which threads have columns of and write rows of.
template <typename S>
__device__ void write_values(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                             const SharedMemory<S> &memory, const SoftmaxState<S> &state, const Output<S> &output) {
    BlockState<S> &block = memory.state();
    const unsigned thread = threadIdx.x, lane = thread % WARP;
#pragma unroll
    for (int i = 0; i < S::COLUMNS; ++i) {
        const float sum = reduce_rows(state.sum[i], Sum());
        if (lane < 4) {
            block.of_warp[thread / WARP].sums[i / 2 * 8 + 2 * lane + i % 2].x = sum;
        }
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    if (thread < S::HEADS) {
        const unsigned group = thread / S::OWN_HEADS, head = thread % S::OWN_HEADS;
        float sum = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < WARPGROUP_WARPS; ++i) {
            sum += block.of_warp[WARPGROUP_WARPS * group + i].sums[head].x;
        }
        block.rescale[group][head] = 1.0f / sum;
        write_lse(params, split, first_head + thread, (block.references[group][head] + log2f(sum)) * CUDART_LN2_F);
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    const unsigned first = thread / WARPGROUP * (S::M_TILES * STEP) + thread % WARPGROUP / WARP * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2 * S::BLOCK_TILES; ++i) {
        const unsigned head = i / 2 * 8 + lane % 4 * 2 + i % 2;
        const float factor = block.rescale[head / S::OWN_HEADS][head % S::OWN_HEADS];
        float *to = memory.output_row(head) + first;
#pragma unroll
        for (int j = 0; j < S::M_TILES; ++j) {
            to[STEP * j] = output[j][i / 2 * 4 + i % 2] * factor;
            to[STEP * j + 8] = output[j][i / 2 * 4 + i % 2 + 2] * factor;
        }
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    const bool vectors = writes_vectors(params, split);
    constexpr unsigned CHUNKS = S::STEPS * STEP / CHUNK;
    for (unsigned i = thread; i < S::HEADS * CHUNKS; i += CONSUMER_THREADS) {
        const unsigned head = i / CHUNKS, latent = i % CHUNKS * CHUNK;
        if (first_head + head < params.geometry.query_heads) {
            write_latents(params, split, first_head + head, latent, vectors,
                          reinterpret_cast<const float(&)[CHUNK]>(memory.output_row(head)[latent]));
        }
    }
}
