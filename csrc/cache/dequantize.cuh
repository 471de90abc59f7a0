// A token's latent or rotated key as the cache decodes it, in bf16: `Affine::value` of `src/cache/codec.rs`, which is
// `scale * code + min`, rounded to f32 and then to bf16, each time to nearest even. What the cache holds in bf16 is not
// changed.
#pragma once

#include "../common/chunk.cuh"
#include "../ptx/convert.cuh"
#include "../ptx/lop3.cuh"
#include "int4.cuh"
#include "layout.cuh"

// The value of one code.
__device__ inline uint16_t dequantize(unsigned code, uint32_t affine) {
    return bf16_from_f32(fmaf(affine_scale(affine), float(code), affine_min(affine)));
}

// Value `i` of a word of 4-bit codes.
__device__ inline uint16_t dequantize_int4(uint32_t word, unsigned i, uint32_t affine) {
    return dequantize(word >> nibble_shift(i) & 15, affine);
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
__device__ inline Chunk dequantize_int4(uint32_t word, uint32_t affine) {
    const float scale = affine_scale(affine), min = affine_min(affine);
    const float from_128 = fmaf(-128.0f, scale, min), from_2048 = fmaf(-2048.0f, scale, min);
    return map_int4(
        word, [&](float code) { return fmaf(scale, code, from_128); },
        [&](float code) { return fmaf(scale, code, from_2048); });
}

// The 8 values of a word of 4-bit codes, with the bits that `dequantize` makes of each code, at 4 instructions each:
// subtracting 128 or 2048 is exact.
__device__ inline Chunk dequantize_int4_exactly(uint32_t word, uint32_t affine) {
    const float scale = affine_scale(affine), min = affine_min(affine);
    return map_int4(
        word, [&](float code) { return fmaf(scale, code - 128.0f, min); },
        [&](float code) { return fmaf(scale, code - 2048.0f, min); });
}

// Value `i` of a row.
__device__ inline uint16_t dequantize_value(const CachedRow &row, unsigned i) {
    if (row.kind == ROW_BF16) {
        return __ldg(reinterpret_cast<const uint16_t *>(row.bytes) + i);
    }
    const uint32_t affine = __ldg(row.affine + i / row.group);
    if (row.kind == ROW_INT8) {
        return dequantize(__ldg(row.bytes + i), affine);
    }
    return dequantize_int4(__ldg(reinterpret_cast<const uint32_t *>(row.bytes) + i / CHUNK), i % CHUNK, affine);
}

// Values `i` to `i + 7` of a row, `i` being a multiple of 8; what is past the end of the row is padding.
__device__ inline Chunk dequantize_chunk(const CachedRow &row, unsigned i) {
    if (row.kind == ROW_BF16) {
        return load_chunk(reinterpret_cast<const uint16_t *>(row.bytes) + i);
    }
    // The values of a chunk are in one group.
    const uint32_t affine = __ldg(row.affine + (i >> (__ffs(row.group) - 1)));
    if (row.kind == ROW_INT4) {
        return dequantize_int4_exactly(__ldg(reinterpret_cast<const uint32_t *>(row.bytes) + i / CHUNK), affine);
    }
    const uint2 codes = __ldg(reinterpret_cast<const uint2 *>(row.bytes + i));
    Chunk chunk;
#pragma unroll
    for (unsigned j = 0; j < CHUNK; j += 2) {
        const uint32_t pair = (j < 4 ? codes.x : codes.y) >> (8 * (j % 4));
        chunk.pair[j / 2] = dequantize(pair & 255, affine) | uint32_t(dequantize(pair >> 8 & 255, affine)) << 16;
    }
    return chunk;
}
