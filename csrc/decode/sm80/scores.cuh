// What the latents add to the scores, from what the cache holds: S^T += C Q^T, tokens on m, heads on n, latents in k.
//
// A fragments of int4 come straight from the codes. A code's bits, left where they are, are a subnormal f16
// (cache/int4.cuh): 5/8 instructions per value. Scales and mins never touch a value:
//     S = sum_group (scale_t 2^24 (S of the group's codes) + min_t sum(q of the group))
// Whole: a group is a run of 512 latents. Groups: a k-step's latents are scaled once, or twice in groups of 32. What the
// mins add is the same in every k-slice, and is left to who adds these up (logits.cuh), as is the scale of a single run.
// Bf16: A fragments are the cache's rows.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "rope.cuh"
#include "shared.cuh"

// The scores of a warp: of SHARE m-tiles.
template <typename S>
using Scores = FragmentC[S::SHARE][S::N_TILES];

// The k-steps of a warp's k-slice: as many for each, but for the last.
template <typename S>
struct Steps {
    unsigned begin, end;
    __device__ Steps(const DecodeParams &params, unsigned k_slice) {
        const unsigned each = (params.latent_steps + S::K_SLICES - 1) / S::K_SLICES;
        begin = min(each * k_slice, params.latent_steps);
        end = min(begin + each, params.latent_steps);
    }
};

// Pairs of the j-th of the warp's m-tiles.
template <typename S>
__device__ RowPair m_tile_affine_rows(const DecodeParams &params, const Stage &stage, const BlockState<S> &block,
                                      unsigned j) {
    return affine_rows<S>(stage, block, 16 * params.shared.affine_stride * ScoreTile<S>().m_tile(j));
}

// Scales rows g and g + 8 of `sums` and adds them.
template <int N_TILES>
__device__ void add_scaled(FragmentC (&scores)[N_TILES], const FragmentC (&sums)[N_TILES], float low, float high) {
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
        scores[n][0] = fmaf(low, sums[n][0], scores[n][0]);
        scores[n][1] = fmaf(low, sums[n][1], scores[n][1]);
        scores[n][2] = fmaf(high, sums[n][2], scores[n][2]);
        scores[n][3] = fmaf(high, sums[n][3], scores[n][3]);
    }
}

// Stores what the latents of the warp's k-slice add to the scores of its m-tiles, with what it has stored if `again`.
template <typename S, bool MAY_ADD>
__device__ void store_scores(const SharedMemory<S> &memory, Scores<S> &scores, bool again) {
    // Those of a warp follow those of the one before it.
    const unsigned thread = thread_index(), parts = S::SHARE * S::N_TILES;
    unsigned char *to = memory.part(parts * (thread / WARP)) + 16 * (thread % WARP);
    float4 *part = reinterpret_cast<float4 *>(to);
    // All lanes agree. A branch: of a choice the compiler would load and add in any case.
    if (MAY_ADD && __any_sync(ALL_LANES, again)) {
#pragma unroll
        for (unsigned i = 0; i < parts; ++i) {
            FragmentC &x = scores[i / S::N_TILES][i % S::N_TILES];
            x[0] += part[WARP * i].x, x[1] += part[WARP * i].y, x[2] += part[WARP * i].z, x[3] += part[WARP * i].w;
        }
    }
#pragma unroll
    for (unsigned i = 0; i < parts; ++i) {
        const FragmentC &x = scores[i / S::N_TILES][i % S::N_TILES];
        part[WARP * i] = {x[0], x[1], x[2], x[3]};
    }
}

// A lane's codes of rows g and g + 8 of the warp's m-tiles, in one k-step after the other.
template <typename S>
struct CodeRows {
    const unsigned char *low[S::SHARE], *high[S::SHARE];

    __device__ CodeRows(const DecodeParams &params, const Stage &stage, const uint2 &places, const WarpPlaces &warp) {
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            const unsigned char *rows = stage.row(warp.codes) + 16 * params.shared.latent_stride * j;
            low[j] = rows + places.x;
            high[j] = rows + places.y;
        }
    }

    // Goes on to the next k-step.
    __device__ void advance() {
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            low[j] += STEP / 2;
            high[j] += STEP / 2;
        }
    }
};

