// The output: O^T += C^T P^T, latents on m, heads on n, tokens in k. A are codes as they are, as subnormal f16, and B are
// weights times scales.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/wgmma.cuh"
#include "shared.cuh"

// A warpgroup's sums: 64 latents in each m-tile. Row g + 8 x of warp w in m-tile i is latent 2 i + x of those that the warp's
// lane g has, which are STEPS * 2 neighbouring ones: lane g of warp w has those from (8 w + g) * STEPS * 2 on. Those of odd
// m-tiles are 16 times what they stand for.
template <typename S>
using Output = Sums<S>[S::STEPS];

// What a thread reads of 16 tokens: the codes of its latents, of the four tokens that its lane has in k.
template <typename S>
struct CodeRows {
    static constexpr unsigned WORDS = S::STEPS / 4;
    const unsigned char *rows[4];

    // `stage` is where the tile begins.
    __device__ CodeRows(const unsigned char *stage) {
        const unsigned thread = threadIdx.x % WARPGROUP, t = thread % 4, g_and_warp = thread / 4;
#pragma unroll
        for (unsigned x = 0; x < 4; ++x) {
            rows[x] = stage + (4 * t + (x ^ token_turn(t))) * S::ROW_STRIDE + 4 * WORDS * g_and_warp;
        }
    }

    // Token x of 16, from `tokens` on.
    __device__ void load(uint32_t (&words)[WORDS][4], unsigned tokens) const {
#pragma unroll
        for (unsigned x = 0; x < 4; ++x) {
            if constexpr (WORDS == 2) {
                const uint2 both = at<uint2>(rows[x], tokens * S::ROW_STRIDE);
                words[0][x] = both.x, words[1][x] = both.y;
            } else {
                words[0][x] = at<uint32_t>(rows[x], tokens * S::ROW_STRIDE);
            }
        }
    }
};

// A of four m-tiles: the pairs 0 to 3 of a word of each of the lane's four tokens.
__device__ inline void spread_tokens(FragmentA (&a)[4], const uint32_t (&words)[4]) {
    const uint32_t even0 = __byte_perm(words[0], words[1], 0x5410), odd0 = __byte_perm(words[0], words[1], 0x7632);
    const uint32_t even1 = __byte_perm(words[2], words[3], 0x5410), odd1 = __byte_perm(words[2], words[3], 0x7632);
    const auto spread = [&](FragmentA &own, uint32_t (*pair)(uint32_t)) {
        own[0] = pair(even0), own[1] = pair(odd0), own[2] = pair(even1), own[3] = pair(odd1);
    };
    spread(a[0], subnormal_pair<0>);
    spread(a[1], subnormal_pair<1>);
    spread(a[2], subnormal_pair<2>);
    spread(a[3], subnormal_pair<3>);
}

// output += the tile's latents * weights. All products are done in the end.
template <typename S>
__device__ void accumulate(const CodeRows<S> &codes, uint64_t weights, Output<S> &output) {
    constexpr unsigned WORDS = CodeRows<S>::WORDS;
    FragmentA a[2][4];
#pragma unroll
    for (unsigned k = 0; k < TILE / 16; ++k) {
        uint32_t words[WORDS][4];
        codes.load(words, 16 * k);
#pragma unroll
        for (unsigned word = 0; word < WORDS; ++word) {
            const unsigned round = WORDS * k + word;
            if (round >= 2) {
                wgmma_wait<1>();
            }
            spread_tokens(a[round % 2], words[word]);
            wgmma_fence();
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                wgmma<false, S::N_TILES>(output[4 * word + j], a[round % 2][j], weights + k * DESCRIPTOR_STEP);
            }
            wgmma_commit();
        }
    }
    wgmma_wait<0>();
}
