// The query of a block's heads, in shared memory as B of the products: blocks of 64 k, swizzled.
//
// All heads are scaled by one power of two (../scaled_query.cuh), that of the largest number of them all, so that
// scores need no factor of their own. What that rounds off of a head with small numbers is below 2^-38 of the largest.
//
// Order: A fragments are read 8 values or codes per lane, so that k runs in another order than memory, and the query is
// stored in the order of k. Lane t has 8 neighbouring values in 16 bits of each of two rounds of 32 k: of latents 16 t
// + 8 `round` .., of a rotated key, and of latents in groups of 32, 32 `round` + 8 t ... Their pairs 0 and 1 are k = 2 t .. and 2 t + 8 .. of the
// round's first 16, pairs 2 and 3 of its second 16. What meets bf16 in shared memory is in the order of memory (bf16.cuh).
#pragma once

#include <math_constants.h>

#include "../../cache/int4.cuh"
#include "../../ptx/barrier.cuh"
#include "../scaled_query.cuh"
#include "mins.cuh"
#include "shared.cuh"

// Of a query what a block has: `latent` and `rope` are the first numbers of the latent and of all rope heads' values, and
// `rope_groups` the groups of a rotated key from there on.
struct QueryPart {
    unsigned latent, rope, rope_groups;
};

// All of it.
__device__ inline QueryPart whole_query(const DecodeParams &params) {
    const unsigned group = params.cache.rope_group, width = params.geometry.rope_heads * params.geometry.rope_dim;
    return {0, 0, group == 0 ? 0 : (width + group - 1) / group};
}

// Where pair j of lane t's 8 values of a round goes, in a head's row of a block.
__device__ inline unsigned place_of_pair(unsigned round, unsigned t, unsigned j) {
    return 64 * round + 32 * (j / 2) + 16 * (j % 2) + 4 * t;
}

// Where pair j of chunk `chunk` of a block of latents goes.
template <typename S>
__device__ unsigned place_of_chunk(unsigned chunk, unsigned j) {
    if constexpr (S::LATENTS == Latents::Bf16) {
        return CHUNK_BYTES * chunk + 4 * j;
    }
    return S::STEP_GROUPS == 1 ? place_of_pair(chunk % 2, chunk / 2, j) : place_of_pair(chunk / 4, chunk % 4, j);
}

// Stores head n's query for the rotated key: zeros but in the columns of its own rope head.
template <typename S>
__device__ void store_rope_query(const DecodeParams &params, const SharedMemory<S> &memory, unsigned n,
                                 const QueryPart &part, unsigned rope_head, const HeadQuery &query, float factor) {
    const unsigned lane = threadIdx.x % WARP, dims = params.geometry.rope_dim, own = rope_head * dims;
    const unsigned kind = params.cache.rope_kind, pairs = 32 * params.sm90.rope_blocks;
    for (unsigned pair = lane; pair < pairs; pair += WARP) {
        // Pair j of lane t's 8 values of a round of a block.
        const unsigned j = pair % 4, t = pair / 4 % 4, round = pair / 16 % 2, column = part.rope + 2 * pair - own;
        const bool first = query.present && column < dims, second = query.present && column + 1 < dims;
        const float low = first ? f32_from_bf16_low(__ldg(query.rope + column)) : 0.0f;
        const float high = second ? f32_from_bf16_low(__ldg(query.rope + column + 1)) : 0.0f;
        const bool in_order = S::LATENTS == Latents::Bf16 && kind == ROW_BF16;
        // Products with bf16 are in the unit of the sums at once.
        const float in_place = kind == ROW_BF16               ? factor * (1.0f / SCORE_UNIT)
                               : kind == ROW_INT4 && j % 2 == 1 ? factor * ODD_PAIR
                                                                : factor;
        const uint32_t stored = kind == ROW_BF16 ? bf16x2_from_f32(low * in_place, high * in_place)
                                                 : f16x2_from_f32(low * in_place, high * in_place);
        *reinterpret_cast<uint32_t *>(memory.q_rope() + pair / 32 * S::BLOCK_BYTES +
                                      swizzled(n, in_order ? 4 * (pair % 32) : place_of_pair(round, t, j))) = stored;
    }
    const unsigned size = params.cache.rope_group, end = part.rope + 2 * pairs;
    for (unsigned group = 0; group < part.rope_groups; ++group) {
        const unsigned first = part.rope + size * group, behind = min(first + size, end);
        float sum = 0.0f;
        for (unsigned i = lane; i < dims; i += WARP) {
            const bool inside = query.present && own + i >= first && own + i < behind;
            sum += inside ? f32_from_bf16_low(__ldg(query.rope + i)) * factor : 0.0f;
        }
        sum = reduce_warp(sum, Sum());
        if (lane == 0) {
            store_query_sum(memory, n, S::first_rope_pair(params) + group, sum);
        }
    }
}

