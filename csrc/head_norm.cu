// `head_norm`: norms over whole heads of queries and keys; `src/reference/head_norm.rs` on the device, to the bit.
//
//     grid: x over heads, 4 to a block: first the keys' of all tokens, then the queries'
//     each warp, for its head of R + Dn numbers:
//         add the squares                        a lane has 8 neighbours of every 256
//         sum over the lanes (shuffles); factor = 1 / sqrt(sum / (R + Dn) + epsilon)
//         if a key:    write the factor
//         if a query:  read the numbers again; multiply by factor and gain; write
//     no shared memory, no barriers
//
// Per head, in bytes: reads 2 (R + Dn), queries twice, the second time from L1; writes 4 of a key, 2 (R + Dn) of a query,
// whose gain comes from L1 or L2. FLOPs: 2 to 4 per number, about one per byte: memory-bound with many tokens,
// latency-bound with few.
//
// Numbers are accessed 16 bytes at a time where both parts of a head and all strides are aligned to that, else one by one.
#include "common/chunk.cuh"
#include "common/reduce.cuh"
#include "params.h"
#include "ptx/convert.cuh"
#include "ptx/griddepcontrol.cuh"

namespace {

// A head's rotated dimensions and the others, as one row.
struct Head {
    uint16_t *rope, *nope;
    unsigned rope_dim, width;
    // Whether all chunks are, and lie in one part.
    bool aligned;

    __device__ uint16_t *at(unsigned i) const { return i < rope_dim ? rope + i : nope + (i - rope_dim); }

    // Numbers `k` to `k + 7`; zeros past the end.
    __device__ void load(unsigned k, float (&values)[CHUNK]) const {
        Chunk chunk{};
        if (aligned) {
            chunk = *reinterpret_cast<const Chunk *>(at(k));
        } else {
#pragma unroll
            for (unsigned i = 0; i < CHUNK; ++i) {
                const uint32_t bits = k + i < width ? *at(k + i) : 0;
                chunk.pair[i / 2] |= bits << (16 * (i % 2));
            }
        }
#pragma unroll
        for (unsigned i = 0; i < CHUNK; i += 2) {
            values[i] = f32_from_bf16_low(chunk.pair[i / 2]);
            values[i + 1] = f32_from_bf16_high(chunk.pair[i / 2]);
        }
    }

    __device__ void store(unsigned k, const float (&values)[CHUNK]) const {
        Chunk chunk;
#pragma unroll
        for (unsigned i = 0; i < CHUNK; i += 2) {
            chunk.pair[i / 2] = bf16x2_from_f32(values[i], values[i + 1]);
        }
        if (aligned) {
            *reinterpret_cast<Chunk *>(at(k)) = chunk;
        } else {
#pragma unroll
            for (unsigned i = 0; i < CHUNK; ++i) {
                if (k + i < width) {
                    *at(k + i) = static_cast<uint16_t>(chunk.pair[i / 2] >> (16 * (i % 2)));
                }
            }
        }
    }
};

// Where the two parts of heads lie, [tokens, heads, ..] each.
struct Heads {
    uint64_t rope, nope;
    uint32_t rope_token_stride, rope_head_stride, nope_token_stride, nope_head_stride;

    __device__ Head head(const GeometryParams &g, unsigned token, unsigned head) const {
        const uint64_t strides = rope_token_stride | rope_head_stride | nope_token_stride | nope_head_stride;
        const bool aligned =
            (rope | nope) % CHUNK_BYTES == 0 && (strides | g.rope_dim | g.nope_dim) % CHUNK == 0;
        return {reinterpret_cast<uint16_t *>(rope) + size_t(token) * rope_token_stride + size_t(head) * rope_head_stride,
                reinterpret_cast<uint16_t *>(nope) + size_t(token) * nope_token_stride + size_t(head) * nope_head_stride,
                g.rope_dim, g.rope_dim + g.nope_dim, aligned};
    }
};

// 1 over the root of a head's mean square, in the order of `reference::rms_norm`. All lanes get it.
__device__ float inverse_rms(const Head &head, float epsilon) {
    float sum = 0.0f;
    for (unsigned k = threadIdx.x % WARP * CHUNK; k < head.width; k += WARP * CHUNK) {
        float values[CHUNK];
        head.load(k, values);
#pragma unroll
        for (float value : values) {
            sum = __fadd_rn(sum, __fmul_rn(value, value));
        }
    }
    sum = reduce_warp(sum, Sum());
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(head.width)), epsilon)));
}

// Normalises a query. In place each lane writes what it has read itself.
__device__ void normalise(const Head &from, const Head &to, float factor, const float *gain) {
    for (unsigned k = threadIdx.x % WARP * CHUNK; k < from.width; k += WARP * CHUNK) {
        float values[CHUNK];
        from.load(k, values);
#pragma unroll
        for (unsigned i = 0; i < CHUNK; ++i) {
            values[i] = __fmul_rn(__fmul_rn(values[i], factor), k + i < from.width ? __ldg(gain + k + i) : 0.0f);
        }
        to.store(k, values);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(HEAD_NORM_THREADS)
    head_norm(const __grid_constant__ HeadNormParams params) {
    wait_for_kernel_in_front();
    const GeometryParams &g = params.geometry;
    const unsigned keys = params.tokens * g.kv_heads, queries = params.query_gain != 0 ? params.tokens * g.query_heads : 0;
    const unsigned index = blockIdx.x * (HEAD_NORM_THREADS / WARP) + threadIdx.x / WARP;
    if (index < keys) {
        const Heads all{params.k_rope, params.k_nope, params.k_rope_token_stride, params.k_rope_head_stride,
                        params.k_nope_token_stride, params.k_nope_head_stride};
        const float factor = inverse_rms(all.head(g, index / g.kv_heads, index % g.kv_heads), params.epsilon);
        if (threadIdx.x % WARP == 0) {
            reinterpret_cast<float *>(params.key_factors)[index] = factor;
        }
    } else if (index - keys < queries) {
        const unsigned token = (index - keys) / g.query_heads, head = (index - keys) % g.query_heads;
        const Heads all{params.q_rope, params.q_nope, params.q_rope_token_stride, params.q_rope_head_stride,
                        params.q_nope_token_stride, params.q_nope_head_stride};
        const Heads out{params.q_rope_out, params.q_nope_out, params.q_rope_out_token_stride,
                        params.q_rope_out_head_stride, params.q_nope_out_token_stride, params.q_nope_out_head_stride};
        const Head from = all.head(g, token, head);
        const float *gain = reinterpret_cast<const float *>(params.query_gain) +
                            size_t(head / (g.query_heads / g.kv_heads)) * from.width;
        normalise(from, out.head(g, token, head), inverse_rms(from, params.epsilon), gain);
    }
}
