// `barrier`: meetings of some of a block's warps, by number (PTX ISA, "Parallel Synchronization and Communication
// Instructions: barrier"). Number 0 is that of `__syncthreads`.
#pragma once

// Waits for `threads` threads, a multiple of a warp's.
__device__ inline void barrier_sync(unsigned number, unsigned threads) {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// The same; returns whether `condition` holds for any of them.
__device__ inline bool barrier_any(unsigned number, unsigned threads, bool condition) {
    unsigned any;
    asm volatile(
        "{.reg .pred p, q;\n setp.ne.u32 p, %3, 0;\n barrier.cta.red.or.aligned.pred q, %1, %2, p;\n"
        " selp.u32 %0, 1, 0, q;}"
        : "=r"(any)
        : "r"(number), "r"(threads), "r"(static_cast<unsigned>(condition))
        : "memory");
    return any != 0;
}
