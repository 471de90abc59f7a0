// The query of a block's heads, in shared memory as B operands.
//
// Order: wherever A fragments are read 8 values (or words of 8 codes) per lane, k runs in another order than memory, and
// the query is stored in the order of k. In a k-step of 64 codes lane t has the values 16 t .. 16 t + 15, in 2 words; in
// a k-step of 32 values of a rotated key 8 t .. 8 t + 7. The four pairs of 8 values go to four matrices of `ldmatrix`.
#pragma once

#include "../../cache/int4.cuh"
#include "../../common/chunk.cuh"
#include "../scaled_query.cuh"
#include "shared.cuh"

// A head's query for k-steps `first` .. `first + rope_span - 1` of the rotated key: zeros but in the columns of its own
// rope head. `sums` gets the sum of each k-step.
__device__ inline void store_rope_query(const DecodeParams &params, uint32_t *row, float *sums,
                                        const uint16_t *query, unsigned first, unsigned rope_head, bool present,
                                        float factor) {
    const unsigned lane = threadIdx.x % WARP, dims = params.geometry.rope_dim;
    const unsigned own = rope_head * dims - first * ROPE_STEP;
    // 16 lanes to a k-step: pair 4 j + t of it has its values 8 t + 2 j and 8 t + 2 j + 1.
    const unsigned j = lane >> 2 & 3, t = lane & 3;
    const float in_place = params.cache.rope_kind == ROW_INT4 && j % 2 == 1 ? ODD_PAIR : 1.0f;
    for (unsigned pair = lane; pair - lane < params.rope_span * ROPE_STEP / 2; pair += WARP) {
        const unsigned step = pair / 16, column = ROPE_STEP * step + 8 * t + 2 * j - own;
        const bool inside = present && step < params.rope_span;
        const float low = inside && column < dims ? f32_from_bf16_low(__ldg(query + column)) * factor : 0.0f;
        const float high = inside && column + 1 < dims ? f32_from_bf16_low(__ldg(query + column + 1)) * factor : 0.0f;
        float sum = low + high;
#pragma unroll
        for (int distance = 8; distance > 0; distance /= 2) {
            sum += __shfl_xor_sync(ALL_LANES, sum, distance);
        }
        if (step < params.rope_span) {
            row[pair] = params.cache.rope_kind == ROW_BF16 ? bf16x2_from_f32(low, high)
                                                           : f16x2_from_f32(low * in_place, high * in_place);
            if (lane % 16 == 0) {
                sums[step] = sum;
            }
        }
    }
}

// Where chunk `c` of a k-step's 8 begins, in words. Whole: it is word c % 2 of lane c / 2. Groups: of lane c % 4, in the
// k-step's first or second 32 latents.
template <typename S>
__device__ unsigned place_of(unsigned c) {
    return S::LATENTS == Latents::Whole ? c % 2 * 16 + c / 2 : c / 4 * 16 + c % 4;
}

// Groups: the sum of head n's query over a group, for score_mins, from `sum` of `chunk` and those of its neighbours in
// other lanes.
template <typename S>
__device__ void store_group_sum(const DecodeParams &params, unsigned char *q_sums, unsigned n, unsigned chunk,
                                float sum) {
    const unsigned chunks = params.cache.latent_group / 8, group = chunk / chunks;
    for (unsigned distance = 1; distance < chunks; distance *= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, distance);
    }
    if (chunk % chunks == 0 && group < params.cache.latent_groups) {
        sum *= Q_SUM_UNIT;
        const uint32_t high = f16x2_from_f32(sum, 0.0f);
        const uint32_t low = f16x2_from_f32(sum - f32x2_from_f16x2(high).x, 0.0f);
        uint16_t *to = reinterpret_cast<uint16_t *>(q_sums) +
                       8 * (group / GROUP_BLOCK * S::HEADS * 4 + n * 4 + group % 4) + group % GROUP_BLOCK / 4;
        to[0] = high;
        to[4] = low;
    }
}

