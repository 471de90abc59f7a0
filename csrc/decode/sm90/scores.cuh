// What the latents give to the scores: S^T = C Q^T, tokens on m, heads on n, latents in k, codes as subnormal f16
// (cache/int4.cuh). Scales and mins never touch a value.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/wgmma.cuh"
#include "shared.cuh"

// A word of eight codes of either row of a thread, as A of 32 latents.
__device__ inline void spread_codes(FragmentA (&a)[2], uint32_t low, uint32_t high) {
    a[0][0] = subnormal_pair<0>(low), a[0][1] = subnormal_pair<0>(high);
    a[0][2] = subnormal_pair<1>(low), a[0][3] = subnormal_pair<1>(high);
    a[1][0] = subnormal_pair<2>(low), a[1][1] = subnormal_pair<2>(high);
    a[1][2] = subnormal_pair<3>(low), a[1][3] = subnormal_pair<3>(high);
}

// Adds to the sums. `low` and `high` are where lane t's first codes of its two tokens lie. The products of 64 latents
// are in flight while the next 64 are spread; all are done in the end.
template <typename S>
__device__ void score_latents(const unsigned char *low, const unsigned char *high, uint64_t query, Sums<S> &scores) {
    // With more heads there are no registers for two sets.
    constexpr int SETS = S::CROWDED ? 1 : 2;
    FragmentA a[SETS][4];
#pragma unroll
    for (int step = 0; step < S::STEPS; ++step) {
        const uint2 low_words = at<uint2>(low, STEP / 2 * step), high_words = at<uint2>(high, STEP / 2 * step);
        FragmentA(&own)[4] = a[step % SETS];
        if (step >= SETS) {
            wgmma_wait<SETS - 1>();
        }
        spread_codes(reinterpret_cast<FragmentA(&)[2]>(own[0]), low_words.x, high_words.x);
        spread_codes(reinterpret_cast<FragmentA(&)[2]>(own[2]), low_words.y, high_words.y);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            wgmma<false, S::N_TILES>(scores, own[k],
                                     query + step * descriptor_bytes(S::BLOCK_BYTES) + k * DESCRIPTOR_STEP);
        }
        wgmma_commit();
    }
    wgmma_wait<0>();
}
