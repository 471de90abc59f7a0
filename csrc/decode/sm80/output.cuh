// The output, from what the cache holds: O^T += C^T P^T, latents on m, heads on n, tokens in k.
//
// A fragments of int4 come straight from the codes, as in scores.cuh: 6/8 instructions per value. Scales and mins never
// touch a value:
//     O = sum_t (P_t scale_t) code_t + sum_t P_t min_t
// B fragments are weights times the scales of a group, multiplied in registers: one for a slice of 64 latents (Whole),
// or one for each 32 of them (Groups). The mins are products of their own, 16 groups on m. Bf16: A fragments are
// the cache's rows.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/half.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "fragments.cuh"
#include "shared.cuh"

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

// Adds the products of a tile's 64 latents of `slice`. `weight` is where a lane's weights of its first head begin, and
// `stride` the bytes from head to head.
template <typename S>
__device__ void accumulate_codes(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                                 unsigned slice, const unsigned char *weight, unsigned stride,
                                 FragmentC (&output)[4][S::N_TILES]) {
    const unsigned lane = thread_index() % WARP, g = lane / 4, t = lane % 4, mask = params.tile_tokens - 1;
    // Words of positions 4 t .. 4 t + 3, of every 16.
    const unsigned char *codes[4];
#pragma unroll
    for (unsigned x = 0; x < 4; ++x) {
        const unsigned token = token_at(4 * t + x) & mask, word = S::HALVES == 1 ? g : g / 2;
        codes[x] = stage.codes(token, slice, word);
    }
    // Groups: two lanes share a word, of which one has the lower bytes of each half-word, the other the upper ones.
    const uint32_t low = S::HALVES == 1 ? 0x5410 : g % 2 == 0 ? 0x4400 : 0x5511;
    const uint32_t high = S::HALVES == 1 ? 0x7632 : low + 0x2222;
    const unsigned char *scales[S::HALVES];
#pragma unroll
    for (int h = 0; h < S::HALVES; ++h) {
        scales[h] = memory.scales(group_of<S>(params, slice, 2 * h)) + 8 * t;
    }
    const unsigned step_bytes = 16 * params.shared.latent_stride;
#pragma unroll 1
    for (unsigned step = params.m_tiles; step > 0; --step) {
        FragmentB b[S::N_TILES];
        uint32_t words[4];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (h < S::HALVES) {
                const uint2 scale = at<uint2>(scales[h], 0);
#pragma unroll
                for (int n = 0; n < S::N_TILES; ++n) {
                    const uint2 p = at<uint2>(weight, 8 * n * stride);
                    b[n] = {mul_f16x2(p.x, scale.x), mul_f16x2(p.y, scale.y)};
                }
                scales[h] += 32;
#pragma unroll
                for (int x = 0; x < 4; ++x) {
                    words[x] = at<uint32_t>(codes[x], STEP / 4 * h);
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
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            codes[x] += step_bytes;
        }
        weight += 32;
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
__device__ void accumulate_bf16(const DecodeParams &params, const Stage &stage, unsigned slice,
                                const unsigned char *weight, unsigned stride,
                                FragmentC (&output)[4][S::N_TILES]) {
    // Row x of a matrix is k = x: position 2 x if x is even, else 2 x - 1; matrices 2 and 3 are k + 8, two positions
    // further.
    const unsigned lane = thread_index() % WARP, position = lane % 8 / 2 * 4 + lane % 2 + lane / 16 * 2;
    const unsigned token = token_at(position) & (params.tile_tokens - 1), plane_bytes = S::HEADS * stride;
    uint32_t row = stage.latent_address(token) + 2 * STEP * slice + lane / 8 % 2 * 16;
#pragma unroll 1
    for (unsigned step = params.m_tiles; step > 0; --step) {
        FragmentB b[S::PLANES][S::N_TILES];
#pragma unroll
        for (int plane = 0; plane < S::PLANES; ++plane) {
#pragma unroll
            for (int n = 0; n < S::N_TILES; ++n) {
                b[plane][n] = at<uint2>(weight, plane * plane_bytes + 8 * n * stride);
            }
        }
        accumulate_rows<S, 0>(output[0], row, b);
        accumulate_rows<S, 1>(output[1], row, b);
        accumulate_rows<S, 2>(output[2], row, b);
        accumulate_rows<S, 3>(output[3], row, b);
        row += 16 * params.shared.latent_stride;
        weight += 32;
    }
}

// Adds what a tile's mins give, rescaled as the output is: output_mins = output_mins * rescale + mins * weights.
template <typename S>
__device__ void accumulate_mins(const DecodeParams &params, const SharedMemory<S> &memory, const BlockState<S> &block) {
    const unsigned thread = thread_index(), lane = thread % WARP, g = lane / 4, t = lane % 4;
    const unsigned group_block = thread / WARP / S::N_TILES, n = thread / WARP % S::N_TILES;
    const unsigned group = GROUP_BLOCK * group_block + g, groups = params.cache.latent_groups;
    if (GROUP_BLOCK * group_block >= groups) {
        return;
    }
    const unsigned char *low = memory.mins(group) + 8 * t;
    const unsigned char *high = low + GROUP_BLOCK / 2 * params.shared.weight_stride;
    const unsigned char *weight = memory.weights(8 * n + g) + 8 * t;
    FragmentC sums = {};
#pragma unroll 1
    for (unsigned step = params.m_tiles; step > 0; --step) {
        const uint2 zero{}, x = group < groups ? at<uint2>(low, 0) : zero;
        const uint2 y = group + GROUP_BLOCK / 2 < groups ? at<uint2>(high, 0) : zero, b = at<FragmentB>(weight, 0);
        const FragmentA a = {x.x, y.x, x.y, y.y};
        mma_f16(sums, a, b.x, b.y);
        low += 32;
        high += 32;
        weight += 32;
    }
    float4 &kept = memory.output_mins(group_block, n, lane);
    const float2 rescale = *reinterpret_cast<const float2 *>(&block.rescale[8 * n + 2 * t]);
    kept = {fmaf(kept.x, rescale.x, sums[0]), fmaf(kept.y, rescale.y, sums[1]), fmaf(kept.z, rescale.x, sums[2]),
            fmaf(kept.w, rescale.y, sums[3])};
}

// output = output * rescale + latents * weights.
template <typename S>
__device__ void accumulate(const DecodeParams &params, const Stage &stage, const SharedMemory<S> &memory,
                           const BlockState<S> &block, Output<S> &output) {
    if constexpr (S::CODED) {
        accumulate_mins<S>(params, memory, block);
    }
    const unsigned thread = thread_index(), warp = thread / WARP, g = thread % WARP / 4, t = thread % 4;
    const unsigned stride = opaque(params.shared.weight_stride);
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const unsigned slice = warp + WARPS * i;
        if (slice >= params.latent_steps) {
            break;
        }
        float2 rescale[S::N_TILES];
        float units[2] = {1.0f, 1.0f};
        if constexpr (S::CODED) {
            units[0] = block.renormalise[group_of<S>(params, slice, 0)];
            units[1] = S::HALVES == 1 ? units[0] : block.renormalise[group_of<S>(params, slice, 2)];
        }
        bool changes = units[0] != 1.0f || units[1] != 1.0f;
#pragma unroll
        for (int n = 0; n < S::N_TILES; ++n) {
            rescale[n] = *reinterpret_cast<const float2 *>(&block.rescale[8 * n + 2 * t]);
            changes |= rescale[n].x != 1.0f || rescale[n].y != 1.0f;
        }
        if (__any_sync(ALL_LANES, changes)) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                rescale_tile<S::N_TILES>(output[i][j], rescale, units[j / 2]);
            }
        }
        const unsigned char *weight = memory.weights(g, stride) + 8 * t;
        if constexpr (S::CODED) {
            accumulate_codes<S>(params, stage, memory, slice, weight, stride, output[i]);
        } else {
            accumulate_bf16<S>(params, stage, slice, weight, stride, output[i]);
        }
    }
}
