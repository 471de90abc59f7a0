// The output, from what the cache holds: O^T += C^T P^T, latents on m, heads on n, tokens in k.
//
// A fragments of int4 come straight from the codes, as in scores.cuh: 6/8 instructions per value. Scales and mins never
// touch a value:
//     O = sum_t (P_t scale_t) code_t + sum_t P_t min_t
// Whole: weights come times the scales of the slice's run, and the mins' sum is the softmax's. Groups: weights are
// multiplied with a group's scales in registers, one for each 32 latents, and the mins are products of their own, 16
// groups on m. Bf16: A fragments are the cache's rows.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/half.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "shared.cuh"

template <int N_TILES>
__device__ void scale_tile(FragmentC (&output)[N_TILES], float factor) {
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            output[n][x] *= factor;
        }
    }
}

template <int N_TILES>
__device__ void rescale_tile(FragmentC (&output)[N_TILES], const float2 (&factors)[N_TILES], float factor) {
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
        output[n][0] *= factors[n].x * factor;
        output[n][1] *= factors[n].y * factor;
        output[n][2] *= factors[n].x * factor;
        output[n][3] *= factors[n].y * factor;
    }
}

// The tokens of 16 positions, four to a lane, as A fragments of two neighbouring m-tiles: pairs I and I + 1 (int4.cuh)
// of each half-word that `low` (values of even number) and `high` (odd) select from two tokens' words.
template <int I>
__device__ void code_tiles(FragmentA (&a)[2], const uint32_t (&words)[4], uint32_t low, uint32_t high) {
    const uint32_t even0 = __byte_perm(words[0], words[1], low), odd0 = __byte_perm(words[0], words[1], high);
    const uint32_t even1 = __byte_perm(words[2], words[3], low), odd1 = __byte_perm(words[2], words[3], high);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        a[i][0] = i == 0 ? subnormal_pair<I>(even0) : subnormal_pair<I + 1>(even0);
        a[i][1] = i == 0 ? subnormal_pair<I>(odd0) : subnormal_pair<I + 1>(odd0);
        a[i][2] = i == 0 ? subnormal_pair<I>(even1) : subnormal_pair<I + 1>(even1);
        a[i][3] = i == 0 ? subnormal_pair<I>(odd1) : subnormal_pair<I + 1>(odd1);
    }
}

// A plane's B fragments of an m-tile, from where the lane's first one is stored on.
template <typename S>
__device__ void load_weights(FragmentB (&b)[S::N_TILES], const unsigned char *from) {
#pragma unroll
    for (int n = 0; n < S::N_TILES; n += S::OWN) {
        if constexpr (S::OWN == 2) {
            const uint4 pair = at<uint4>(from, 8 * WARP * n);
            b[n] = {pair.x, pair.y};
            b[n + 1] = {pair.z, pair.w};
        } else {
            b[n] = at<FragmentB>(from, 8 * WARP * n);
        }
    }
}

// Adds the products of two neighbouring m-tiles with weights times scales.
template <int N_TILES>
__device__ void multiply_weights(FragmentC (&first)[N_TILES], FragmentC (&second)[N_TILES], const FragmentA (&a)[2],
                                 const FragmentB (&b)[N_TILES]) {
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
        mma_f16(first[n], a[0], b[n].x, b[n].y);
        mma_f16(second[n], a[1], b[n].x, b[n].y);
    }
}

// Adds the products of a tile's 64 latents of `slice`.
template <typename S>
__device__ void accumulate_codes(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                                 const BlockState<S> &block, unsigned slice, FragmentC (&output)[4][S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, g = lane / 4, t = lane % 4;
    const uint4 places = block.code_places[lane];
    const unsigned char *rows = stage.row(STEP / 2 * slice);
    const unsigned char *codes[4] = {rows + places.x, rows + places.y, rows + places.z, rows + places.w};
    const unsigned char *weight = memory.weights(S::HALVES == 1 ? slice / WARPS : 0, 0) + 8 * S::OWN * lane;
    // Groups: two lanes share a word, of which one has the lower bytes of each half-word, the other the upper ones.
    const uint32_t low = S::HALVES == 1 ? 0x5410 : g % 2 == 0 ? 0x4400 : 0x5511;
    const uint32_t high = S::HALVES == 1 ? 0x7632 : low + 0x2222;
    const unsigned char *scales[S::HALVES] = {};
    if constexpr (S::HALVES == 2) {
#pragma unroll
        for (int h = 0; h < S::HALVES; ++h) {
            scales[h] = memory.scales(group_of<S>(params, slice, 2 * h)) + 8 * t;
        }
    }
    // One m-tile of tokens, whose codes begin `offset` bytes behind those of the first.
    const auto accumulate_tile = [&](unsigned offset) {
        FragmentB b[S::N_TILES];
        uint32_t words[4];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (h < S::HALVES) {
                uint2 scale{};
                if constexpr (S::HALVES == 2) {
                    scale = at<uint2>(scales[h], 0);
                    scales[h] += 32;
                }
                load_weights<S>(b, weight);
                if constexpr (S::HALVES == 2) {
#pragma unroll
                    for (FragmentB &x : b) {
                        x = {mul_f16x2(x.x, scale.x), mul_f16x2(x.y, scale.y)};
                    }
                }
#pragma unroll
                for (int x = 0; x < 4; ++x) {
                    words[x] = at<uint32_t>(codes[x], offset + STEP / 4 * h);
                }
            }
            FragmentA a[2];
            if (S::HALVES == 1 && h == 1) {
                code_tiles<2>(a, words, low, high);
            } else {
                code_tiles<0>(a, words, low, high);
            }
            multiply_weights<S::N_TILES>(output[2 * h], output[2 * h + 1], a, b);
        }
        weight += 8 * WARP * S::N_TILES;
    };
    // Where rows have the distance that most layers of the kernel have, it stands in the instructions. (In groups that brings
    // bank conflicts.)
    const unsigned step_bytes = 16 * params.shared.latent_stride;
    if (SPARE_REGISTERS && S::HALVES == 1 && step_bytes == 16 * S::LATENT_STRIDE) {
#pragma unroll
        for (int m_tile = 0; m_tile < S::M_TILES; ++m_tile) {
            accumulate_tile(16 * S::LATENT_STRIDE * m_tile);
        }
        return;
    }
    // Kernels with four tiles of accumulators whose blocks share a multiprocessor have no registers for two m-tiles.
#pragma unroll (S::SLICES > 2 || S::SLICES * S::N_TILES <= 2 || (S::SLICES == 1 && S::HALVES == 2) ? 2 : 1)
    for (int m_tile = 0; m_tile < S::M_TILES; ++m_tile) {
        accumulate_tile(0);
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            codes[x] += step_bytes;
        }
    }
}

