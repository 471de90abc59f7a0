// What the kernels of tensor copies share.
#pragma once

#include <cuda.h>

#include "suite.h"

// Rows are of 64 bytes. The first one of each block says what the block does: five coordinates, the bytes of the box, the
// number of its map, and where in the block's tile, 8 KiB of shared memory, the box lies.
#define WORDS 8
#define THREADS 128
#define MAPS 4

struct Maps {
    CUtensorMap map[MAPS];
};

struct Task {
    int coordinate[5];
    u32 bytes, to;
    const CUtensorMap *map;
};

static __device__ __forceinline__ Task task_of(const u64 *in, const CUtensorMap *maps) {
    const u64 *row = in + (u64)blockIdx.x * THREADS * WORDS;
    Task task;
    for (int i = 0; i < 5; i++) task.coordinate[i] = (int)row[i];
    task.bytes = (u32)row[5], task.map = maps + row[6], task.to = (u32)row[7];
    return task;
}

// Fills the tile, makes an mbarrier, and lets the copy see both.
static __device__ __forceinline__ void prepare(u64 *tile, u64 *bar) {
    for (int i = 0; i < WORDS; i++) tile[threadIdx.x * WORDS + i] = 0x0101010101010101ull * i;
    if (threadIdx.x == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(bar)) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}

static __device__ __forceinline__ void expect(u64 *bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}

// Waits for the first phase.
static __device__ __forceinline__ void wait(u64 *bar) {
    asm volatile(
        "{.reg .pred p;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0;\n"
        "@!p bra again;}" ::"r"(shared_address(bar))
        : "memory");
}

static __device__ __forceinline__ void give(u64 *out, const u64 *tile) {
    out += ((u64)blockIdx.x * THREADS + threadIdx.x) * WORDS;
    for (int i = 0; i < WORDS; i++) out[i] = tile[threadIdx.x * WORDS + i];
}

#define TILE                                              \
    __shared__ alignas(1024) u64 tile[THREADS * WORDS];   \
    __shared__ alignas(8) u64 bar
#define TO shared_address((char *)tile + task.to)
// A cache policy as createpolicy makes it.
#define EVICT_FIRST 0x12F0000000000000ull
