// What the latents give to the scores: S^T = C Q^T, tokens on m, heads on n, latents in k, codes as subnormal f16
// (cache/int4.cuh). Scales and mins never touch a value: with latents in groups the sums go from the unit of one group, its
// scale, to that of the next by their ratio. And all of a thread's scores of a tile, of which these are the last part.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/wgmma.cuh"
#include "mins.cuh"
#include "rope.cuh"
#include "shared.cuh"

// A word of eight codes of either row of a thread, as A of 32 latents.
__device__ inline void spread_codes(FragmentA (&a)[2], uint32_t low, uint32_t high) {
    a[0][0] = subnormal_pair<0>(low), a[0][1] = subnormal_pair<0>(high);
    a[0][2] = subnormal_pair<1>(low), a[0][3] = subnormal_pair<1>(high);
    a[1][0] = subnormal_pair<2>(low), a[1][1] = subnormal_pair<2>(high);
    a[1][2] = subnormal_pair<3>(low), a[1][3] = subnormal_pair<3>(high);
}

// A lane's two words of k-step `step`: neighbours, or of 32 latents each where these have groups of their own.
template <typename S>
__device__ uint2 step_words(const unsigned char *codes, unsigned step) {
    if constexpr (S::STEP_GROUPS == 1) {
        return at<uint2>(codes, STEP / 2 * step);
    }
    return {at<uint32_t>(codes, STEP / 2 * step), at<uint32_t>(codes, STEP / 2 * step + STEP / 4)};
}

// Groups: takes the sums from their units, the scales of a group, to those of the next, pair number `word`.
template <typename S>
__device__ void enter_group(const PairRows &pairs, unsigned word, float2 &scales, Sums<S> &scores) {
    const float2 next = pairs.scales(word);
    scale_rows<S>({scales.x * reciprocal_approximate(next.x), scales.y * reciprocal_approximate(next.y)}, scores);
    scales = next;
}

// Adds to the sums, whose units are the tokens' `scales`: those of the first group, in the end those of the last. `low`
// and `high` are where lane t's first codes of its two tokens lie. The products of 64 latents are in flight while the
// next 64 are spread; all are done in the end.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const unsigned char *low, const unsigned char *high,
                              const PairRows &pairs, uint64_t query, float2 &scales, Sums<S> &scores) {
    // With more heads there are no registers for two sets.
    constexpr int SETS = S::CROWDED ? 1 : 2;
    FragmentA a[SETS][4];
#pragma unroll
    for (int step = 0; step < S::STEPS; ++step) {
        const uint2 low_words = step_words<S>(low, step), high_words = step_words<S>(high, step);
        FragmentA(&own)[4] = a[step % SETS];
        if (step >= SETS) {
            wgmma_wait<SETS - 1>();
        }
        spread_codes(reinterpret_cast<FragmentA(&)[2]>(own[0]), low_words.x, high_words.x);
        spread_codes(reinterpret_cast<FragmentA(&)[2]>(own[2]), low_words.y, high_words.y);
#pragma unroll
        for (int part = 0; part < S::STEP_GROUPS; ++part) {
            constexpr int PRODUCTS = 4 / S::STEP_GROUPS;
            if constexpr (S::GROUPED) {
                // Where it is the same group still the ratio is 1, but for a rounding, which is cheaper than a branch.
                const unsigned latent = STEP * step + STEP / 2 * part;
                if (latent > 0) {
                    wgmma_wait<0>();
                    enter_group<S>(pairs, min(latent >> params.latent_group_log2, params.cache.latent_groups - 1),
                                   scales, scores);
                }
            }
            settle(own);
            wgmma_fence();
#pragma unroll
            for (int k = PRODUCTS * part; k < PRODUCTS * (part + 1); ++k) {
                wgmma<false, S::N_TILES>(scores, own[k],
                                         query + step * descriptor_bytes(S::BLOCK_BYTES) + k * DESCRIPTOR_STEP);
            }
            wgmma_commit();
        }
    }
    wgmma_wait<0>();
}

// The scores of a thread's two tokens, 8 apart: of their rotated keys, of mins, and of their latents. `keys` and `codes` are
// where the first token's lie, and `first` are the tokens' first pairs, whose scales are `scales`: in the end those that
// the scores are in units of.
template <typename S>
__device__ void score_tokens(const DecodeParams &params, const SharedMemory<S> &memory, const unsigned char *codes,
                             const unsigned char *keys, const PairRows &pairs, uint2 first, float2 &scales,
                             Sums<S> &scores) {
    score_rope<S>(params, {keys, keys + 8 * params.sm90.rope_stride, pairs}, memory, 0, scores);
    score_mins<S>(params, pairs, first, swizzled_descriptor(shared_address(memory.q_sums())), scores);
    scale_rows<S>({reciprocal_approximate(scales.x) * (1.0f / CODE_UNIT),
                   reciprocal_approximate(scales.y) * (1.0f / CODE_UNIT)},
                  scores);
    score_latents<S>(params, codes, codes + 8 * S::ROW_STRIDE, pairs,
                     swizzled_descriptor(shared_address(memory.q_latent())), scales, scores);
}
