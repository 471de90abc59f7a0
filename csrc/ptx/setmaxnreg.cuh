// `setmaxnreg`: registers that a warpgroup hands to others, or gets from them (PTX ISA, "Miscellaneous Instructions:
// setmaxnreg"). The kernel must fix its threads and blocks by `__launch_bounds__(threads, 1)`, or ptxas drops it.
#pragma once

// Keeps so many registers per thread, a multiple of 8.
template <int Registers>
__device__ inline void release_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Waits for so many registers per thread, a multiple of 8.
template <int Registers>
__device__ inline void acquire_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