// Adds the products of 32 latents of codes, OFFSET bytes into a k-step of the query: of one word of each row.
template <typename S, int OFFSET>
__device__ void multiply_codes(Scores<S> &sums, const uint32_t (&low)[S::SHARE], const uint32_t (&high)[S::SHARE],
                               uint32_t query, unsigned n_tile_bytes) {
    FragmentA a0[S::SHARE], a1[S::SHARE];
#pragma unroll
    for (int j = 0; j < S::SHARE; ++j) {
        a0[j][0] = subnormal_pair<0>(low[j]), a0[j][1] = subnormal_pair<0>(high[j]);
        a0[j][2] = subnormal_pair<1>(low[j]), a0[j][3] = subnormal_pair<1>(high[j]);
        a1[j][0] = subnormal_pair<2>(low[j]), a1[j][1] = subnormal_pair<2>(high[j]);
        a1[j][2] = subnormal_pair<3>(low[j]), a1[j][3] = subnormal_pair<3>(high[j]);
    }
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * n_tile_bytes);
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            mma_f16(sums[j][n], a0[j], b[0], b[1]);
            mma_f16(sums[j][n], a1[j], b[2], b[3]);
        }
    }
}

// Whole: codes of a k-step are two neighbouring words per lane. Sums of a single run are stored as they are. A warp whose
// k-slice has more than one adds them up in shared memory, which costs no registers, and is rare.
template <typename S>
__device__ void score_whole(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                            const BlockState<S> &block, const uint2 &places, const WarpPlaces &warp, uint32_t query,
                            unsigned n_tile_bytes) {
    CodeRows<S> rows(params, stage, places, warp);
    const auto multiply = [&](Scores<S> &sums) {
        uint2 low_words[S::SHARE], high_words[S::SHARE];
        uint32_t low_word[S::SHARE], high_word[S::SHARE];
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            low_words[j] = at<uint2>(rows.low[j], 0), high_words[j] = at<uint2>(rows.high[j], 0);
            low_word[j] = low_words[j].x, high_word[j] = high_words[j].x;
        }
        rows.advance();
        multiply_codes<S, 0>(sums, low_word, high_word, query, n_tile_bytes);
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            low_word[j] = low_words[j].y, high_word[j] = high_words[j].y;
        }
        multiply_codes<S, 64>(sums, low_word, high_word, query, n_tile_bytes);
        query += 2 * STEP;
    };
    if constexpr (S::RUNS == 1) {
        Scores<S> scores = {};
        const unsigned char *end = rows.low[0] + STEP / 2 * warp.steps;
        // Blocks of more heads have no registers for two k-steps.
        if constexpr (S::N_TILES <= 2 && SPARE_REGISTERS) {
#pragma unroll 1
            while (rows.low[0] + STEP / 2 < end) {
                multiply(scores);
                multiply(scores);
            }
        }
#pragma unroll 1
        while (rows.low[0] < end) {
            multiply(scores);
        }
        store_scores<S, false>(memory, scores, false);
    } else {
        const Steps<S> steps(params, ScoreTile<S>().k_slice);
        // Even a warp without k-steps stores what it has.
        unsigned step = steps.begin;
        do {
            const unsigned run = step / WARPS, end = min(steps.end, (run + 1) * WARPS);
            Scores<S> sums = {}, scores = {};
#pragma unroll (S::SLICES > 2 ? 2 : 1)
            for (; step < end; ++step) {
                multiply(sums);
            }
#pragma unroll
            for (int j = 0; j < S::SHARE; ++j) {
                const RowPair affine = m_tile_affine_rows<S>(params, stage, block, j);
                const unsigned pair = 4 * min(run, params.cache.latent_groups - 1);
                add_scaled(scores[j], sums[j], affine_scale(at<uint32_t>(affine.low, pair)) * CODE_UNIT,
                           affine_scale(at<uint32_t>(affine.high, pair)) * CODE_UNIT);
            }
            store_scores<S, true>(memory, scores, run != steps.begin / WARPS);
        } while (step < steps.end);
    }
}

// Groups: codes of a k-step are two words per lane, one of each 32 latents. Lanes of rows 4 to 7 read the second first,
// so that all are in different banks.
template <typename S>
__device__ void score_groups(const DecodeParams &params, const Stage &stage, const BlockState<S> &block,
                             const uint2 &places, const WarpPlaces &warp, uint32_t query, unsigned n_tile_bytes,
                             Scores<S> &scores) {
    const Steps<S> steps(params, ScoreTile<S>().k_slice);
    CodeRows<S> rows(params, stage, places, warp);
    const unsigned upper_rows = thread_index() & 16;
    const bool second_first = upper_rows != 0;
    // From a lane's first word to its second.
    const int other = 16 - 2 * static_cast<int>(upper_rows);
    Scores<S> sums = {};
    // Scales the sums, which end with the group of latents before `end`.
    const auto add_group = [&](unsigned end) {
        // k-steps beyond the latent are in no group, but all are alike: the query is 0 there.
        const unsigned group = 4 * min((end - 1) >> params.latent_group_log2, params.cache.latent_groups - 1);
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            // Where pairs lie is read again: registers are short while codes are multiplied.
            const RowPair affine = m_tile_affine_rows<S>(params, stage, block, j);
            add_scaled(scores[j], sums[j], affine_scale(at<uint16_t>(affine.low, group)) * CODE_UNIT,
                       affine_scale(at<uint16_t>(affine.high, group)) * CODE_UNIT);
#pragma unroll
            for (int n = 0; n < S::N_TILES; ++n) {
                sums[j][n][0] = sums[j][n][1] = sums[j][n][2] = sums[j][n][3] = 0.0f;
            }
        }
    };
