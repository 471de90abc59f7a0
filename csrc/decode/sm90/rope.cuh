// What the rotated key gives to the scores, from what the cache holds. All rope heads of a token form one row, which is
// multiplied with a query that is zero but in the columns of a head's own. Codes are multiplied as they are, as
// subnormal f16 (cache/int4.cuh), and a group's product is scaled then.
//
// It is what the sums of the latents' products begin with, in units of the token's scale of latents: it takes no
// registers while those are multiplied.
#pragma once

#include "../../cache/layout.cuh"
#include "../../ptx/wgmma.cuh"
#include "../rope_values.cuh"
#include "shared.cuh"

// A token's pair for its latents. Where the scale is 0 all codes are: any other will do, and this one has an inverse.
struct LatentAffine {
    float scale, min;
    __device__ explicit LatentAffine(uint32_t affine)
        : scale(fmaxf(affine_scale(affine), 1.0f / SUBNORMAL)), min(affine_min(affine)) {}
};

// A thread's two tokens: their rotated keys, their pairs of (scale, min) for these, and the inverses of the scales of
// their latents.
struct RopeRows {
    const unsigned char *low, *high, *low_pairs, *high_pairs;
    float low_inverse, high_inverse;
};

// The products of ROUNDS k-steps of 32 values, plus what was before unless `accumulate` is 0.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void multiply_rope_steps(const RopeRows &rows, unsigned step, uint64_t query, unsigned accumulate,
                                    Sums<S> &products) {
    FragmentA a[ROUNDS][2];
#pragma unroll
    for (int i = 0; i < ROUNDS; ++i) {
        const uint4 low = rope_values<KIND>(rows.low, step + i), high = rope_values<KIND>(rows.high, step + i);
        a[i][0][0] = low.x, a[i][0][1] = high.x, a[i][0][2] = low.y, a[i][0][3] = high.y;
        a[i][1][0] = low.z, a[i][1][1] = high.z, a[i][1][2] = low.w, a[i][1][3] = high.w;
    }
    // Two k-steps are a block of the query.
    query += step / 2 * descriptor_bytes(S::BLOCK_BYTES) + step % 2 * 2 * DESCRIPTOR_STEP;
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 2 * ROUNDS; ++i) {
        wgmma<KIND == ROW_BF16, S::N_TILES>(products, a[i / 2][i % 2], query + i * DESCRIPTOR_STEP,
                                            i > 0 ? 1 : accumulate);
    }
    wgmma_commit();
    wgmma_wait<0>();
}

// A group's products; ROUNDS k-steps at a time, of which those past the key meet zeros.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void multiply_rope(const RopeRows &rows, unsigned first, unsigned end, uint64_t query, Sums<S> &products) {
#pragma unroll 1
    for (unsigned step = first; step < end; step += ROUNDS) {
        multiply_rope_steps<S, KIND, ROUNDS>(rows, step, query, step != first, products);
    }
}

// What a group of codes gives, from its products: products * scale + min * (sum of the query), of either token.
struct GroupAffine {
    float low_scale, low_min, high_scale, high_min;

    __device__ GroupAffine(const RopeRows &rows, unsigned group) {
        const uint32_t low = at<uint32_t>(rows.low_pairs, 4 * group), high = at<uint32_t>(rows.high_pairs, 4 * group);
        low_scale = affine_scale(low) * rows.low_inverse, high_scale = affine_scale(high) * rows.high_inverse;
        low_min = affine_min(low) * rows.low_inverse * (1.0f / SUBNORMAL);
        high_min = affine_min(high) * rows.high_inverse * (1.0f / SUBNORMAL);
    }

    // Adds it to n-tile n of the scores. `q_sums` are those of its heads.
    template <int SUMS>
    __device__ void add(int n, const float (&products)[SUMS], const float *q_sums, float4 before,
                        float (&scores)[SUMS]) const {
        const float2 q_sum = *reinterpret_cast<const float2 *>(q_sums + 8 * n);
        scores[4 * n] = fmaf(low_scale, products[4 * n], fmaf(low_min, q_sum.x, before.x));
        scores[4 * n + 1] = fmaf(low_scale, products[4 * n + 1], fmaf(low_min, q_sum.y, before.y));
        scores[4 * n + 2] = fmaf(high_scale, products[4 * n + 2], fmaf(high_min, q_sum.x, before.z));
        scores[4 * n + 3] = fmaf(high_scale, products[4 * n + 3], fmaf(high_min, q_sum.y, before.w));
    }
};