// Which pair of (scale, min) is that of the heads' groups of a rotated key, where each pair of heads has one.
template <typename S>
__device__ void find_rope_words(const DecodeParams &params, unsigned first_head, BlockState<S> &block) {
    const GeometryParams &sizes = params.geometry;
    const unsigned pair = threadIdx.x;
    // Of pairs that the block lacks, too, as a thread reads those of 16 heads at once.
    if (params.sm90.rope_way == 3 && pair < sizeof(block.rope_words)) {
        const unsigned head = min(first_head + 2 * pair, sizes.query_heads - 1);
        const unsigned rope_head = head / (sizes.query_heads / sizes.rope_heads);
        block.rope_words[pair % 4][pair / 4] =
            params.cache.latent_groups + rope_head * sizes.rope_dim / params.cache.rope_group;
    }
}

// Stores a head's sums of the query over groups of latents, of which each lane has that of a chunk.
template <typename S>
__device__ void store_group_sums(const DecodeParams &params, const SharedMemory<S> &memory, unsigned head,
                                 unsigned chunk, float sum) {
    const unsigned chunks = params.cache.latent_group / CHUNK;
    for (unsigned distance = 1; distance < chunks; distance *= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, distance);
    }
    if (chunk % chunks == 0 && chunk / chunks < params.cache.latent_groups) {
        store_query_sum(memory, head, chunk / chunks, sum);
    }
}

// Stores the query of the block's heads. A warp has every eighth head, and loads all that it needs of their latents
// before it waits for any.
template <typename S>
__device__ void load_queries(const DecodeParams &params, unsigned query_token, unsigned first_head,
                             const QueryPart &part, const SharedMemory<S> &memory) {
    constexpr unsigned WARPS = CONSUMER_THREADS / WARP, CHUNKS = S::STEPS * STEP / CHUNK, ROUNDS = CHUNKS / WARP;
    static_assert(CHUNKS % WARP == 0, "a warp reads whole rounds of chunks");
    const GeometryParams &sizes = params.geometry;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned heads_per_rope = sizes.query_heads / sizes.rope_heads;
    const bool vectors = reads_vectors(params);
    Chunk latents[S::BLOCK_TILES][ROUNDS];
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < S::BLOCK_TILES; ++i) {
        const HeadQuery query(params, query_token, first_head + warp + WARPS * i);
#pragma unroll
        for (unsigned j = 0; j < ROUNDS; ++j) {
            const unsigned first = part.latent + CHUNK * (lane + WARP * j);
            latents[i][j] =
                load_chunk(query.latent + first, query.present ? chunk_count(first, sizes.latent_rank) : 0, vectors);
        }
        for (unsigned x = lane; query.present && x < sizes.rope_dim; x += WARP) {
            largest = larger_magnitudes(largest, __ldg(query.rope + x));
        }
    }
#pragma unroll
    for (int i = 0; i < S::BLOCK_TILES; ++i) {
#pragma unroll
        for (unsigned j = 0; j < ROUNDS; ++j) {
            largest = larger_magnitudes(largest, latents[i][j]);
        }
    }
    BlockState<S> &block = memory.state();
    find_rope_words(params, first_head, block);
    largest = largest_of_warp(largest);
    if (lane == 0) {
        block.largest_query[warp] = largest;
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
#pragma unroll
    for (unsigned i = 0; i < WARPS; ++i) {
        largest = max(largest, block.largest_query[i]);
    }
    const float2 power = power_for(largest);
    const float factor = params.scale * CUDART_L2E_F * power.y;
    if (threadIdx.x == 0) {
        block.factor = factor * (S::LATENTS == Latents::Bf16 ? SCORE_UNIT : SUBNORMAL);
    }
#pragma unroll
    for (int i = 0; i < S::BLOCK_TILES; ++i) {
        const unsigned n = warp + WARPS * i, head = first_head + n;
        if (S::LATENTS != Latents::Bf16 || S::pair_bytes(params) > 0) {
            clear_query_sums(params, memory, n);
        }
        float sum = 0.0f;
#pragma unroll
        for (unsigned j = 0; j < ROUNDS; ++j) {
            const unsigned chunk = lane + WARP * j;
            unsigned char *to = memory.q_latent() + chunk / 8 * S::BLOCK_BYTES;
#pragma unroll
            for (int x = 0; x < 4; ++x) {
                const uint32_t pair = latents[i][j].pair[x];
                const float unit = S::LATENTS == Latents::Bf16 ? 1.0f / SCORE_UNIT : x % 2 == 1 ? ODD_PAIR : 1.0f;
                *reinterpret_cast<uint32_t *>(to + swizzled(n, place_of_chunk<S>(chunk % 8, x))) =
                    query_pair<S::LATENTS>(pair, power.x * unit);
                sum += (f32_from_bf16_low(pair) + f32_from_bf16_high(pair)) * power.x;
            }
            if constexpr (S::GROUPED) {
                store_group_sums(params, memory, n, chunk, sum);
                sum = 0.0f;
            }
        }
        if constexpr (S::LATENTS == Latents::Whole) {
            sum = reduce_warp(sum, Sum());
            if (lane == 0) {
                store_query_sum(memory, n, 0, sum);
            }
        }
        if (lane == 0) {
#pragma unroll
            for (unsigned group = 0; group < CONSUMERS; ++group) {
                block.references[group][n % S::OWN_HEADS] = -CUDART_INF_F;
            }
        }
        store_rope_query(params, memory, n, part, head / heads_per_rope, HeadQuery(params, query_token, head), power.x);
    }
}
