// The cache's int4: words of 8 codes, `src/cache/codec.rs` on the device. Of a word, the bits 0x000F000F << 4 j are the
// codes of values 2 j and 2 j + 1, for j = 0..=3.
#pragma once

#include <stdint.h>

#include "../ptx/convert.cuh"
#include "../ptx/half.cuh"
#include "../ptx/lop3.cuh"

// Codes as f16 without any arithmetic: the bits of a code are those of a subnormal number, code * 2^-24, and in place,
// four bits further up, code * 2^-20. Tensor cores multiply subnormals exactly, and powers of two can be put right
// elsewhere.
constexpr float SUBNORMAL = 16777216.0f;
constexpr float ODD_PAIR = 0.0625f;

// Pair j, times 2^-24 if j is even and 2^-20 if it is odd.
template <int J>
__device__ inline uint32_t subnormal_pair(uint32_t word) {
    return (J >= 2 ? word >> 8 : word) & (J % 2 == 0 ? 0x000F000F : 0x00F000F0);
}

// Bytes 2 j and 2 j + 1, times 2^-24.
template <int J>
__device__ inline uint32_t subnormal_bytes(uint32_t bytes) { return __byte_perm(bytes, 0, J == 0 ? 0x4140 : 0x4342); }

// Both halves of x.
__device__ inline uint32_t twice_low(uint32_t x) { return __byte_perm(x, x, 0x1010); }
__device__ inline uint32_t twice_high(uint32_t x) { return __byte_perm(x, x, 0x3232); }

// scale * n + min in f16 for two integers n, exact ones: one rounding. The affine codec rounds scale up, so that 15
// steps above min can be up to 65536: beyond f16's largest number, which then stands for it, 2^-11 away.
__device__ inline uint32_t affine_pair(uint32_t integers, uint32_t scales, uint32_t mins) {
    return min_f16x2(fma_f16x2(integers, scales, mins), 0x7BFF7BFF);
}

// The 8 values of a word, in order, as f16. `affine` is the group's (scale, min).
__device__ inline uint4 dequantize_word(uint32_t word, uint32_t affine) {
    const uint32_t scales = twice_low(affine), mins = twice_high(affine), high = word >> 8;
    // 0x6400 is 1024, whose last bit counts 1: with a code in its place 1024 + code, four bits further up 1024 + 16
    // code.
    constexpr uint32_t BIASED = 0x64006400, SIXTEENTH = 0x2C002C00, MINUS_64 = 0xD400D400;
    const uint32_t c0 = sub_f16x2(mask_and_set<0x000F000F, BIASED>(word), BIASED);
    const uint32_t c1 = fma_f16x2(mask_and_set<0x00F000F0, BIASED>(word), SIXTEENTH, MINUS_64);
    const uint32_t c2 = sub_f16x2(mask_and_set<0x000F000F, BIASED>(high), BIASED);
    const uint32_t c3 = fma_f16x2(mask_and_set<0x00F000F0, BIASED>(high), SIXTEENTH, MINUS_64);
    return {affine_pair(c0, scales, mins), affine_pair(c1, scales, mins), affine_pair(c2, scales, mins),
            affine_pair(c3, scales, mins)};
}

__device__ inline float affine_scale(uint32_t affine) { return f32_from_f16(static_cast<uint16_t>(affine)); }
__device__ inline float affine_min(uint32_t affine) { return f32_from_f16(static_cast<uint16_t>(affine >> 16)); }
