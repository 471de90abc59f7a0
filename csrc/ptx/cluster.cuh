// Clusters: blocks that run at the same time and reach each other's shared memory (PTX ISA, "Parallel Synchronization and
// Communication Instructions: barrier.cluster, mbarrier", "Data Movement and Conversion Instructions: mapa, st.async").
//
// An address within the shared memory of another block is made of that of the same place in the own block, as
// `shared_address` gives it, by `in_block`.
#pragma once

#include <stdint.h>

// The block's number in its cluster.
__device__ inline unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// The same place in the shared memory of the cluster's block number `rank`.
__device__ inline uint32_t in_block(uint32_t address, unsigned rank) {
    uint32_t mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}

// Barriers that the thread has initialised are there for the cluster behind its next barrier.
__device__ inline void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Waits for all threads of all blocks of the cluster, and knows what they did before.
__device__ inline void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Arrives at a barrier of any block of the cluster. Whoever waits for the phase's end knows what the thread has done and
// known before: that takes a fence, for which the thread waits some hundred cycles.
__device__ inline void cluster_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same, and announces that so many bytes will be stored there.
__device__ inline void cluster_arrive_expecting(uint32_t barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// The same without a fence: whoever waits knows of the bytes alone.
__device__ inline void cluster_announce(uint32_t barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.relaxed.cluster.shared::cluster.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Waits as `mbarrier_wait` does, for what other blocks of the cluster did.
__device__ inline void cluster_wait(uint32_t barrier, unsigned parity) {
    asm volatile(
        "{.reg .pred p;\n"
        "again:\n"
        " mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n"
        " @!p bra again;}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Stores 16, 8 or 4 bytes in a block of the cluster, which counts them at a barrier of its own when they are there.
__device__ inline void cluster_store(uint32_t to, uint4 x, uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(barrier)
                 : "memory");
}
__device__ inline void cluster_store(uint32_t to, float2 x, uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
                 "f"(x.x), "f"(x.y), "r"(barrier)
                 : "memory");
}
__device__ inline void cluster_store(uint32_t to, uint32_t x, uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to), "r"(x),
                 "r"(barrier)
                 : "memory");
}

// Stores 16 bytes in a block of the cluster, for behind the cluster's next barrier.
__device__ inline void cluster_store(uint32_t to, float4 x) {
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
}
