// `mma.sync`: products of small matrices on the tensor cores (PTX ISA, "Warp-level Matrix Instructions: mma").
//
// Fragments of m16n8k16, lane = 4 g + t (g in 0..8, t in 0..4); a register holds two elements, the lower index low:
//     A [16 x 16]  a0: row g, k 2t 2t+1      a1: row g + 8, same k    a2: row g, k 2t+8 2t+9    a3: row g + 8, same k
//     B [16 x 8]   b0: k 2t 2t+1, column g   b1: k 2t+8 2t+9, column g
//     D [16 x 8]   d0 d1: row g, columns 2t 2t+1                      d2 d3: row g + 8, same columns
#pragma once

#include <stdint.h>

// D += A B of bf16 with f32 sums.
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// D += A B of f16 with f32 sums. Subnormal numbers are not flushed to zero.
__device__ inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// D += A B for k = 8, of which a lane has a0, a1 and b0 of the above.
__device__ inline void mma_f16_k8(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
}
