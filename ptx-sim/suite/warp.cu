// shfl, vote, match, redux, activemask and special registers (PTX ISA 9.7.9.5-6, 9.7.13, 10).
// nvcc -ptx -arch=compute_80 -o ptx/warp.ptx warp.cu
#include "suite.h"

// Value, and whether the source lane was in range.
#define SHFL(mode)                                                                                        \
    KERNEL(shfl_sync_##mode##_b32) {                                                                      \
        ROWS(3, 2);                                                                                       \
        u32 d, p;                                                                                         \
        asm volatile("{.reg .pred p;\nshfl.sync." #mode ".b32 %0|p, %2, %3, %4, -1;\nselp.u32 %1, 1, 0, p;}" \
                     : "=r"(d), "=r"(p) : ARG(r, 0), ARG(r, 1), ARG(r, 2));                               \
        out[0] = d, out[1] = p;                                                                           \
    }
SHFL(up) SHFL(down) SHFL(bfly) SHFL(idx)
#define VOTE(mode)                                                                                              \
    KERNEL(vote_sync_##mode##_pred) {                                                                           \
        ROWS(1, 1);                                                                                             \
        u32 d;                                                                                                  \
        asm volatile("{.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nvote.sync." #mode ".pred q, p, -1;\nselp.u32 %0, 1, 0, q;}" \
                     : "=r"(d) : "r"((u32)(in[0] & 1)));                                                        \
        out[0] = d;                                                                                             \
    }
VOTE(all) VOTE(any) VOTE(uni)
KERNEL(vote_sync_ballot_b32) {
    ROWS(1, 1);
    u32 d;
    asm volatile("{.reg .pred p;\nsetp.ne.u32 p, %1, 0;\nvote.sync.ballot.b32 %0, !p, -1;}" : "=r"(d) : "r"((u32)(in[0] & 1)));
    out[0] = d;
}
#define MATCH_ANY(T, W)                                                                              \
    KERNEL(match_any_sync_##T) {                                                                     \
        ROWS(1, 1);                                                                                  \
        u32 d;                                                                                       \
        asm volatile("match.any.sync." #T " %0, %1, -1;" : "=r"(d) : ARG(W, 0));                     \
        out[0] = d;                                                                                  \
    }
MATCH_ANY(b32, r) MATCH_ANY(b64, l)
KERNEL(match_all_sync_b32) {
    ROWS(1, 2);
    u32 d, p;
    asm volatile("{.reg .pred p;\nmatch.all.sync.b32 %0|p, %2, -1;\nselp.u32 %1, 1, 0, p;}" : "=r"(d), "=r"(p) : ARG(r, 0));
    out[0] = d, out[1] = p;
}
#define REDUX(op, T)                                                                                 \
    KERNEL(redux_sync_##op##_##T) {                                                                  \
        ROWS(1, 1);                                                                                  \
        u32 d;                                                                                       \
        asm volatile("redux.sync." #op "." #T " %0, %1, -1;" : "=r"(d) : ARG(r, 0));                 \
        out[0] = d;                                                                                  \
    }
REDUX(add, u32) REDUX(add, s32) REDUX(min, u32) REDUX(min, s32) REDUX(max, u32) REDUX(max, s32) REDUX(and, b32) REDUX(or, b32)
REDUX(xor, b32)
// Some lanes only: those whose operand is odd sum among themselves.
KERNEL(redux_partial) {
    ROWS(1, 2);
    u32 d = 0, active = 0, mask = __ballot_sync(~0u, in[0] & 1);
    if (in[0] & 1) {
        asm volatile("activemask.b32 %0;" : "=r"(active));
        asm volatile("redux.sync.add.u32 %0, %1, %2;" : "=r"(d) : ARG(r, 0), "r"(mask));
    }
    out[0] = d, out[1] = active;
}
KERNEL(special_registers) {
    ROWS(1, 10);
    out[0] = threadIdx.x, out[1] = blockIdx.x, out[2] = blockDim.x, out[3] = gridDim.x;
    u32 d;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(d));
    out[4] = d;
    asm volatile("mov.u32 %0, %%lanemask_eq;" : "=r"(d));
    out[5] = d;
    asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(d));
    out[6] = d;
    asm volatile("mov.u32 %0, %%lanemask_ge;" : "=r"(d));
    out[7] = d;
    asm volatile("mov.u32 %0, %%nctaid.y;" : "=r"(d));
    out[8] = d;
    u64 before = clock64();
    out[9] = clock64() >= before;
}
