// What mins give to the scores (../query_sums.cuh): all of a token's are one product, of mins as they are in the cache, f16,
// and sums of the query in two parts.
#pragma once

#include "../../cache/layout.cuh"
#include "../../ptx/special.cuh"
#include "../../ptx/wgmma.cuh"
#include "../query_sums.cuh"
#include "shared.cuh"

// A token's pair for its latents. Where the scale is 0 all codes are: any other will do, and this one has an inverse.
struct LatentAffine {
    float scale;
    uint32_t pair;
    __device__ explicit LatentAffine(uint32_t affine)
        : scale(fmaxf(affine_scale(affine), 1.0f / SUBNORMAL)), pair(affine) {}
    __device__ float min() const { return affine_min(pair); }
};

// Where the pairs of (scale, min) of a thread's two tokens lie.
struct PairRows {
    const unsigned char *low, *high;

    // Number `word` of them.
    __device__ uint2 pairs(unsigned word) const { return {at<uint32_t>(low, 4 * word), at<uint32_t>(high, 4 * word)}; }

    // The scales of these, which have inverses.
    __device__ float2 scales(unsigned word) const {
        const uint2 own = pairs(word);
        return {LatentAffine(own.x).scale, LatentAffine(own.y).scale};
    }
};

// Sums of the two tokens times a factor of each.
template <typename S>
__device__ void scale_rows(float2 factor, Sums<S> &sums) {
#pragma unroll
    for (int i = 0; i < S::SUMS; ++i) {
        sums[i] *= i % 4 < 2 ? factor.x : factor.y;
    }
}

// Zeros in place of a head's sums, of which not all k have any.
template <typename S>
__device__ void clear_query_sums(const DecodeParams &params, const SharedMemory<S> &memory, unsigned head) {
    unsigned char *row = memory.q_sums() + 128 * head;
    // 16 to a block, beside the first.
    for (unsigned word = 0; word == 0 || 4 * word + 4 < S::pair_bytes(params); word += 16) {
        reinterpret_cast<uint32_t *>(row + word / 16 * S::BLOCK_BYTES)[threadIdx.x % WARP] = 0;
    }
    __syncwarp();
}

// Zeros behind the pairs of each stage's tokens, which no copy reaches.
template <typename S>
__device__ void clear_behind_pairs(const DecodeParams &params, const SharedMemory<S> &memory) {
    const DecodeSm90Shared &map = memory.map();
    if (threadIdx.x < map.stage_count) {
        unsigned char *behind = memory.stage(threadIdx.x) + map.affine + TILE * S::pair_bytes(params);
        reinterpret_cast<uint4 *>(behind)[0] = {};
        reinterpret_cast<uint4 *>(behind)[1] = {};
    }
}

// Stores a head's sum of the query over group `word` of a token's pairs, as B: it meets the group's min twice.
template <typename S>
__device__ void store_query_sum(const SharedMemory<S> &memory, unsigned head, unsigned word, float sum) {
    const SumParts parts(sum);
    *memory.q_sum(head, word) = parts.high | parts.low << 16;
}

// Adds what all mins give. A k-step of 16 has four pairs, the first also pair 0; each in two k.
template <typename S, bool FIRST>
__device__ void multiply_mins(const PairRows &rows, uint2 first, unsigned step, uint64_t sums, Sums<S> &scores) {
    // Lanes of a quarter read two neighbouring pairs, which lie in different banks for all eight tokens. What is read
    // behind a token's last pair meets zeros, and is finite: pairs of the next token, or zeros behind the tile.
    const unsigned lane = thread_index() % 4, own = 4 * step + 1 + lane % 2;
    FragmentA a;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint2 pairs = FIRST && i == 0 && lane >= 2 ? first : rows.pairs(own + 2 * i);
        a[2 * i] = __byte_perm(pairs.x, 0, 0x3232), a[2 * i + 1] = __byte_perm(pairs.y, 0, 0x3232);
    }
    settle(a);
    wgmma_fence();
    wgmma<false, S::N_TILES>(scores, a, sums + step / 4 * descriptor_bytes(S::BLOCK_BYTES) + step % 4 * DESCRIPTOR_STEP);
    wgmma_commit();
    wgmma_wait<0>();
}

template <typename S>
__device__ void score_mins(const DecodeParams &params, const PairRows &rows, uint2 first, uint64_t sums,
                           Sums<S> &scores) {
    multiply_mins<S, true>(rows, first, 0, sums, scores);
    const unsigned steps = (S::pair_bytes(params) + 8) / 16;
#pragma unroll 1
    for (unsigned step = 1; step < steps; ++step) {
        multiply_mins<S, false>(rows, first, step, sums, scores);
    }
}
