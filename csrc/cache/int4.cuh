// The cache's int4: words of 8 codes, `src/cache/codec.rs` on the device. Of a word, the bits 0x000F000F << 4 j are the
// codes of values 2 j and 2 j + 1, for j = 0..=3.
#pragma once

#include <stdint.h>

#include "../ptx/half.cuh"
#include "../ptx/lop3.cuh"

// How many bits the code of value `i` is shifted in its word (`cache::NIBBLE_ORDER`): even values are in the lower half
// of the word, odd ones in the upper.
__device__ constexpr unsigned nibble_shift(unsigned i) { return 4 * (i / 2) + 16 * (i % 2); }

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

// Pair j as f16: a code is put into the bits of 1024, or 16 times it, which are subtracted again, both exactly.
template <int J>
__device__ inline uint32_t f16_pair(uint32_t word) {
    constexpr uint32_t ONE = 0x3C003C00, MINUS_1024 = 0xE400E400, SIXTEENTH = 0x2C002C00, MINUS_64 = 0xD400D400;
    const uint32_t bits = J >= 2 ? word >> 8 : word;
    return J % 2 == 0 ? fma_f16x2(mask_and_set<0x000F000F, 0x64006400>(bits), ONE, MINUS_1024)
                      : fma_f16x2(mask_and_set<0x00F000F0, 0x64006400>(bits), SIXTEENTH, MINUS_64);
}

// Bytes 2 j and 2 j + 1, times 2^-24.
template <int J>
__device__ inline uint32_t subnormal_bytes(uint32_t bytes) { return __byte_perm(bytes, 0, J == 0 ? 0x4140 : 0x4342); }
