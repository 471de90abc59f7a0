// `stmatrix`: 8 x 8 matrices of 16-bit elements from fragments to shared memory, the inverse of `ldmatrix` (PTX ISA,
// "Warp-level Matrix Instructions: stmatrix"). Addresses are as in ldmatrix.cuh.
#pragma once

#include <stdint.h>

// The transposes of two matrices; lanes 0 .. 15 give the addresses.
__device__ inline void stmatrix_x2_transposed(uint32_t row, uint32_t r0, uint32_t r1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(r0), "r"(r1)
                 : "memory");
}

// The transposes of four matrices.
__device__ inline void stmatrix_x4_transposed(uint32_t row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r0), "r"(r1),
                 "r"(r2), "r"(r3)
                 : "memory");
}
