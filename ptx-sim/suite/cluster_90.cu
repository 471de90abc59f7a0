// Clusters and distributed shared memory (PTX ISA 9.7.13.3, 9.7.9.19-20, 9.7.9.23-24, 10.11-17). Every kernel is launched
// in clusters of 4 blocks of 64 threads.
// nvcc -ptx -arch=compute_90a -o ptx/cluster_90.ptx cluster_90.cu
#include "cluster.h"

#define THREADS 64

__device__ u32 special_blocks() {
    u32 blocks;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}
__device__ void meet() {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// Each thread reads the word of its place in the next block; two ways to write the barrier, and one with a fence.
#define RING(name, arrive, wait)                                                                            \
    KERNEL(name) {                                                                                          \
        __shared__ u64 x[THREADS];                                                                          \
        ROWS(1, 1);                                                                                         \
        x[threadIdx.x] = in[0];                                                                             \
        asm volatile(arrive "\n" wait ::: "memory");                                                        \
        u32 there = in_block(shared_address(x + threadIdx.x), (cluster_rank() + 1) % special_blocks());     \
        u64 y;                                                                                              \
        asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(y) : "r"(there) : "memory");                 \
        asm volatile(arrive "\n" wait ::: "memory");                                                        \
        out[0] = y;                                                                                         \
    }
RING(ring_aligned, "barrier.cluster.arrive.release.aligned;", "barrier.cluster.wait.acquire.aligned;")
RING(ring_unaligned, "barrier.cluster.arrive;", "barrier.cluster.wait;")
RING(ring_relaxed, "fence.acq_rel.cluster;\nbarrier.cluster.arrive.relaxed.aligned;", "barrier.cluster.wait.aligned;")

// Each thread writes to its place in the block before, by a generic address.
KERNEL(ring_generic) {
    __shared__ u64 x[THREADS];
    ROWS(1, 1);
    // Both blocks must have begun before either writes to the other.
    meet();
    u64 there;
    u32 blocks = special_blocks();
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(x + threadIdx.x), "r"((cluster_rank() + blocks - 1) % blocks));
    asm volatile("st.u64 [%0], %1;" ::"l"(there), "l"(in[0]) : "memory");
    meet();
    out[0] = x[threadIdx.x];
}

// A vector into the next block, and each width back from there.
KERNEL(widths) {
    __shared__ __align__(16) u32 x[4 * THREADS];
    ROWS(2, 11);
    meet();
    u32 next = (cluster_rank() + 1) % special_blocks();
    u32 there = in_block(shared_address(x + 4 * threadIdx.x), next);
    asm volatile("st.shared::cluster.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(there), "r"((u32)in[0]), "r"((u32)(in[0] >> 32)),
                 "r"((u32)in[1]), "r"((u32)(in[1] >> 32))
                 : "memory");
    meet();
    u32 a, b, c, d, e, f;
    u16 g, h, k;
    u64 i8, j8;
    asm volatile("ld.shared::cluster.u8 %0, [%1+1];" : "=r"(a) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.s8 %0, [%1+2];" : "=r"(b) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.u16 %0, [%1+4];" : "=h"(g) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.s16 %0, [%1+6];" : "=r"(c) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.v2.u16 {%0, %1}, [%2+8];" : "=h"(h), "=h"(k) : "r"(there) : "memory");
    asm volatile("ld.relaxed.cluster.shared::cluster.b32 %0, [%1+12];" : "=r"(d) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.v2.b32 {%0, %1}, [%2];" : "=r"(e), "=r"(f) : "r"(there) : "memory");
    asm volatile("ld.shared::cluster.v2.b64 {%0, %1}, [%2];" : "=l"(i8), "=l"(j8) : "r"(there) : "memory");
    meet();
    out[0] = a, out[1] = b, out[2] = g, out[3] = c, out[4] = h, out[5] = d, out[6] = e, out[7] = f, out[8] = i8,
    out[9] = j8, out[10] = k;
}

// A sum over all blocks, each with its weight and at another place.
KERNEL(all_to_all) {
    __shared__ u64 x[THREADS];
    ROWS(1, 1);
    x[threadIdx.x] = in[0];
    meet();
    u64 sum = 0;
    for (u32 rank = 0; rank < special_blocks(); ++rank) {
        u64 y;
        asm volatile("ld.shared::cluster.u64 %0, [%1];"
                     : "=l"(y)
                     : "r"(in_block(shared_address(x + (threadIdx.x + rank) % THREADS), rank))
                     : "memory");
        sum += (rank + 1) * y;
    }
    meet();
    out[0] = sum;
}

// Cells in the cluster's first block, for atomics of all threads of all blocks; everybody reads the totals.
KERNEL(atomics) {
    __shared__ u32 sum, least, most, bits, turns, count;
    __shared__ u64 wide;
    __shared__ u32 halves;
    ROWS(1, 10);
    if (threadIdx.x == 0) sum = 0, least = ~0u, most = 0, bits = 0, turns = 0, count = 0, wide = 0, halves = 0;
    meet();
    u32 x = (u32)in[0], ticket, earlier, turn;
    u64 partial;
    asm volatile("atom.shared::cluster.add.u32 %0, [%1], 1;" : "=r"(ticket) : "r"(in_block(shared_address(&count), 0)) : "memory");
    asm volatile("red.shared::cluster.add.u32 [%0], %1;" ::"r"(in_block(shared_address(&sum), 0)), "r"(x) : "memory");
    asm volatile("red.relaxed.cluster.shared::cluster.min.u32 [%0], %1;" ::"r"(in_block(shared_address(&least), 0)), "r"(x) : "memory");
    asm volatile("atom.acq_rel.cluster.shared::cluster.max.u32 %0, [%1], %2;"
                 : "=r"(earlier)
                 : "r"(in_block(shared_address(&most), 0)), "r"(x)
                 : "memory");
    asm volatile("red.shared::cluster.xor.b32 [%0], %1;" ::"r"(in_block(shared_address(&bits), 0)), "r"(x) : "memory");
    asm volatile("atom.shared::cluster.inc.u32 %0, [%1], 100;" : "=r"(turn) : "r"(in_block(shared_address(&turns), 0)) : "memory");
    asm volatile("atom.shared::cluster.add.u64 %0, [%1], %2;"
                 : "=l"(partial)
                 : "r"(in_block(shared_address(&wide), 0)), "l"(in[0])
                 : "memory");
    // Ones in both halves, so that the sums are exact.
    asm volatile("red.shared::cluster.add.noftz.f16x2 [%0], %1;" ::"r"(in_block(shared_address(&halves), 0)), "r"(0x3C003C00) : "memory");
    meet();
    u32 *cells[6] = {&sum, &least, &most, &bits, &turns, &count};
    for (int k = 0; k < 6; ++k) {
        u32 value;
        asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(in_block(shared_address(cells[k]), 0)) : "memory");
        out[k] = value;
    }
    u64 total;
    u32 pair;
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(total) : "r"(in_block(shared_address(&wide), 0)) : "memory");
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(pair) : "r"(in_block(shared_address(&halves), 0)) : "memory");
    meet();
    out[6] = total, out[7] = pair, out[8] = ticket < THREADS * special_blocks();
    // What an atomic returns has been there before: never above the totals.
    out[9] = earlier <= (u32)out[2] && turn <= 100 && partial <= total;
}

