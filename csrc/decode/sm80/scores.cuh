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

// Stores what the latents of the warp's k-slice add to the scores of its m-tiles, or adds it to what it has stored.
template <typename S>
__device__ void store_scores(const SharedMemory<S> &memory, const Scores<S> &scores, bool again) {
    const ScoreTile<S> tile;
#pragma unroll
    for (int j = 0; j < S::SHARE; ++j) {
        unsigned char *to = memory.part(tile.k_slice, tile.m_tile(j), 0) + 16 * (thread_index() % WARP);
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            const FragmentC &x = scores[j][n];
            float4 &part = *reinterpret_cast<float4 *>(to + 16 * WARP * n);
            if (again) {
                part = {part.x + x[0], part.y + x[1], part.z + x[2], part.w + x[3]};
            } else {
                part = {x[0], x[1], x[2], x[3]};
            }
        }
    }
}

// A lane's codes of rows g and g + 8 of the warp's m-tiles, in one k-step after the other.
template <typename S>
struct CodeRows {
    const unsigned char *low[S::SHARE], *high[S::SHARE];

    __device__ CodeRows(const DecodeParams &params, const Stage &stage, const uint2 &places, unsigned step) {
#pragma unroll
        for (int j = 0; j < S::SHARE; ++j) {
            const unsigned char *rows = stage.m_tile(ScoreTile<S>().m_tile(j), params.shared.latent_stride);
            low[j] = rows + places.x + STEP / 2 * step;
            high[j] = rows + places.y + STEP / 2 * step;
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
                            const BlockState<S> &block, const uint2 &places, uint32_t query, unsigned n_tile_bytes) {
    const Steps<S> steps(params, ScoreTile<S>().k_slice);
    CodeRows<S> rows(params, stage, places, steps.begin);
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
#pragma unroll (S::M_TILES == 4 ? 2 : 1)
        for (unsigned step = steps.begin; step < steps.end; ++step) {
            multiply(scores);
        }
        store_scores<S>(memory, scores, false);
    } else {
        // Even a warp without k-steps stores what it has.
        unsigned step = steps.begin;
        do {
            const unsigned run = step / WARPS, end = min(steps.end, (run + 1) * WARPS);
            Scores<S> sums = {}, scores = {};
#pragma unroll 1
            for (; step < end; ++step) {
                multiply(sums);
            }
#pragma unroll
            for (int j = 0; j < S::SHARE; ++j) {
                const RowPair affine = affine_rows<S>(params, stage, block, ScoreTile<S>().m_tile(j));
                const unsigned pair = 4 * min(run, params.cache.latent_groups - 1);
                add_scaled(scores[j], sums[j], affine_scale(at<uint32_t>(affine.low, pair)) * SUBNORMAL,
                           affine_scale(at<uint32_t>(affine.high, pair)) * SUBNORMAL);
            }
            store_scores<S>(memory, scores, run != steps.begin / WARPS);
        } while (step < steps.end);
    }
}

// Groups: codes of a k-step are two words per lane, one of each 32 latents. Lanes of rows 4 to 7 read the second first,
// so that all are in different banks.
template <typename S>
__device__ void score_groups(const DecodeParams &params, const Stage &stage, const BlockState<S> &block,
                             const uint2 &places, uint32_t query, unsigned n_tile_bytes, Scores<S> &scores) {
    const Steps<S> steps(params, ScoreTile<S>().k_slice);
    CodeRows<S> rows(params, stage, places, steps.begin);
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
            const RowPair affine = affine_rows<S>(params, stage, block, ScoreTile<S>().m_tile(j));
            add_scaled(scores[j], sums[j], affine_scale(at<uint16_t>(affine.low, group)) * SUBNORMAL,
                       affine_scale(at<uint16_t>(affine.high, group)) * SUBNORMAL);
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
__device__ void score_bf16(const DecodeParams &params, const Stage &stage, uint32_t place, uint32_t query,
                           unsigned n_tile_bytes, Scores<S> &scores) {
    const ScoreTile<S> tile;
    const Steps<S> steps(params, tile.k_slice);
    uint32_t latents[S::SHARE];
#pragma unroll
    for (int j = 0; j < S::SHARE; ++j) {
        latents[j] = shared_address(stage.m_tile(tile.m_tile(j), params.shared.latent_stride)) + place +
                     2 * STEP * steps.begin;
    }
#pragma unroll 1
    for (unsigned step = steps.begin; step < steps.end; ++step) {
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
    const unsigned n_tile_bytes = 8 * memory.q_latent_stride();
    const unsigned lane = thread_index() % WARP;
    const typename S::ScorePlaces places = block.score_places[lane];
    const uint32_t query = shared_address(memory.begin()) + block.query_places[lane] +
                           2 * STEP * Steps<S>(params, ScoreTile<S>().k_slice).begin;
    if constexpr (S::LATENTS == Latents::Whole) {
        score_whole<S>(params, stage, memory, block, places, query, n_tile_bytes);
    } else {
        Scores<S> scores = {};
        if constexpr (S::LATENTS == Latents::Groups) {
            score_groups<S>(params, stage, block, places, query, n_tile_bytes, scores);
        } else {
            score_bf16<S>(params, stage, places, query, n_tile_bytes, scores);
        }
        store_scores<S>(memory, scores, false);
    }
}
