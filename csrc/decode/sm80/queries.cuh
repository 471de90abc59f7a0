// The query of a block's heads, in shared memory as B operands.
//
// A warp has heads w, w + 8, ... What it reads of the latents' query is a batch of independent loads of all of them, which
// stay in registers until the largest number of a head, and so its scaling, is known: one latency, not one per head and
// pass. The rotated key's waits in its place in shared memory.
//
// Order: wherever A fragments are read 8 values (or words of 8 codes) per lane, k runs in another order than memory, and
// the query is stored in the order of k. In a k-step of 64 codes lane t has the values 16 t .. 16 t + 15, in 2 words; in
// a k-step of 32 values of a rotated key 8 t .. 8 t + 7. The four pairs of 8 values go to four matrices of `ldmatrix`.
#pragma once

#include "../../cache/int4.cuh"
#include "../scaled_query.cuh"
#include "shared.cuh"

// Where chunk `c` of a k-step's 8 begins, in words. Whole: it is word c % 2 of lane c / 2. Groups: of lane c % 4, in the
// k-step's first or second 32 latents.
template <typename S>
__device__ unsigned place_of(unsigned c) {
    return S::LATENTS == Latents::Whole ? c % 2 * 16 + c / 2 : c / 4 * 16 + c % 4;
}

// A column of B with k = 8, as four lanes have it: the parts of a sum for a pair of (scale, min) in k = 0, 1 and for the same
// in k = 2, 3. So A is a lane's pair as it is.
__device__ inline uint4 sum_column(const SumParts &sum) { return {sum.high << 16, sum.low << 16, 0, 0}; }

// Groups: the sum of head n's query over a group, for score_mins, from `sum` of `chunk` and those of its neighbours in
// other lanes.
template <typename S>
__device__ void store_group_sum(const DecodeParams &params, unsigned char *q_sums, unsigned n, unsigned chunk,
                                float sum) {
    const unsigned chunks = params.cache.latent_group / 8, group = chunk / chunks;
#pragma unroll 1
    for (unsigned distance = 1; distance < chunks; distance *= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, distance);
    }
    if (chunk % chunks == 0 && group < params.cache.latent_groups) {
        const SumParts parts(sum);
        uint16_t *to = reinterpret_cast<uint16_t *>(q_sums) +
                       8 * (group / GROUP_BLOCK * S::HEADS * 4 + n * 4 + group % 4) + group % GROUP_BLOCK / 4;
        to[0] = parts.high;
        to[4] = parts.low;
    }
}

// The k-steps of the rotated key in which the rope heads of an n-tile lie: the first, and how many.
__device__ inline uint2 rope_steps_of(const DecodeParams &params, unsigned tile_head) {
    const GeometryParams &sizes = params.geometry;
    if (tile_head >= sizes.query_heads) {
        return {0, 0};
    }
    const unsigned heads_per_rope = sizes.query_heads / sizes.rope_heads;
    const unsigned last_head = min(tile_head + 7, sizes.query_heads - 1);
    const unsigned first = tile_head / heads_per_rope * sizes.rope_dim / ROPE_STEP;
    const unsigned end = ((last_head / heads_per_rope + 1) * sizes.rope_dim + ROPE_STEP - 1) / ROPE_STEP;
    return {first, end - first};
}

// The dimension of a head's own rope head that pair `pair` of its row in shared memory begins with, if it is below
// rope_dim (others wrap around): pair 4 j + t of a k-step's 16 has its values 8 t + 2 j and 8 t + 2 j + 1.
__device__ inline unsigned rope_dimension(const DecodeParams &params, unsigned pair, unsigned first_step,
                                          unsigned head) {
    const unsigned heads_per_rope = params.geometry.query_heads / params.geometry.rope_heads;
    const unsigned own = head / heads_per_rope * params.geometry.rope_dim - first_step * ROPE_STEP;
    return pair / 16 * ROPE_STEP + 8 * (pair & 3) + 2 * (pair >> 2 & 3) - own;
}

template <typename S>
class Queries {
    // Chunks of a head that a lane has: c, c + 32, ...
    static constexpr int CHUNKS = S::SLICES * RUN / CHUNK / WARP;
    Chunk chunks_[S::N_TILES][CHUNKS];

    // The warp's i-th head.
    __device__ static unsigned own(int i) { return threadIdx.x / WARP + WARPS * i; }

public:
    // Begins to load the latents' query.
    __device__ Queries(const DecodeParams &params, unsigned query_token, unsigned first_head) {
        const unsigned lane = threadIdx.x % WARP, rank = params.geometry.latent_rank;
        const bool vectors = reads_vectors(params);
#pragma unroll
        for (int i = 0; i < S::N_TILES; ++i) {
            const HeadQuery query(params, query_token, first_head + own(i));
            const unsigned count = query.present ? rank : 0;
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) {
                const unsigned first = CHUNK * (lane + WARP * c);
                chunks_[i][c] = load_chunk(query.latent + first, chunk_count(first, count), vectors);
            }
        }
    }

    __device__ void store(const DecodeParams &params, unsigned query_token, unsigned first_head,
                          const SharedMemory<S> &memory, BlockState<S> &block) const {
        const unsigned lane = threadIdx.x % WARP;
        uint32_t largest[S::N_TILES] = {};
        load_rope(params, query_token, first_head, memory, largest);
#pragma unroll
        for (int i = 0; i < S::N_TILES; ++i) {
            const unsigned n = own(i);
            if (lane == 0 && n % 8 == 0) {
                const uint2 steps = rope_steps_of(params, first_head + n);
                block.rope_tiles[n / 8] = {steps.x, steps.y, n * params.shared.q_rope_stride, 16 * n * params.rope_span};
            }
            float2 factor{1.0f, 1.0f};
            if (S::CODED || params.cache.rope_kind != ROW_BF16) {
#pragma unroll
                for (int c = 0; c < CHUNKS; ++c) {
                    largest[i] = larger_magnitudes(largest[i], chunks_[i][c]);
                }
                factor = power_for(largest_of_warp(largest[i]));
            }
            if (lane == 0) {
                block.exponents[n].factor = params.scale * CUDART_L2E_F * factor.y * SCORE_UNIT;
            }
            store_latent(params, chunks_[i], n, factor.x, memory, block);
            scale_rope(params, n, factor.x, memory);
        }
    }

