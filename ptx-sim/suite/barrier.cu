// Barriers of blocks and warps, fences (PTX ISA 9.7.13.1-2, 9.7.13.4).
// nvcc -ptx -arch=compute_80 -o ptx/barrier.ptx barrier.cu
#include "suite.h"

// The neighbour's word after a barrier.
#define EXCHANGE(name, text)                                          \
    KERNEL(name) {                                                    \
        __shared__ u64 cell[128];                                     \
        ROWS(1, 1);                                                   \
        cell[threadIdx.x] = in[0];                                    \
        asm volatile(text ::: "memory");                              \
        out[0] = cell[(threadIdx.x + 33) % 128];                      \
    }
EXCHANGE(bar_sync, "bar.sync 0;") EXCHANGE(bar_cta_sync, "bar.cta.sync 1, 128;") EXCHANGE(barrier_sync, "barrier.sync 2;")
EXCHANGE(barrier_cta_sync_aligned, "barrier.cta.sync.aligned 3, 128;")
KERNEL(bar_warp_sync) {
    __shared__ u64 cell[128];
    ROWS(1, 1);
    cell[threadIdx.x] = in[0];
    asm volatile("bar.warp.sync -1;" ::: "memory");
    out[0] = cell[threadIdx.x ^ 17];
}
#define RED(name, text)                                                                                            \
    KERNEL(name) {                                                                                                 \
        ROWS(1, 1);                                                                                                \
        u32 d;                                                                                                     \
        asm volatile("{.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\n" text "}" : "=r"(d) : "r"((u32)(in[0] & 1)) : "memory"); \
        out[0] = d;                                                                                                \
    }
RED(bar_red_popc_u32, "bar.red.popc.u32 %0, 0, p;") RED(bar_red_and_pred, "bar.red.and.pred q, 0, p;\nselp.u32 %0, 1, 0, q;")
RED(bar_red_or_pred, "bar.red.or.pred q, 0, 128, p;\nselp.u32 %0, 1, 0, q;")
RED(barrier_red_popc_u32, "barrier.red.popc.u32 %0, 1, !p;")
// The first 64 threads produce and arrive, the others wait and consume.
KERNEL(bar_arrive) {
    __shared__ u64 cell[64];
    ROWS(1, 1);
    if (threadIdx.x < 64) {
        cell[threadIdx.x] = in[0];
        asm volatile("bar.arrive 5, 128;" ::: "memory");
        out[0] = 0;
    } else {
        asm volatile("bar.sync 5, 128;" ::: "memory");
        out[0] = cell[threadIdx.x - 64];
    }
}
KERNEL(fences) {
    ROWS(1, 1);
    out[0] = in[0];
    asm volatile("membar.cta;\nmembar.gl;\nmembar.sys;\nfence.sc.gpu;\nfence.acq_rel.cta;\nfence.acq_rel.sys;" ::: "memory");
    out[0] += 1;
}
