// Arithmetic on pairs of f16 (PTX ISA, "Half Precision Floating Point Instructions").
#pragma once

#include <stdint.h>

// a - b, rounded to nearest even.
__device__ inline uint32_t sub_f16x2(uint32_t a, uint32_t b) {
    uint32_t x;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
    return x;
}

// a * b + c, rounded once.
__device__ inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t x;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(a), "r"(b), "r"(c));
    return x;
}

// The smaller of each pair.
__device__ inline uint32_t min_f16x2(uint32_t a, uint32_t b) {
    uint32_t x;
    asm("min.f16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
    return x;
}