#pragma unroll 1
    for (unsigned step = steps.begin; step < steps.end; ++step) {
        uint32_t low_first[S::SHARE], high_first[S::SHARE], low_second[S::SHARE], high_second[S::SHARE];
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            const unsigned char *low = rows.low[j], *high = rows.high[j];
            const uint32_t low_word = at<uint32_t>(low, 0), low_other = at<uint32_t>(low + other, 0);
            const uint32_t high_word = at<uint32_t>(high, 0), high_other = at<uint32_t>(high + other, 0);
            low_first[j] = second_first ? low_other : low_word, low_second[j] = second_first ? low_word : low_other;
            high_first[j] = second_first ? high_other : high_word;
            high_second[j] = second_first ? high_word : high_other;
        }
        rows.advance();
        multiply_codes<S, 0>(sums, low_first, high_first, query, n_tile_bytes);
        if (params.cache.latent_group == STEP / 2) {
            add_group(STEP * step + STEP / 2);
        }
        multiply_codes<S, 64>(sums, low_second, high_second, query, n_tile_bytes);
        // Larger groups go on with the next k-step.
        if (step + 1 == steps.end || (STEP * (step + 1) & (params.cache.latent_group - 1)) == 0) {
            add_group(STEP * (step + 1));
        }
        query += 2 * STEP;
    }
}

// Adds the products of 32 latents of bf16 rows, OFFSET bytes into a k-step of both.
template <typename S, int OFFSET>
__device__ void multiply_rows(Scores<S> &sums, const uint32_t (&rows)[S::SHARE], uint32_t query,
                              unsigned n_tile_bytes) {
    FragmentA a0[S::SHARE], a1[S::SHARE];
#pragma unroll
    for (int j = 0; j < S::SHARE; ++j) {
        ldmatrix_x4<OFFSET>(a0[j], rows[j]);
        ldmatrix_x4<OFFSET + 32>(a1[j], rows[j]);
    }
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        uint32_t b[4];
        ldmatrix_x4<OFFSET>(b, query + n * n_tile_bytes);
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            mma_bf16(sums[j][n], a0[j], b[0], b[1]);
            mma_bf16(sums[j][n], a1[j], b[2], b[3]);
        }
    }
}

template <typename S>
__device__ void score_bf16(const DecodeParams &params, const Stage &stage, uint32_t place, const WarpPlaces &warp,
                           uint32_t query, unsigned n_tile_bytes, Scores<S> &scores) {
    uint32_t latents[S::SHARE];
#pragma unroll
    for (int j = 0; j < S::SHARE; ++j) {
        latents[j] = stage.address() + warp.codes + 16 * params.shared.latent_stride * j + place;
    }
#pragma unroll 1
    for (unsigned left = warp.steps; left > 0; --left) {
        multiply_rows<S, 0>(scores, latents, query, n_tile_bytes);
        multiply_rows<S, 64>(scores, latents, query, n_tile_bytes);
        query += 2 * STEP;
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            latents[j] += 2 * STEP;
        }
    }
}

// Stores what the latents of the warp's k-slice add to the scores of its m-tiles.
template <typename S>
__device__ void score_latents(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                              const BlockState<S> &block) {
    const unsigned n_tile_bytes = 8 * memory.q_latent_stride(), lane = thread_index() % WARP;
    const WarpPlaces &warp = block.warps[thread_index() / WARP];
    const typename S::ScorePlaces places = block.score_places[lane];
    const uint32_t query = shared_address(memory.begin()) + block.query_places[lane] + warp.query;
    if constexpr (S::LATENTS == Latents::Whole) {
        score_whole<S>(params, stage, memory, block, places, warp, query, n_tile_bytes);
    } else {
        Scores<S> scores = {};
        if constexpr (S::LATENTS == Latents::Groups) {
            score_groups<S>(params, stage, block, places, warp, query, n_tile_bytes, scores);
        } else {
            score_bf16<S>(params, stage, places, warp, query, n_tile_bytes, scores);
        }
        store_scores<S, false>(memory, scores, false);
    }
}
