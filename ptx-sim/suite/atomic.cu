// atom and red (PTX ISA 9.7.13.5-6): each thread on a cell of its own, and all threads of a block on one.
// nvcc -ptx -arch=compute_80 -o ptx/atomic.ptx atomic.cu
#include "suite.h"

// Result: the old and the new value of a cell that began as the first operand.
#define ATOM(name, text, W)                                                                    \
    KERNEL(name) {                                                                             \
        ROWS(2, 2);                                                                            \
        T_##W old;                                                                             \
        out[1] = (T_##W)in[0];                                                                 \
        asm volatile(text " %0, [%1], %2;" : "=" #W(old) : "l"(out + 1), ARG(W, 1) : "memory"); \
        out[0] = old;                                                                          \
    }
#define RED(name, text, W)                                                                     \
    KERNEL(name) {                                                                             \
        ROWS(2, 1);                                                                            \
        out[0] = (T_##W)in[0];                                                                 \
        asm volatile(text " [%0], %1;" ::"l"(out), ARG(W, 1) : "memory");                      \
    }
#define BOTH(op, T, W) ATOM(atom_global_##op##_##T, "atom.global." #op "." #T, W) RED(red_global_##op##_##T, "red.global." #op "." #T, W)
BOTH(add, u32, r) BOTH(add, s32, r) BOTH(add, u64, l) BOTH(add, f32, r) BOTH(add, f64, l)
BOTH(min, u32, r) BOTH(min, s32, r) BOTH(min, u64, l) BOTH(min, s64, l)
BOTH(max, u32, r) BOTH(max, s32, r) BOTH(max, u64, l) BOTH(max, s64, l)
BOTH(inc, u32, r) BOTH(dec, u32, r) BOTH(and, b32, r) BOTH(or, b32, r) BOTH(xor, b32, r) BOTH(and, b64, l) BOTH(or, b64, l)
BOTH(xor, b64, l)
ATOM(atom_global_exch_b32, "atom.global.exch.b32", r) ATOM(atom_global_exch_b64, "atom.global.exch.b64", l)
ATOM(atom_add_u32, "atom.add.u32", r) ATOM(atom_relaxed_gpu_global_add_u32, "atom.relaxed.gpu.global.add.u32", r)
ATOM(atom_acq_rel_sys_global_max_s32, "atom.acq_rel.sys.global.max.s32", r)
ATOM(atom_global_add_noftz_f16, "atom.global.add.noftz.f16", h) ATOM(atom_global_add_noftz_f16x2, "atom.global.add.noftz.f16x2", r)
RED(red_global_add_noftz_f16x2, "red.global.add.noftz.f16x2", r) RED(red_release_gpu_global_add_u32, "red.release.gpu.global.add.u32", r)

#define CAS(T, W)                                                                                                     \
    KERNEL(atom_global_cas_##T) {                                                                                     \
        ROWS(3, 2);                                                                                                   \
        T_##W old;                                                                                                    \
        out[1] = (T_##W)in[0];                                                                                        \
        asm volatile("atom.global.cas." #T " %0, [%1], %2, %3;" : "=" #W(old) : "l"(out + 1), ARG(W, 1), ARG(W, 2) : "memory"); \
        out[0] = old;                                                                                                 \
    }
CAS(b16, h) CAS(b32, r) CAS(b64, l)

// One cell of shared memory for each operation; every thread of the block gets all totals.
KERNEL(atom_shared) {
    __shared__ u32 sum, least, most, count;
    __shared__ u64 bits;
    ROWS(1, 6);
    if (threadIdx.x == 0) sum = 0, least = ~0u, most = 0, count = 0, bits = 0;
    __syncthreads();
    u32 x = (u32)in[0], ticket;
    u32 at = (u32)__cvta_generic_to_shared(&count);
    asm volatile("atom.shared.add.u32 %0, [%1], 1;" : "=r"(ticket) : "r"(at) : "memory");
    at = (u32)__cvta_generic_to_shared(&sum);
    asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
    at = (u32)__cvta_generic_to_shared(&least);
    asm volatile("red.shared.min.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
    at = (u32)__cvta_generic_to_shared(&most);
    asm volatile("red.relaxed.cta.shared.max.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
    at = (u32)__cvta_generic_to_shared(&bits);
    asm volatile("red.shared.xor.b64 [%0], %1;" ::"r"(at), "l"(in[0]) : "memory");
    __syncthreads();
    out[0] = sum, out[1] = least, out[2] = most, out[3] = count, out[4] = bits, out[5] = ticket < 128;
}
// A lock taken by compare-and-swap protects a plain counter.
KERNEL(atom_shared_lock) {
    __shared__ u32 lock, total;
    ROWS(1, 1);
    if (threadIdx.x == 0) lock = 0, total = 0;
    __syncthreads();
    for (bool done = false; !done;) {
        if (atomicCAS(&lock, 0, 1) == 0) {
            __threadfence_block();
            *(volatile u32 *)&total += (u32)in[0];
            __threadfence_block();
            atomicExch(&lock, 0);
            done = true;
        }
    }
    __syncthreads();
    out[0] = total;
}
