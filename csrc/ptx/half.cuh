// Arithmetic on pairs of f16 (PTX ISA, "Half Precision Floating Point Instructions").
#pragma once

#include <stdint.h>

// The two products a * b, rounded to nearest, ties to even.
__device__ inline uint32_t mul_f16x2(uint32_t a, uint32_t b) {
    uint32_t x;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
    return x;
}

// The two sums a * b + c, rounded once to nearest, ties to even.
__device__ inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t x;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(a), "r"(b), "r"(c));
    return x;
}

// The larger ones of two pairs.
__device__ inline uint32_t max_f16x2(uint32_t a, uint32_t b) {
    uint32_t x;
    asm("max.f16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
    return x;
}
