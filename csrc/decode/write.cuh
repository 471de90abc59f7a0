// Results: of a whole query token o_latent (bf16) and lse, of a part of it f32 partials for `combine`.
#pragma once

#include "output.cuh"

__device__ inline size_t output_row(const DecodeParams &params, const DecodeItem &item, unsigned head) {
    return static_cast<size_t>(item.slot < 0 ? item.query : item.slot) * params.geometry.query_heads + head;
}

__device__ inline void write_lse(const DecodeParams &params, const DecodeItem &item, unsigned head, float lse) {
    if (head < params.geometry.query_heads) {
        float *to = reinterpret_cast<float *>(item.slot < 0 ? params.lse : params.lse_partial);
        to[output_row(params, item, head)] = lse;
    }
}

__device__ inline void write_value(const DecodeParams &params, const DecodeItem &item, size_t place, float x) {
    if (item.slot < 0) {
        reinterpret_cast<uint16_t *>(params.o_latent)[place] = bf16_from_f32(x);
    } else {
        reinterpret_cast<float *>(params.o_partial)[place] = x;
    }
}

// What a query that sees no token gets: zeros and minus infinity.
__device__ inline void write_nothing(const DecodeParams &params, const DecodeItem &item, unsigned first_head,
                                     unsigned heads) {
    const unsigned end_head = min(first_head + heads, params.geometry.query_heads), rank = params.geometry.latent_rank;
    for (unsigned head = first_head + threadIdx.x / WARP; head < end_head; head += WARPS) {
        for (unsigned latent = threadIdx.x % WARP; latent < rank; latent += WARP) {
            write_value(params, item, output_row(params, item, head) * rank + latent, 0.0f);
        }
        if (threadIdx.x % WARP == 0) {
            write_lse(params, item, head, -CUDART_INF_F);
        }
    }
}

template <typename S>
__device__ void write_output(const DecodeParams &params, const DecodeItem &item, unsigned first_head,
                             unsigned char *shared, const SmallArrays<S> &small, const Output<S> &output) {
    const unsigned warp = threadIdx.x / WARP, t = threadIdx.x % 4, rank = params.geometry.latent_rank;
    const bool vectors = rank % 8 == 0 && (item.slot < 0 ? params.o_latent : params.o_partial) % 16 == 0;
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const unsigned slice = warp + WARPS * i;
#pragma unroll
        for (int n = 0; n < S::TILES; ++n) {
#pragma unroll
            for (int column = 0; column < 2; ++column) {
                const unsigned own = 8 * n + 2 * t + column, head = first_head + own;
                if (head >= params.geometry.query_heads || STEP * slice >= rank) {
                    continue;
                }
                float x[8];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float factor = small.rescale[own], offset = 0.0f;
                    if constexpr (S::CODED) {
                        const unsigned group = group_of<S>(params, slice, j), in_block = group % MIN_BLOCK;
                        const float4 &mins =
                            mins_of_unit<S>(params, shared, group / MIN_BLOCK, n, in_block % 8 * 4 + t);
                        offset = factor * (in_block < 8 ? (column == 0 ? mins.x : mins.y)
                                                        : (column == 0 ? mins.z : mins.w));
                        factor *= small.units[group] * SUBNORMAL * (j % 2 == 1 ? ODD_PAIR : 1.0f);
                    }
                    x[2 * j] = fmaf(output[i][j][n][column], factor, offset);
                    x[2 * j + 1] = fmaf(output[i][j][n][column + 2], factor, offset);
                }
                const size_t row = output_row(params, item, head) * rank;
                if (S::LATENTS == Latents::Whole && vectors) {
                    // A lane's 8 latents are neighbours.
                    const unsigned latent = latent_of<S>(slice, 0, 0);
                    if (latent < rank && item.slot < 0) {
                        *reinterpret_cast<uint4 *>(reinterpret_cast<uint16_t *>(params.o_latent) + row + latent) = {
                            bf16x2_from_f32(x[0], x[1]), bf16x2_from_f32(x[2], x[3]), bf16x2_from_f32(x[4], x[5]),
                            bf16x2_from_f32(x[6], x[7])};
                    } else if (latent < rank) {
                        float *numbers = reinterpret_cast<float *>(params.o_partial) + row + latent;
                        float4 *to = reinterpret_cast<float4 *>(numbers);
                        to[0] = {x[0], x[1], x[2], x[3]};
                        to[1] = {x[4], x[5], x[6], x[7]};
                    }
                } else {
#pragma unroll
                    for (int y = 0; y < 8; ++y) {
                        const unsigned latent = latent_of<S>(slice, y / 2, y % 2);
                        if (latent < rank) {
                            write_value(params, item, row + latent, x[y]);
                        }
                    }
                }
            }
        }
    }
}
