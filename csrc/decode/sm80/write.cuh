// The output: accumulators, rescaled, with what the mins give.
#pragma once

#include "../../cache/int4.cuh"
#include "../results.cuh"
#include "fragments.cuh"
#include "shared.cuh"
#include "softmax.cuh"

template <typename S>
__device__ void write_output(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                             const SharedMemory<S> &memory, const BlockState<S> &block, const Output<S> &output) {
    const unsigned warp = threadIdx.x / WARP, t = threadIdx.x % 4, rank = params.geometry.latent_rank;
    const bool vectors = writes_vectors(params, split);
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const unsigned slice = warp + WARPS * i;
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
#pragma unroll
            for (int column = 0; column < 2; ++column) {
                const unsigned own = 8 * n + 2 * t + column, head = first_head + own;
                if (head >= params.geometry.query_heads || STEP * slice >= rank) {
                    continue;
                }
                float x[8];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float factor = memory.sum(Sums<S>::divisor(i), 0, own), offset = 0.0f;
                    if constexpr (S::LATENTS == Latents::Whole) {
                        offset = factor * memory.sum(2 + 2 * i, 0, own);
                        factor *= block.units[i] * SUBNORMAL * (j % 2 == 1 ? ODD_PAIR : 1.0f);
                    } else if constexpr (S::LATENTS == Latents::Groups) {
                        const unsigned group = group_of<S>(params, slice, j), in_block = group % GROUP_BLOCK;
                        const float4 &mins = memory.output_mins(group / GROUP_BLOCK, n, in_block % 8 * 4 + t);
                        offset = factor * (in_block < 8 ? (column == 0 ? mins.x : mins.y)
                                                        : (column == 0 ? mins.z : mins.w));
                        factor *= block.units[group] * SUBNORMAL * (j % 2 == 1 ? ODD_PAIR : 1.0f);
                    }
                    x[2 * j] = fmaf(output[i][j][n][column], factor, offset);
                    x[2 * j + 1] = fmaf(output[i][j][n][column + 2], factor, offset);
                }
                if constexpr (S::LATENTS == Latents::Whole) {
                    // A lane's 8 latents are neighbours.
                    write_latents(params, split, head, latent_of<S>(slice, 0, 0), vectors, x);
                } else {
                    const size_t row = output_row(params, split, head) * rank;
#pragma unroll
                    for (int y = 0; y < 8; ++y) {
                        const unsigned latent = latent_of<S>(slice, y / 2, y % 2);
                        if (latent < rank) {
                            write_value(params, split, row + latent, x[y]);
                        }
                    }
                }
            }
        }
    }
}