// A plain counter in the last block, behind a lock of which every block's first thread gets hold once.
KERNEL(lock) {
    __shared__ u32 taken, total;
    ROWS(1, 1);
    u32 last = special_blocks() - 1;
    if (threadIdx.x == 0) taken = 0, total = 0;
    meet();
    if (threadIdx.x == 0) {
        u32 old, value;
        do {
            asm volatile("atom.acquire.cluster.shared::cluster.cas.b32 %0, [%1], 0, 1;"
                         : "=r"(old)
                         : "r"(in_block(shared_address(&taken), last))
                         : "memory");
        } while (old != 0);
        u32 at = in_block(shared_address(&total), last);
        asm volatile("ld.relaxed.cluster.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(at) : "memory");
        asm volatile("st.relaxed.cluster.shared::cluster.u32 [%0], %1;" ::"r"(at), "r"(value + (u32)in[0]) : "memory");
        asm volatile("atom.release.cluster.shared::cluster.exch.b32 %0, [%1], 0;"
                     : "=r"(old)
                     : "r"(in_block(shared_address(&taken), last))
                     : "memory");
    }
    meet();
    u32 value;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(in_block(shared_address(&total), last)) : "memory");
    meet();
    out[0] = value;
}

// What addresses say of their block: per rank the rank twice, as shared and as generic address, and in which windows the
// generic address lies. At the end the rank of the own block's variable.
KERNEL(addresses) {
    __shared__ u64 x[THREADS];
    ROWS(1, 5);
    for (u32 rank = 0; rank < 4; ++rank) {
        u32 there = in_block(shared_address(x + threadIdx.x), rank), narrow, wide, cluster, own, global;
        u64 generic;
        asm volatile("getctarank.shared::cluster.u32 %0, %1;" : "=r"(narrow) : "r"(there));
        asm volatile("{.reg .b64 a;\ncvt.u64.u32 a, %1;\ncvta.shared::cluster.u64 %0, a;}" : "=l"(generic) : "r"(there));
        asm volatile("getctarank.u64 %0, %1;" : "=r"(wide) : "l"(generic));
        asm volatile("{.reg .pred p;\nisspacep.shared::cluster p, %1;\nselp.u32 %0, 1, 0, p;}" : "=r"(cluster) : "l"(generic));
        asm volatile("{.reg .pred p;\nisspacep.shared::cta p, %1;\nselp.u32 %0, 1, 0, p;}" : "=r"(own) : "l"(generic));
        asm volatile("{.reg .pred p;\nisspacep.global p, %1;\nselp.u32 %0, 1, 0, p;}" : "=r"(global) : "l"(generic));
        // Back to a shared address, and the generic address of another block's memory made of the own one's.
        u64 back, mapped;
        asm volatile("cvta.to.shared::cluster.u64 %0, %1;" : "=l"(back) : "l"(generic));
        asm volatile("mapa.u64 %0, %1, %2;" : "=l"(mapped) : "l"(x + threadIdx.x), "r"(rank));
        out[rank] = narrow | wide << 4 | cluster << 8 | own << 9 | global << 10 | ((u32)back == there) << 11 |
                    (mapped == generic) << 12 | (u32)(in[0] & 1) << 13;
    }
    u32 mine;
    asm volatile("getctarank.shared::cluster.u32 %0, %1;" : "=r"(mine) : "r"(shared_address(x)));
    out[4] = mine;
}

KERNEL(registers) {
    ROWS(1, 8);
    u32 d;
    asm volatile("mov.u32 %0, %%cluster_ctaid.x;" : "=r"(d));
    out[0] = d;
    asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(d));
    out[1] = d;
    asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(d));
    out[2] = d;
    asm volatile("mov.u32 %0, %%nclusterid.x;" : "=r"(d));
    out[3] = d;
    asm volatile("mov.u32 %0, %%cluster_nctaid.z;" : "=r"(d));
    out[4] = d;
    asm volatile("{.reg .pred p;\nmov.pred p, %%is_explicit_cluster;\nselp.u32 %0, 1, 0, p;}" : "=r"(d));
    out[5] = d;
    out[6] = cluster_rank(), out[7] = special_blocks();
}