// Adds the products of m-tile J of bf16 rows with weights.
template <typename S, int J>
__device__ void accumulate_rows(FragmentC (&output)[S::N_TILES], uint32_t row,
                                const FragmentB (&b)[S::PLANES][S::N_TILES]) {
    FragmentA a;
    ldmatrix_x4_transposed<32 * J>(a, row);
#pragma unroll
    for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            mma_bf16(output[n], a, b[plane][n].x, b[plane][n].y);
        }
    }
}

template <typename S>
__device__ void accumulate_bf16(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                                const BlockState<S> &block, unsigned slice, FragmentC (&output)[4][S::N_TILES]) {
    const unsigned lane = thread_index() % WARP;
    uint32_t row = stage.address() + block.code_places[lane] + 2 * STEP * slice;
    const unsigned char *weight = memory.weights(0, 0) + 8 * S::OWN * lane;
#pragma unroll 1
    for (int m_tile = 0; m_tile < S::M_TILES; ++m_tile) {
        FragmentB b[S::PLANES][S::N_TILES];
#pragma unroll
        for (int plane = 0; plane < S::PLANES; ++plane) {
            load_weights<S>(b[plane], weight + plane * memory.PLANE_STRIDE);
        }
        accumulate_rows<S, 0>(output[0], row, b);
        accumulate_rows<S, 1>(output[1], row, b);
        accumulate_rows<S, 2>(output[2], row, b);
        accumulate_rows<S, 3>(output[3], row, b);
        row += 16 * params.shared.latent_stride;
        weight += 8 * WARP * S::N_TILES;
    }
}

// Groups: the warps that keep sums of weights times mins, each 16 groups of an n-tile.
template <typename S>
__device__ unsigned output_min_warps(const DecodeParams &params) {
    return group_blocks(params) * S::N_TILES;
}

// Groups: adds what a tile's mins give.
template <typename S>
__device__ void accumulate_mins(const DecodeParams &params, const SharedMemory<S> &memory) {
    const unsigned thread = thread_index(), warp = thread / WARP, lane = thread % WARP, g = lane / 4, t = lane % 4;
    if (warp >= output_min_warps<S>(params)) {
        return;
    }
    const unsigned group = warp / S::N_TILES * GROUP_BLOCK + g, groups = params.cache.latent_groups;
    const unsigned char *low = memory.mins(group) + 8 * t;
    const unsigned char *high = low + GROUP_BLOCK / 2 * params.shared.scale_stride;
    const unsigned n_tile = warp % S::N_TILES;
    const unsigned char *weight = memory.weights(0, n_tile / S::OWN * S::OWN) + 8 * S::OWN * lane;
    FragmentC sums = {};
#pragma unroll 1
    for (int m_tile = 0; m_tile < S::M_TILES; ++m_tile) {
        const uint2 zero{}, x = group < groups ? at<uint2>(low, 0) : zero;
        const uint2 y = group + GROUP_BLOCK / 2 < groups ? at<uint2>(high, 0) : zero;
        FragmentB b;
        if constexpr (S::OWN == 2) {
            const uint4 pair = at<uint4>(weight, 0);
            b = n_tile % 2 == 0 ? uint2{pair.x, pair.y} : uint2{pair.z, pair.w};
        } else {
            b = at<FragmentB>(weight, 0);
        }
        const FragmentA a = {x.x, y.x, x.y, y.y};
        mma_f16(sums, a, b.x, b.y);
        low += 32;
        high += 32;
        weight += 8 * WARP * S::N_TILES;
    }
    float4 &kept = memory.output_mins(0, 0, thread);
    kept = {kept.x + sums[0], kept.y + sums[1], kept.z + sums[2], kept.w + sums[3]};
}

// output += latents * weights. Groups: what there was is brought to the units that this tile may have raised.
template <typename S>
__device__ void accumulate(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, Output<S> &output) {
    if constexpr (S::LATENTS == Latents::Groups) {
        accumulate_mins<S>(params, memory);
    }
    const unsigned warp = thread_index() / WARP;
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const unsigned slice = warp + WARPS * i;
        if (slice >= params.latent_steps) {
            break;
        }
        if constexpr (S::LATENTS == Latents::Groups) {
            const float units[2] = {block.renormalise[group_of<S>(params, slice, 0)],
                                    block.renormalise[group_of<S>(params, slice, 2)]};
            if (__any_sync(ALL_LANES, units[0] != 1.0f || units[1] != 1.0f)) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    scale_tile<S::N_TILES>(output[i][j], units[j / 2]);
                }
            }
        }
        if constexpr (S::CODED) {
            accumulate_codes<S>(params, stage, memory, block, slice, output[i]);
        } else {
            accumulate_bf16<S>(params, stage, memory, block, slice, output[i]);
        }
    }
}
