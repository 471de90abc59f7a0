// cp.async.bulk, cp.reduce.async.bulk and bulk groups (PTX ISA 9.7.9.25.4, 9.7.9.25.6). The numbers of rows are multiples
// of a cluster's threads, so that all threads of a block are there.
// nvcc -ptx -arch=compute_90a -o ptx/bulk_90.ptx bulk_90.cu
#include "cluster.h"

#define FENCE asm volatile("fence.proxy.async;" ::: "memory")
#define GROUP "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;"

__device__ void init(u64 *bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ void expect(u64 *bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}
__device__ void wait(u64 *bar, u32 parity) {
    u32 done = 0;
    while (!done)
        asm volatile("{.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(shared_address(bar)), "r"(parity) : "memory");
}

// A row is 16 bytes of the block's memory. Each thread copies 1 to 4 rows of the block, from one that its own row names,
// to its row of results, which is 64 bytes of zeros.
#define STORE(name, form, hint)                                                                                       \
    KERNEL(name) {                                                                                                    \
        __shared__ __align__(16) u64 cell[2 * 128];                                                                   \
        ROWS(2, 8);                                                                                                   \
        cell[2 * threadIdx.x] = in[0], cell[2 * threadIdx.x + 1] = in[1];                                             \
        FENCE;                                                                                                        \
        __syncthreads();                                                                                              \
        u32 from = shared_address(cell) + (u32)in[1] % 125 * 16, size = (u32)in[0] % 4 * 16 + 16;                     \
        asm volatile(form " [%0], [%1], %2" hint ";\n" GROUP ::"l"(out), "r"(from), "r"(size), "l"(0x12F0000000000000ull) : "memory"); \
    }
STORE(bulk_store, "cp.async.bulk.global.shared::cta.bulk_group", "")
STORE(bulk_store_hint, "cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint", ", %3")

// The source is used again when it has been read: three groups of one buffer.
KERNEL(bulk_groups) {
    __shared__ __align__(16) u64 cell[2 * 128];
    ROWS(3, 6);
    u64 *mine = cell + 2 * threadIdx.x;
    for (int k = 0; k < 3; k++) {
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        mine[0] = in[k], mine[1] = ~in[k];
        FENCE;
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 16;\ncp.async.bulk.commit_group;"
                     ::"l"(out + 2 * k), "r"(shared_address(mine)) : "memory");
    }
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Each thread loads 1 to 4 rows of the block to shared memory that held ones; its own object is told. The rest stays.
#define LOAD(name, form, hint)                                                                                        \
    KERNEL(name) {                                                                                                    \
        __shared__ __align__(16) u64 cell[8 * 128];                                                                   \
        __shared__ u64 bar[128];                                                                                      \
        const u64 *all = in + 2 * blockIdx.x * 128;                                                                   \
        ROWS(2, 8);                                                                                                   \
        u64 *mine = cell + 8 * threadIdx.x;                                                                           \
        for (int k = 0; k < 8; k++) mine[k] = ~0ull;                                                                  \
        init(bar + threadIdx.x, 1);                                                                                   \
        FENCE;                                                                                                        \
        const u64 *from = all + (u32)in[1] % 125 * 2;                                                                 \
        u32 size = (u32)in[0] % 4 * 16 + 16;                                                                          \
        expect(bar + threadIdx.x, size);                                                                              \
        asm volatile(form " [%0], [%1], %2, [%3]" hint ";" ::"r"(shared_address(mine)), "l"(from), "r"(size),         \
                     "r"(shared_address(bar + threadIdx.x)), "l"(0x12F0000000000000ull) : "memory");                  \
        wait(bar + threadIdx.x, 0);                                                                                   \
        for (int k = 0; k < 8; k++) out[k] = mine[k];                                                                 \
    }
LOAD(bulk_load_cluster, "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes", "")
LOAD(bulk_load_cta, "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes", "")
LOAD(bulk_load_hint, "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint", ", %4")

// Each block of a cluster of two loads half of its 128 rows for both: rows 0 to 63 of block 0, then rows 64 to 127 of
// block 1.
extern "C" __global__ void __cluster_dims__(2, 1, 1) bulk_multicast(const u64 *in, u64 *out, int n) {
    __shared__ __align__(16) u64 cell[2 * 128];
    __shared__ u64 bar;
    const u64 *half = in + 2 * (blockIdx.x * 128 + cluster_rank() * 64);
    ROWS(2, 2);
    if (threadIdx.x == 0) init(&bar, 1), expect(&bar, 2048);
    meet_cluster();
    if (threadIdx.x == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 1024, [%2], %3;"
                     ::"r"(shared_address(cell) + cluster_rank() * 1024), "l"(half), "r"(shared_address(&bar)), "h"((u16)3) : "memory");
    wait(&bar, 0);
    out[0] = cell[2 * threadIdx.x], out[1] = cell[2 * threadIdx.x + 1];
    meet_cluster();
}

// Each block copies its 128 rows to the other one's memory, whose object is told.
extern "C" __global__ void __cluster_dims__(2, 1, 1) bulk_remote(const u64 *in, u64 *out, int n) {
    __shared__ __align__(16) u64 cell[2 * 128], got[2 * 128];
    __shared__ u64 bar;
    ROWS(2, 2);
    cell[2 * threadIdx.x] = in[0], cell[2 * threadIdx.x + 1] = in[1];
    FENCE;
    if (threadIdx.x == 0) init(&bar, 1), expect(&bar, 2048);
    meet_cluster();
    if (threadIdx.x == 0)
        asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                     ::"r"(in_block(shared_address(got), cluster_rank() ^ 1)), "r"(shared_address(cell)), "r"(2048),
                       "r"(in_block(shared_address(&bar), cluster_rank() ^ 1)) : "memory");
    wait(&bar, 0);
    out[0] = got[2 * threadIdx.x], out[1] = got[2 * threadIdx.x + 1];
    meet_cluster();
}

// 16 bytes of global memory that begin as the first half of the row are reduced with the second half.
#define REDUCE(name, form)                                                                                            \
    KERNEL(name) {                                                                                                    \
        __shared__ __align__(16) u64 cell[2 * 128];                                                                   \
        ROWS(4, 2);                                                                                                   \
        u64 *mine = cell + 2 * threadIdx.x;                                                                           \
        mine[0] = in[2], mine[1] = in[3], out[0] = in[0], out[1] = in[1];                                             \
        FENCE;                                                                                                        \
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group." form " [%0], [%1], 16;\n" GROUP            \
                     ::"l"(out), "r"(shared_address(mine)) : "memory");                                               \
    }
#define GLOBAL(op, T) REDUCE(bulk_reduce_##op##_##T, #op "." #T)
GLOBAL(add, u32) GLOBAL(add, s32) GLOBAL(add, u64) GLOBAL(add, f32) GLOBAL(add, f64)
REDUCE(bulk_reduce_add_noftz_f16, "add.noftz.f16") REDUCE(bulk_reduce_add_noftz_bf16, "add.noftz.bf16")
GLOBAL(min, u32) GLOBAL(min, s32) GLOBAL(min, u64) GLOBAL(min, s64) GLOBAL(min, f16) GLOBAL(min, bf16)
GLOBAL(max, u32) GLOBAL(max, s32) GLOBAL(max, u64) GLOBAL(max, s64) GLOBAL(max, f16) GLOBAL(max, bf16)
GLOBAL(inc, u32) GLOBAL(dec, u32)
GLOBAL(and, b32) GLOBAL(or, b32) GLOBAL(xor, b32) GLOBAL(and, b64) GLOBAL(or, b64) GLOBAL(xor, b64)

// All threads of a block add their 16 bytes to one place.
KERNEL(bulk_reduce_together) {
    __shared__ __align__(16) u64 cell[2 * 128];
    ROWS(2, 2);
    u64 *mine = cell + 2 * threadIdx.x;
    mine[0] = in[0], mine[1] = in[1];
    FENCE;
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint.add.u64 [%0], [%1], 16, %2;\n" GROUP
                 ::"l"(out - 2 * threadIdx.x), "r"(shared_address(mine)), "l"(0x12F0000000000000ull) : "memory");
}

// 16 bytes of the other block's shared memory that begin as the first half of its row are reduced with the second half
// of the own one. One object is told of all.
#define REMOTE(op, T)                                                                                                 \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) bulk_remote_##op##_##T(const u64 *in, u64 *out, int n) {     \
        __shared__ __align__(16) u64 cell[2 * 128], got[2 * 128];                                                     \
        __shared__ u64 bar;                                                                                           \
        ROWS(4, 2);                                                                                                   \
        u64 *mine = cell + 2 * threadIdx.x, *there = got + 2 * threadIdx.x;                                           \
        mine[0] = in[2], mine[1] = in[3], there[0] = in[0], there[1] = in[1];                                         \
        FENCE;                                                                                                        \
        if (threadIdx.x == 0) init(&bar, 1), expect(&bar, 2048);                                                      \
        meet_cluster();                                                                                               \
        asm volatile("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes." #op "." #T      \
                     " [%0], [%1], 16, [%2];" ::"r"(in_block(shared_address(there), cluster_rank() ^ 1)), "r"(shared_address(mine)), \
                     "r"(in_block(shared_address(&bar), cluster_rank() ^ 1)) : "memory");                             \
        wait(&bar, 0);                                                                                                \
        out[0] = there[0], out[1] = there[1];                                                                         \
        meet_cluster();                                                                                               \
    }
REMOTE(add, u32) REMOTE(add, s32) REMOTE(add, u64) REMOTE(min, u32) REMOTE(min, s32) REMOTE(max, u32) REMOTE(max, s32)
REMOTE(inc, u32) REMOTE(dec, u32) REMOTE(and, b32) REMOTE(or, b32) REMOTE(xor, b32)

// Hints change nothing.
KERNEL(bulk_prefetch) {
    const u64 *line = in + 2 * blockIdx.x * 128;
    ROWS(2, 2);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], 2048;" ::"l"(line));
    asm volatile("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, %2;" ::"l"(line), "r"(16), "l"(0x12F0000000000000ull));
    out[0] = in[0], out[1] = in[1];
}
