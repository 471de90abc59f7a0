// Values of a cached row, rounded to bf16: `scale * code + min` as `src/cache/codec.rs` packs them.
#pragma once

#include "../common/chunk.cuh"
#include "../ptx/convert.cuh"
#include "../ptx/lop3.cuh"

// The value of one code, rounded twice: to f32 and to bf16. `affine` is the (scale, min) pair of f16.
__device__ inline uint16_t dequantise(unsigned code, uint32_t affine) {
    return bf16_from_f32(fmaf(f32_from_f16(affine & 0xFFFF), float(code), f32_from_f16(affine >> 16)));
}

// Value `i` of a word of 4-bit codes.
__device__ inline uint16_t dequantise_int4(uint32_t word, unsigned i, uint32_t affine) {
    return dequantise(word >> (4 * (i / 2) + 16 * (i % 2)) & 15, affine);
}

// bf16 numbers of the 8 codes of a word. A code becomes f32 without a conversion or a shift of its own: as bits 19..16
// of 128.0f it makes 128 + code, as bits 15..12 of 2048.0f it makes 2048 + code, so that each of four shifts serves two
// codes. `of_128` and `of_2048` make values of these sums.
template <typename Of128, typename Of2048>
__device__ inline Chunk map_int4(uint32_t word, Of128 of_128, Of2048 of_2048) {
    const auto upper = [&](uint32_t bits) {
        return of_128(__uint_as_float(mask_and_set<0x000F0000, 0x43000000>(bits)));
    };
    const auto lower = [&](uint32_t bits) {
        return of_2048(__uint_as_float(mask_and_set<0x0000F000, 0x45000000>(bits)));
    };
    // Values 0 2, 4 6, 1 3 and 5 7: neighbours in the word.
    const uint32_t even = word << 12, even_high = word << 4, odd = word >> 4, odd_high = word >> 12;
    return {bf16x2_from_f32(lower(even), lower(odd)), bf16x2_from_f32(upper(even), upper(odd)),
            bf16x2_from_f32(lower(even_high), lower(odd_high)), bf16x2_from_f32(upper(even_high), upper(odd_high))};
}

// The 8 values of a word of 4-bit codes, at 3 instructions each. min - 128 scale and min - 2048 scale round once, by at
// most 2^-13 of a step where values are near zero, and 2^-24 of min elsewhere. The value's own rounding to bf16 is the
// other error, half a step of 8 significant bits, at most 2^-8 of it.
__device__ inline Chunk dequantise_int4(uint32_t word, uint32_t affine) {
    const float scale = f32_from_f16(affine & 0xFFFF), min = f32_from_f16(affine >> 16);
    const float from_128 = fmaf(-128.0f, scale, min), from_2048 = fmaf(-2048.0f, scale, min);
    return map_int4(
        word, [&](float code) { return fmaf(scale, code, from_128); },
        [&](float code) { return fmaf(scale, code, from_2048); });
}

// The same at 4 instructions each, the bits that `dequantise` makes of each code: taking 128 or 2048 away is exact.
__device__ inline Chunk dequantise_int4_exactly(uint32_t word, uint32_t affine) {
    const float scale = f32_from_f16(affine & 0xFFFF), min = f32_from_f16(affine >> 16);
    return map_int4(
        word, [&](float code) { return fmaf(scale, code - 128.0f, min); },
        [&](float code) { return fmaf(scale, code - 2048.0f, min); });
}
