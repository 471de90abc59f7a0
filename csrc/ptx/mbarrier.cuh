// `mbarrier`: barriers in shared memory with phases, at which some threads arrive and others wait (PTX ISA, "Parallel
// Synchronization and Communication Instructions: mbarrier"). Addresses are those within shared memory.
#pragma once

#include <stdint.h>

// A phase ends with so many arrivals. Others may use the barrier behind the next barrier of the block.
__device__ inline void mbarrier_init(uint32_t barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Arrives if `arrives`, without a branch.
__device__ inline void mbarrier_arrive(uint32_t barrier, bool arrives) {
    asm volatile("{.reg .pred p;\n setp.ne.u32 p, %1, 0;\n @p mbarrier.arrive.shared::cta.b64 _, [%0];}" ::"r"(barrier),
                 "r"(static_cast<unsigned>(arrives))
                 : "memory");
}

// Arrives when all copies that the thread has started by `cp.async` are done.
__device__ inline void mbarrier_arrive_after_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase of this parity has ended: of a new barrier, the phase before the first counts as ended, with
// parity 1.
__device__ inline void mbarrier_wait(uint32_t barrier, unsigned parity) {
    asm volatile(
        "{.reg .pred p;\n"
        "again:\n"
        " mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        " @!p bra again;}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
