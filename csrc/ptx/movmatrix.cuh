// `movmatrix`: transposes an 8 x 8 matrix of 16-bit elements within a warp's registers (PTX ISA, "Warp-level Matrix
// Instructions: movmatrix").
#pragma once

#include <stdint.h>

// Lane 4 g + t gives elements 2t and 2t + 1 of row g, and gets elements 2t and 2t + 1 of column g.
__device__ inline uint32_t transposed_matrix(uint32_t pair) {
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}
