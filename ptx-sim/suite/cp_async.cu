// cp.async and its groups (PTX ISA 9.7.9.25.3).
// nvcc -ptx -arch=compute_80 -o ptx/cp_async.ptx cp_async.cu
#include "suite.h"

// A row's 16 bytes go to shared memory that held ones.
#define COPY(name, text, wait)                                                                             \
    KERNEL(name) {                                                                                         \
        __shared__ __align__(16) u64 cell[2 * 128];                                                        \
        ROWS(2, 2);                                                                                        \
        u64 *mine = cell + 2 * threadIdx.x;                                                                \
        mine[0] = mine[1] = ~0ull;                                                                         \
        u32 to = (u32)__cvta_generic_to_shared(mine);                                                      \
        asm volatile(text "\n" wait ::"r"(to), "l"(in), "r"((u32)(in[0] % 17)), "r"((u32)(in[1] & 1)) : "memory"); \
        out[0] = mine[0], out[1] = mine[1];                                                                \
    }
#define GROUP "cp.async.commit_group;\ncp.async.wait_group 0;"
COPY(cp_async_ca_4, "cp.async.ca.shared.global [%0], [%1], 4;", GROUP) COPY(cp_async_ca_8, "cp.async.ca.shared.global [%0], [%1], 8;", GROUP)
COPY(cp_async_ca_16, "cp.async.ca.shared.global [%0], [%1], 16;", "cp.async.wait_all;")
COPY(cp_async_cg_16, "cp.async.cg.shared.global [%0], [%1], 16;", GROUP)
COPY(cp_async_cg_L2, "cp.async.cg.shared.global.L2::256B [%0], [%1], 16;", GROUP)
COPY(cp_async_zfill, "cp.async.ca.shared.global [%0], [%1], 16, %2;", GROUP)
COPY(cp_async_ignore, "{.reg .pred p;\nsetp.ne.u32 p, %3, 0;\ncp.async.cg.shared.global [%0], [%1], 16, p;}", GROUP)
// Three groups, waited for one after the other.
KERNEL(cp_async_groups) {
    __shared__ __align__(16) u64 cell[3 * 128];
    ROWS(3, 3);
    u32 to = (u32)__cvta_generic_to_shared(cell + 3 * threadIdx.x);
    for (int k = 0; k < 3; k++)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;\ncp.async.commit_group;" ::"r"(to + 8 * k), "l"(in + k) : "memory");
    asm volatile("cp.async.wait_group 2;" ::: "memory");
    out[0] = cell[3 * threadIdx.x];
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    out[1] = cell[3 * threadIdx.x + 1];
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    out[2] = cell[3 * threadIdx.x + 2];
}
