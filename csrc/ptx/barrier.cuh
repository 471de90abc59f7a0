// `barrier`: barriers of some of a block's warps (PTX ISA, "Parallel Synchronization and Communication Instructions:
// barrier").
#pragma once

// Waits for `threads` threads, a multiple of 32, at barrier NAME: 1 to 15, as 0 is that of `__syncthreads`.
template <unsigned NAME>
__device__ void sync_some(unsigned threads) {
    asm volatile("barrier.sync.aligned %0, %1;" ::"n"(NAME), "r"(threads) : "memory");
}

// Waits for the `threads` threads of a block's group 0 to 3. By a branch each: for a name that is not a constant the
// compiler takes all 16 barriers.
__device__ inline void sync_group(unsigned group, unsigned threads) {
    switch (group) {
        case 0:
            return sync_some<1>(threads);
        case 1:
            return sync_some<2>(threads);
        case 2:
            return sync_some<3>(threads);
        default:
            return sync_some<4>(threads);
    }
}
