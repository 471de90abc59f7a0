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

// Waits for the `threads` threads of a block's group 0 to 3, at barriers 1 to 4. For a number that is not a constant the
// compiler takes all 16 barriers, which are what a block may have: multiprocessors of 9.0 and 10.x have 64, four blocks'
// (cuda_occupancy.h of the CUDA runtime), but some others 16 or 24, where the number is chosen by a branch.
__device__ inline void sync_group(unsigned group, unsigned threads) {
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1100
    barrier_sync(1 + group, threads);
#else
    switch (group) {
        case 0:
            return barrier_sync(1, threads);
        case 1:
            return barrier_sync(2, threads);
        case 2:
            return barrier_sync(3, threads);
        default:
            return barrier_sync(4, threads);
    }
#endif
}
