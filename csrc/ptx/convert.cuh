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