private:
    // The rotated key's query as it is, in its place: zeros but in the columns of a head's own rope head.
    __device__ static void load_rope(const DecodeParams &params, unsigned query_token, unsigned first_head,
                                     const SharedMemory<S> &memory, uint32_t (&largest)[S::N_TILES]) {
        const unsigned lane = threadIdx.x % WARP, dims = params.geometry.rope_dim;
#pragma unroll 1
        for (unsigned pair = lane; pair < params.rope_span * ROPE_STEP / 2; pair += WARP) {
            uint32_t loaded[S::N_TILES];
#pragma unroll
            for (int i = 0; i < S::N_TILES; ++i) {
                const unsigned head = first_head + own(i), first = rope_steps_of(params, first_head + own(i) / 8 * 8).x;
                const unsigned column = rope_dimension(params, pair, first, head);
                const HeadQuery query(params, query_token, head);
                const uint32_t low = query.present && column < dims ? __ldg(query.rope + column) : 0;
                const uint32_t high = query.present && column + 1 < dims ? __ldg(query.rope + column + 1) : 0;
                loaded[i] = low | high << 16;
            }
#pragma unroll
            for (int i = 0; i < S::N_TILES; ++i) {
                memory.q_rope(own(i))[pair] = loaded[i];
                largest[i] = larger_magnitudes(largest[i], loaded[i]);
            }
        }
    }

    // Scales a head's query for the rotated key, and sums up each k-step. A lane has the pairs that it has loaded.
    __device__ static void scale_rope(const DecodeParams &params, unsigned n, float factor,
                                      const SharedMemory<S> &memory) {
        const unsigned lane = threadIdx.x % WARP, pairs = params.rope_span * ROPE_STEP / 2;
        const float in_place = params.cache.rope_kind == ROW_INT4 && (lane >> 2) % 2 == 1 ? ODD_PAIR : 1.0f;
#pragma unroll 1
        for (unsigned pair = lane; pair - lane < pairs; pair += WARP) {
            const uint32_t bits = pair < pairs ? memory.q_rope(n)[pair] : 0;
            const float low = f32_from_bf16_low(bits) * factor, high = f32_from_bf16_high(bits) * factor;
            float sum = low + high;
#pragma unroll
            for (int distance = 8; distance > 0; distance /= 2) {
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            }
            if (pair < pairs) {
                memory.q_rope(n)[pair] = params.cache.rope_kind == ROW_BF16
                                             ? bf16x2_from_f32(low * (1.0f / SCORE_UNIT), high * (1.0f / SCORE_UNIT))
                                             : f16x2_from_f32(low * in_place, high * in_place);
                if (lane % 16 == 0) {
                    reinterpret_cast<uint4 *>(memory.q_rope_sums())[(n / 8 * params.rope_span + pair / 16) * 8 + n % 8] =
                        sum_column(SumParts(sum));
                }
            }
        }
    }

    // Scales a head's query for the latents, and sums it up, over runs or over groups.
    __device__ static void store_latent(const DecodeParams &params, const Chunk (&chunks)[CHUNKS], unsigned n,
                                        float factor, const SharedMemory<S> &memory, BlockState<S> &block) {
        const unsigned lane = threadIdx.x % WARP, count = params.latent_steps * STEP / CHUNK;
        uint32_t *row = memory.q_latent(n);
        unsigned char *q_sums = memory.q_sums();
        if constexpr (S::LATENTS == Latents::Groups) {
            // Of groups that fill up the last block.
#pragma unroll 1
            for (unsigned i = lane; i < 4 * group_blocks(params); i += WARP) {
                reinterpret_cast<uint4 *>(q_sums)[i / 4 * S::HEADS * 4 + n * 4 + i % 4] = {};
            }
            __syncwarp();
        }
        float sum = 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            const unsigned chunk = lane + WARP * c;
            uint32_t stored[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const uint32_t pair = chunks[c].pair[j];
                const float unit = !S::CODED ? 1.0f / SCORE_UNIT : j % 2 == 1 ? ODD_PAIR : 1.0f;
                stored[j] = query_pair<S::LATENTS>(pair, factor * unit);
                sum += (f32_from_bf16_low(pair) + f32_from_bf16_high(pair)) * factor;
            }
            if constexpr (S::LATENTS == Latents::Groups) {
                store_group_sum<S>(params, q_sums, n, chunk, sum);
                sum = 0.0f;
            }
            if (S::LATENTS == Latents::Whole && (c + 1) * WARP % (RUN / CHUNK) == 0) {
                sum = reduce_warp(sum, Sum());
                if (lane == 0) {
                    reinterpret_cast<uint4 *>(q_sums)[c * WARP / (RUN / CHUNK) * S::HEADS + n] = sum_column(SumParts(sum));
                }
                sum = 0.0f;
            }
            if (chunk < count) {
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
        }
    }
};
