// stmatrix (PTX ISA 9.7.14.5.16).
// nvcc -ptx -arch=compute_90a -o ptx/matrix_90.ptx matrix_90.cu
#include "suite.h"

// Each lane reads back the row whose address it passed.
#define STORE(name, text)                                                                                          \
    KERNEL(name) {                                                                                                 \
        __shared__ __align__(16) u32 rows[128 * 4];                                                                \
        ROWS(4, 4);                                                                                                \
        u32 at = (u32)__cvta_generic_to_shared(rows + 4 * threadIdx.x);                                            \
        asm volatile("stmatrix.sync.aligned.m8n8.x4" text ".b16 [%0], {%1, %2, %3, %4};" ::"r"(at), ARG(r, 0),     \
                     ARG(r, 1), ARG(r, 2), ARG(r, 3) : "memory");                                                  \
        __syncwarp();                                                                                              \
        for (int k = 0; k < 4; k++) out[k] = rows[4 * threadIdx.x + k];                                            \
    }
STORE(stmatrix_x4, ".shared") STORE(stmatrix_x4_trans, ".trans.shared")
