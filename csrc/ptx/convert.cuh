// `cvt`: conversions between number formats (PTX ISA, "Data Movement and Conversion Instructions: cvt").
#pragma once

#include <stdint.h>

// Rounds to bf16, ties to even.
__device__ inline uint16_t bf16_from_f32(float x) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Rounds two numbers to bf16, ties to even: `low` into bits 15..0, `high` into bits 31..16.
__device__ inline uint32_t bf16x2_from_f32(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

// The two numbers of a pair of bf16: a bf16 is the upper half of the same number in f32.
__device__ inline float f32_from_bf16_low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float f32_from_bf16_high(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000); }

// Rounds to f16, towards minus infinity.
__device__ inline uint16_t f16_from_f32_down(float x) {
    uint16_t bits;
    asm("cvt.rm.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Rounds to f16, towards plus infinity.
__device__ inline uint16_t f16_from_f32_up(float x) {
    uint16_t bits;
    asm("cvt.rp.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Rounds to f16, ties to even.
__device__ inline uint16_t f16_from_f32(float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Widens an f16, which is exact.
__device__ inline float f32_from_f16(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// Rounds two numbers to f16, ties to even: `low` into bits 15..0, `high` into bits 31..16.
__device__ inline uint32_t f16x2_from_f32(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

// The two numbers of a pair of f16, exactly.
__device__ inline float2 f32x2_from_f16x2(uint32_t pair) {
    float2 x;
    asm("{.reg .b16 low, high;\n mov.b32 {low, high}, %2;\n cvt.f32.f16 %0, low;\n cvt.f32.f16 %1, high;}"
        : "=f"(x.x), "=f"(x.y)
        : "r"(pair));
    return x;
}
