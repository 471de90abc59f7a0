// Units of scales; and of Groups the scales and mins of a tile's latents as the output's products need them, an f16 row per
// group, in the order of place_in_row.
//
// The output's products take codes as they are, so that a weight is multiplied by its token's scale (output.cuh), both
// f16. For that a group's scales are divided by its unit, the largest power of two not above the largest scale so far:
// what is far below that loses bits, but is as small beside what it is added to. Where a scale is 0 all codes are.
#pragma once

#include "../../cache/int4.cuh"
#include "../../cache/layout.cuh"
#include "../../ptx/convert.cuh"
#include "shared.cuh"

// The unit of scales up to `largest`, an f16: the largest power of two not above it, if that is above the one before.
__device__ inline float raised_unit(float before, uint32_t largest) {
    return fmaxf(before, __uint_as_float(__float_as_uint(affine_scale(largest)) & 0x7F800000));
}

// The rows and units of a tile with `count` tokens. A warp takes four groups at a time, so that it reads four neighbouring
// pairs of 8 tokens from all banks.
template <typename S>
__device__ void prepare_scales(const DecodeParams &params, const Stage &stage, unsigned count,
                               const SharedMemory<S> &memory, BlockState<S> &block) {
    constexpr unsigned GROUP_LANES = 4, TOKEN_LANES = WARP / GROUP_LANES;
    constexpr unsigned ROUNDS = S::TOKENS / TOKEN_LANES;
    const unsigned thread = thread_index(), lane = thread % WARP, groups = params.cache.latent_groups;
    const Rows pairs = stage.affine();
    for (unsigned first = thread / WARP * GROUP_LANES; first < groups; first += WARPS * GROUP_LANES) {
        const unsigned group = first + lane % GROUP_LANES;
        const bool exists = group < groups;
        uint32_t affine[ROUNDS], largest = 0;
#pragma unroll
        for (unsigned i = 0; i < ROUNDS; ++i) {
            const unsigned token = lane / GROUP_LANES + TOKEN_LANES * i;
            affine[i] = 0;
            if (token < count && exists) {
                affine[i] = at<uint32_t>(pairs.first, token * pairs.stride + 4 * group);
            }
            // Scales are not negative: their bits have their order.
            largest = max(largest, affine[i] & 0xFFFF);
        }
#pragma unroll
        for (unsigned distance = GROUP_LANES; distance < WARP; distance *= 2) {
            largest = max(largest, __shfl_xor_sync(ALL_LANES, largest, distance));
        }
        const float before = exists ? block.units[group] : 1.0f;
        const float unit = raised_unit(before, largest);
        const float inverse = 1.0f / unit;
        unsigned char *scales = memory.scales(group);
        const unsigned to_mins = groups * params.shared.scale_stride;
#pragma unroll
        for (unsigned i = 0; i < ROUNDS; ++i) {
            const unsigned token = lane / GROUP_LANES + TOKEN_LANES * i;
            if (token < S::TOKENS && exists) {
                unsigned char *place = scales + 2 * place_in_row(token_at(token));
                *reinterpret_cast<uint16_t *>(place) = f16x2_from_f32(affine_scale(affine[i]) * inverse, 0.0f);
                *reinterpret_cast<uint16_t *>(place + to_mins) = affine[i] >> 16;
            }
        }
        // All lanes have read the unit before: the values that they exchanged do not depend on it.
        __syncwarp();
        if (lane < GROUP_LANES && exists) {
            block.units[group] = unit;
            block.renormalise[group] = before * inverse;
        }
    }
}