// bf16: the products are what they are, in the scores' units.
template <typename S>
__device__ void score_bf16_rope(const DecodeParams &params, const RopeRows &rows, uint64_t query, Sums<S> &scores) {
    multiply_rope<S, ROW_BF16, 2>(rows, 0, 2 * params.sm90.rope_blocks, query, scores);
    const float low = rows.low_inverse * (1.0f / SUBNORMAL), high = rows.high_inverse * (1.0f / SUBNORMAL);
#pragma unroll
    for (int i = 0; i < S::SUMS; ++i) {
        scores[i] *= i % 4 < 2 ? low : high;
    }
}

// Codes with one scale.
template <typename S, unsigned KIND>
__device__ void score_whole_rope(const DecodeParams &params, const RopeRows &rows, uint64_t query,
                                 const SharedMemory<S> &memory, Sums<S> &scores) {
    multiply_rope_steps<S, KIND, 2>(rows, 0, query, 0, scores);
    // Most layers have one block or two.
    if (params.sm90.rope_blocks > 1) {
        multiply_rope_steps<S, KIND, 2>(rows, 2, query, 1, scores);
    }
#pragma unroll 1
    for (unsigned block = 2; block < params.sm90.rope_blocks; ++block) {
        multiply_rope_steps<S, KIND, 2>(rows, 2 * block, query, 1, scores);
    }
    const GroupAffine affine(rows, 0);
    const float *q_sums = memory.q_rope_sums(0) + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        affine.add(n, scores, q_sums, {0.0f, 0.0f, 0.0f, 0.0f}, scores);
    }
}

// Codes in groups, one at a time: of 32 values, which are one k-step, or of more.
template <typename S, unsigned KIND, int ROUNDS>
__device__ void score_grouped_rope(const DecodeParams &params, const RopeRows &rows, uint64_t query,
                                   const SharedMemory<S> &memory, Sums<S> &scores) {
    const unsigned steps = ROUNDS == 1 ? params.rope_steps : 2 * params.sm90.rope_blocks;
    const unsigned group_steps = params.cache.rope_group / ROPE_STEP;
    clear(scores);
    unsigned group = 0;
#pragma unroll 1
    for (unsigned first = 0; first < steps; first += group_steps, ++group) {
        Sums<S> products;
        multiply_rope<S, KIND, ROUNDS>(rows, first, min(first + group_steps, steps), query, products);
        const GroupAffine affine(rows, group);
        const float *q_sums = memory.q_rope_sums(group) + threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            affine.add(n, products, q_sums,
                       {scores[4 * n], scores[4 * n + 1], scores[4 * n + 2], scores[4 * n + 3]}, scores);
        }
    }
}

// What the rotated keys of a thread's two tokens give: sums that stand for scores over 2^24 times the scale of latents.
template <typename S>
__device__ void score_rope(const DecodeParams &params, const RopeRows &rows, const SharedMemory<S> &memory,
                           Sums<S> &scores) {
    const unsigned kind = params.cache.rope_kind, way = params.sm90.rope_way;
    const uint64_t query = swizzled_descriptor(shared_address(memory.q_rope()));
    if (way == 3 && kind == ROW_INT4) {
        score_whole_rope<S, ROW_INT4>(params, rows, query, memory, scores);
    } else if (way == 0) {
        clear(scores);
    } else if (kind == ROW_BF16) {
        score_bf16_rope<S>(params, rows, query, scores);
    } else if (way == 3) {
        score_whole_rope<S, ROW_INT8>(params, rows, query, memory, scores);
    } else if constexpr (!S::CROWDED) {
        // Sums of a group beside all others take more registers than the most heads leave.
        if (kind == ROW_INT8) {
            score_grouped_rope<S, ROW_INT8, 2>(params, rows, query, memory, scores);
        } else if (way == 1) {
            score_grouped_rope<S, ROW_INT4, 1>(params, rows, query, memory, scores);
        } else {
            score_grouped_rope<S, ROW_INT4, 2>(params, rows, query, memory, scores);
        }
    }
}