template <typename S>
__device__ void load_queries(const DecodeParams &params, unsigned query_token, unsigned first_head,
                             const SharedMemory<S> &memory, BlockState<S> &block) {
    const GeometryParams &sizes = params.geometry;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned chunks = params.latent_steps * STEP / 8;
    const bool scaled = S::LATENTS != Latents::Bf16 || params.cache.rope_kind != ROW_BF16;
    const unsigned heads_per_rope = sizes.query_heads / sizes.rope_heads;
    const bool vectors = ((params.q_latent | 2 * params.q_latent_token_stride | 2 * params.q_latent_head_stride |
                           2 * sizes.latent_rank) % 16) == 0;
    for (unsigned n = warp; n < S::HEADS; n += WARPS) {
        const unsigned head = first_head + n;
        const bool present = head < sizes.query_heads;
        const uint16_t *latent = reinterpret_cast<const uint16_t *>(params.q_latent) +
                                 static_cast<size_t>(query_token) * params.q_latent_token_stride +
                                 static_cast<size_t>(head) * params.q_latent_head_stride;
        const uint16_t *rope = reinterpret_cast<const uint16_t *>(params.q_rope) +
                               static_cast<size_t>(query_token) * params.q_rope_token_stride +
                               static_cast<size_t>(head) * params.q_rope_head_stride;
        const unsigned count = present ? sizes.latent_rank : 0;

        float2 factor{1.0f, 1.0f};
        if (scaled) {
            uint32_t largest = 0;
            for (unsigned chunk = lane; chunk < chunks; chunk += WARP) {
                const Chunk x = load_chunk(latent + CHUNK * chunk, chunk_count(CHUNK * chunk, count), vectors);
                const uint32_t low = larger_magnitudes(x.pair[0], x.pair[1]);
                const uint32_t high = larger_magnitudes(x.pair[2], x.pair[3]);
                largest = larger_magnitudes(largest, larger_magnitudes(low, high));
            }
            for (unsigned i = lane; present && i < sizes.rope_dim; i += WARP) {
                largest = larger_magnitudes(largest, __ldg(rope + i));
            }
            factor = power_for(__reduce_max_sync(ALL_LANES, max(largest & 0xFFFF, largest >> 16)));
        }
        if (lane == 0) {
            block.logit_factor[n] = params.scale * CUDART_L2E_F * factor.y;
        }

        uint32_t *row = memory.q_latent(n);
        unsigned char *q_sums = memory.q_sums();
        if constexpr (S::LATENTS == Latents::Groups) {
            // Of groups that fill up the last block.
            const unsigned group_blocks = (params.cache.latent_groups + GROUP_BLOCK - 1) / GROUP_BLOCK;
            for (unsigned i = lane; i < 4 * group_blocks; i += WARP) {
                reinterpret_cast<uint4 *>(q_sums)[i / 4 * S::HEADS * 4 + n * 4 + i % 4] = {};
            }
            __syncwarp();
        }
        float sum = 0.0f;
        for (unsigned first = 0; first < chunks; first += WARP) {
            const unsigned chunk = first + lane;
            const unsigned present_count = chunk < chunks ? chunk_count(CHUNK * chunk, count) : 0;
            const Chunk x = load_chunk(latent + CHUNK * chunk, present_count, vectors);
            uint32_t stored[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool in_place = S::CODED && j % 2 == 1;
                stored[j] = query_pair<S::LATENTS>(x.pair[j], in_place ? factor.x * ODD_PAIR : factor.x);
                sum += (f32_from_bf16_low(x.pair[j]) + f32_from_bf16_high(x.pair[j])) * factor.x;
            }
            if constexpr (S::LATENTS == Latents::Groups) {
                store_group_sum<S>(params, q_sums, n, chunk, sum);
                sum = 0.0f;
            }
            if constexpr (S::LATENTS == Latents::Whole) {
                if (first + WARP >= chunks || (first + WARP) % (RUN / 8) == 0) {
                    sum = reduce_warp(sum, Sum());
                    if (lane == 0) {
                        block.q_sums[first / (RUN / 8)][n] = sum;
                    }
                    sum = 0.0f;
                }
            }
            if (chunk >= chunks) {
                continue;
            }
            if constexpr (S::CODED) {
                uint32_t *step = row + chunk / 8 * 32 + place_of<S>(chunk % 8);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    step[4 * j] = stored[j];
                }
            } else {
                reinterpret_cast<uint4 *>(row)[chunk] = {stored[0], stored[1], stored[2], stored[3]};
            }
        }

        const unsigned tile_head = first_head + n / 8 * 8;
        unsigned first = 0, end = 0;
        if (tile_head < sizes.query_heads) {
            const unsigned last_head = min(tile_head + 7, sizes.query_heads - 1);
            first = tile_head / heads_per_rope * sizes.rope_dim / ROPE_STEP;
            end = ((last_head / heads_per_rope + 1) * sizes.rope_dim + ROPE_STEP - 1) / ROPE_STEP;
        }
        if (n % 8 == 0 && lane == 0) {
            block.rope_steps[n / 8] = {first, end - first};
        }
        store_rope_query(params, memory.q_rope(n), memory.q_rope_sums(n), rope, first, head / heads_per_rope, present,
                         factor.x);
    }
}
