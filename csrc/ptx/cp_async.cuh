// `cp.async`: copies from global to shared memory that pass by the registers and let the thread go on (PTX ISA, "Data
// Movement and Conversion Instructions: cp.async").
#pragma once

#include <stdint.h>

// Copies 16 bytes, both addresses aligned to that. Past L1: a tile is read once by a block, and then from shared memory.
__device__ inline void cp_async_16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// The same of the first `bytes` (0 to 16), with zeros behind them; nothing past them is read.
__device__ inline void cp_async_16_zero_filled(uint32_t to, const void *from, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Ends a group: the copies that the thread began since the last one.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of the thread's groups, the youngest, are under way. Others' copies need a barrier too.
template <int Pending>
__device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Copies the first `bytes` (0 or 4) of 4, with zeros behind them.
__device__ inline void cp_async_4_zero_filled(uint32_t to, const void *from, uint32_t bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Copies 4 bytes.
__device__ inline void cp_async_4(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

// Waits for all of the thread's copies, in groups or not.
__device__ inline void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }
