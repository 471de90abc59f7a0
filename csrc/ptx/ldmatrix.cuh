// `ldmatrix`: 8 x 8 matrices of 16-bit elements from shared memory into the fragments that `mma.sync` takes (PTX ISA,
// "Warp-level Matrix Instructions: ldmatrix").
//
// Lanes 8 i .. 8 i + 7 give the 16-byte aligned addresses of the rows of matrix i, which arrives in register i: lane
// 4 g + t gets elements 2t and 2t + 1 of row g; transposed, rows 2t and 2t + 1 of column g.
#pragma once

#include <stdint.h>

// Four matrices at addresses in shared memory, as `shared_address` gives them. OFFSET bytes are added to each in the
// instruction itself.
template <int OFFSET = 0>
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4+%5];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row), "n"(OFFSET)
                 : "memory");
}

// The transposes of four matrices; addresses as in `ldmatrix_x4`.
template <int OFFSET = 0>
__device__ inline void ldmatrix_x4_transposed(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4+%5];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row), "n"(OFFSET)
                 : "memory");
}
