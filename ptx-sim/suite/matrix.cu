// ldmatrix and movmatrix (PTX ISA 9.7.14.5.15-17).
// nvcc -ptx -arch=compute_80 -o ptx/matrix.ptx matrix.cu
#include "suite.h"

// Every lane stores a row of four words and passes its address.
#define STAGE                                                                                   \
    __shared__ __align__(16) u32 rows[128 * 4];                                                 \
    ROWS(4, 4);                                                                                 \
    for (int k = 0; k < 4; k++) rows[4 * threadIdx.x + k] = (u32)in[k];                         \
    __syncwarp();                                                                               \
    u32 at = (u32)__cvta_generic_to_shared(rows + 4 * threadIdx.x), d[4] = {0, 0, 0, 0}
#define DONE for (int k = 0; k < 4; k++) out[k] = d[k]
#define LOAD(suffix, text)                                                                                           \
    KERNEL(ldmatrix_x1##suffix) {                                                                                    \
        STAGE;                                                                                                       \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" text ".b16 {%0}, [%1];" : "=r"(d[0]) : "r"(at) : "memory");     \
        DONE;                                                                                                        \
    }                                                                                                                \
    KERNEL(ldmatrix_x2##suffix) {                                                                                    \
        STAGE;                                                                                                       \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" text ".b16 {%0, %1}, [%2];"                                     \
                     : "=r"(d[0]), "=r"(d[1]) : "r"(at) : "memory");                                                 \
        DONE;                                                                                                        \
    }                                                                                                                \
    KERNEL(ldmatrix_x4##suffix) {                                                                                    \
        STAGE;                                                                                                       \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" text ".b16 {%0, %1, %2, %3}, [%4];"                             \
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(at) : "memory");                         \
        DONE;                                                                                                        \
    }
LOAD(, ".shared") LOAD(_trans, ".trans.shared")
KERNEL(movmatrix) {
    ROWS(1, 1);
    u32 d;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : ARG(r, 0));
    out[0] = d;
}
