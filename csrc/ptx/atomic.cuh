// Words in global memory by which blocks tell each other how far they are (PTX ISA, "Parallel Synchronization and
// Communication Instructions: atom, red", and "Memory Consistency Model").
#pragma once

#include <stdint.h>

// Adds to a word; orders nothing.
__device__ inline void add_relaxed(uint64_t *word, uint64_t n) {
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(word), "l"(n) : "memory");
}

// Adds to a word and returns what it was; orders nothing.
__device__ inline uint64_t fetch_add_relaxed(uint64_t *word, uint64_t n) {
    uint64_t before;
    asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;" : "=l"(before) : "l"(word), "l"(n) : "memory");
    return before;
}

// The same; what this thread has written, or knows of by a barrier, is seen by whoever finds the sum by an acquiring
// access, and what those who added before have released is seen here.
__device__ inline uint64_t fetch_add_acq_rel(uint64_t *word, uint64_t n) {
    uint64_t before;
    asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(before) : "l"(word), "l"(n) : "memory");
    return before;
}

// A word; what those who added to it have released is seen here.
__device__ inline uint64_t load_acquire(const uint64_t *word) {
    uint64_t value;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
