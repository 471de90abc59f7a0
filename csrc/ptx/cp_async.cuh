// `cp.async`: copies from global to shared memory that bypass the registers and do not hold up the thread (PTX ISA,
// "Data Movement and Conversion Instructions: cp.async").
#pragma once

#include <stdint.h>

// Copies 16 bytes; both addresses are 16-byte aligned. It bypasses L1: a block reads a tile once from global memory,
// and then from shared memory.
__device__ inline void cp_async_16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Copies the first `bytes` (0 to 16) of 16 and fills the rest with zeros. Only those bytes are read.
__device__ inline void cp_async_16_zero_filled(uint32_t to, const void *from, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Copies 16 bytes if `copies`, without a branch.
__device__ inline void cp_async_16_if(bool copies, uint32_t to, const void *from) {
    asm volatile("{.reg .pred p;\n setp.ne.u32 p, %2, 0;\n @p cp.async.cg.shared.global [%0], [%1], 16;}" ::"r"(to),
                 "l"(from), "r"(static_cast<unsigned>(copies))
                 : "memory");
}

// Makes a group of the copies that the thread has started since the last group.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the latest `Pending` of the thread's groups are in flight. For those of other threads, a barrier
// has to follow.
template <int Pending>
__device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Copies the first `bytes` (0 or 4) of 4 and fills the rest with zeros.
__device__ inline void cp_async_4_zero_filled(uint32_t to, const void *from, uint32_t bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Copies 4 bytes.
__device__ inline void cp_async_4(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

// Waits for all of the thread's copies, whether they are in groups or not.
__device__ inline void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Copies BYTES bytes, 16 or 4.
template <int BYTES>
__device__ void cp_async(uint32_t to, const void *from) {
    static_assert(BYTES == 16 || BYTES == 4, "no other copies are needed");
    BYTES == 16 ? cp_async_16(to, from) : cp_async_4(to, from);
}

// Copies the first `bytes` of BYTES, 16 or 4, and fills the rest with zeros.
template <int BYTES>
__device__ void cp_async_zero_filled(uint32_t to, const void *from, uint32_t bytes) {
    static_assert(BYTES == 16 || BYTES == 4, "no other copies are needed");
    BYTES == 16 ? cp_async_16_zero_filled(to, from, bytes) : cp_async_4_zero_filled(to, from, bytes);
}
