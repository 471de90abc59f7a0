// Stores and reductions that complete on an mbarrier of another block (PTX ISA 9.7.9.12, 9.7.13.7). Every kernel is
// launched in clusters of 4 blocks of 64 threads.
// nvcc -ptx -arch=compute_90a -o ptx/async_store_90.ptx async_store_90.cu
#include "cluster.h"

#define THREADS 64
#define BLOCKS 4

// One thread makes an object of one arrival, before the blocks meet.
__device__ void init(u64 *object) {
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(object)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
}
// One thread arrives and says how many bytes come.
__device__ void expect(u64 *object, u32 bytes) {
    if (threadIdx.x == 0)
        asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(object)), "r"(bytes)
                     : "memory");
}
__device__ void wait(u64 *object) {
    asm volatile(
        "{.reg .pred p;\nWAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], 0;\n@!p bra WAIT;}" ::"r"(
            shared_address(object))
        : "memory");
}

// Each thread's row of `count` words goes to its place in the next block.
#define RING(name, text, T, count, bytes, send)                                                             \
    KERNEL(name) {                                                                                          \
        __shared__ __align__(16) T x[count * THREADS];                                                      \
        __shared__ u64 object;                                                                              \
        ROWS(count, count);                                                                                 \
        init(&object);                                                                                      \
        meet_cluster();                                                                                     \
        expect(&object, bytes * count * THREADS);                                                           \
        u32 next = (cluster_rank() + 1) % BLOCKS;                                                           \
        u32 there = in_block(shared_address(x + count * threadIdx.x), next), done = in_block(shared_address(&object), next); \
        send(text);                                                                                         \
        wait(&object);                                                                                      \
        for (int k = 0; k < count; ++k) out[k] = x[count * threadIdx.x + k];                                \
    }
#define SEND1(text, W) asm volatile(text " [%0], %1, [%2];" ::"r"(there), ARG(W, 0), "r"(done) : "memory")
#define SEND2(text, W) \
    asm volatile(text " [%0], {%1, %2}, [%3];" ::"r"(there), ARG(W, 0), ARG(W, 1), "r"(done) : "memory")
#define SEND4(text, W)                                                                                                \
    asm volatile(text " [%0], {%1, %2, %3, %4}, [%5];" ::"r"(there), ARG(W, 0), ARG(W, 1), ARG(W, 2), ARG(W, 3),      \
                 "r"(done)                                                                                            \
                 : "memory")
#define SEND1R(text) SEND1(text, r)
#define SEND1L(text) SEND1(text, l)
#define SEND2R(text) SEND2(text, r)
#define SEND2L(text) SEND2(text, l)
#define SEND4R(text) SEND4(text, r)
RING(st_async_u32, "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32", u32, 1, 4, SEND1R)
RING(st_async_weak_b32, "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32", u32, 1, 4, SEND1R)
RING(st_async_s64, "st.async.shared::cluster.mbarrier::complete_tx::bytes.s64", u64, 1, 8, SEND1L)
RING(st_async_v2_s32, "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.s32", u32, 2, 4, SEND2R)
RING(st_async_v2_b64, "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b64", u64, 2, 8, SEND2L)
RING(st_async_v4_b32, "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32", u32, 4, 4, SEND4R)

// The same by generic addresses.
KERNEL(st_async_generic) {
    __shared__ double x[THREADS];
    __shared__ u64 object;
    ROWS(1, 1);
    init(&object);
    meet_cluster();
    expect(&object, 8 * THREADS);
    u32 next = (cluster_rank() + 1) % BLOCKS;
    u64 there, done;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(x + threadIdx.x), "r"(next));
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(done) : "l"(&object), "r"(next));
    asm volatile("st.async.mbarrier::complete_tx::bytes.f64 [%0], %1, [%2];" ::"l"(there),
                 "d"(__longlong_as_double(in[0])), "l"(done)
                 : "memory");
    wait(&object);
    out[0] = __double_as_longlong(x[threadIdx.x]);
}

// Every thread of the other blocks changes one word of the first block, which began as the first row's second word.
#define REDUCTION(name, op, T, W, bytes)                                                                          \
    KERNEL(name) {                                                                                                \
        __shared__ T x;                                                                                           \
        __shared__ u64 object;                                                                                    \
        ROWS(2, 1);                                                                                               \
        u32 rank = cluster_rank();                                                                                \
        init(&object);                                                                                            \
        if (threadIdx.x == 0) x = (T)in[1];                                                                       \
        meet_cluster();                                                                                           \
        if (rank == 0) {                                                                                          \
            expect(&object, bytes * (BLOCKS - 1) * THREADS);                                                      \
            wait(&object);                                                                                        \
            out[0] = x;                                                                                           \
        } else {                                                                                                  \
            asm volatile("red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes." op             \
                         " [%0], %1, [%2];" ::"r"(in_block(shared_address(&x), 0)),                               \
                         ARG(W, 0), "r"(in_block(shared_address(&object), 0))                                     \
                         : "memory");                                                                             \
            out[0] = 0;                                                                                           \
        }                                                                                                         \
    }
REDUCTION(red_async_inc_u32, "inc.u32", u32, r, 4)
REDUCTION(red_async_dec_u32, "dec.u32", u32, r, 4)
REDUCTION(red_async_min_u32, "min.u32", u32, r, 4)
REDUCTION(red_async_min_s32, "min.s32", u32, r, 4)
REDUCTION(red_async_max_u32, "max.u32", u32, r, 4)
REDUCTION(red_async_max_s32, "max.s32", u32, r, 4)
REDUCTION(red_async_and_b32, "and.b32", u32, r, 4)
REDUCTION(red_async_or_b32, "or.b32", u32, r, 4)
REDUCTION(red_async_xor_b32, "xor.b32", u32, r, 4)
REDUCTION(red_async_add_u32, "add.u32", u32, r, 4)
REDUCTION(red_async_add_s32, "add.s32", u32, r, 4)
REDUCTION(red_async_add_u64, "add.u64", u64, l, 8)

// Partial sums of 4 numbers per thread: each block sums a quarter of the rows over all blocks, and sends the sums back to
// all of them.
KERNEL(reduce_scatter) {
    __shared__ __align__(16) float partial[BLOCKS][THREADS / BLOCKS][4];
    __shared__ __align__(16) float sums[THREADS][4];
    __shared__ u64 scattered, gathered;
    ROWS(4, 4);
    u32 rank = cluster_rank(), share = THREADS / BLOCKS, t = threadIdx.x;
    init(&scattered);
    init(&gathered);
    meet_cluster();
    expect(&scattered, sizeof partial);
    expect(&gathered, sizeof sums);
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                     in_block(shared_address(partial[rank][t % share]), t / share)),
                 "f"(__uint_as_float((u32)in[0])), "f"(__uint_as_float((u32)in[1])), "f"(__uint_as_float((u32)in[2])),
                 "f"(__uint_as_float((u32)in[3])), "r"(in_block(shared_address(&scattered), t / share))
                 : "memory");
    if (t < share) {
        wait(&scattered);
        float sum[4] = {};
        for (int block = 0; block < BLOCKS; ++block)
            for (int k = 0; k < 4; ++k) sum[k] += partial[block][t][k];
        for (int block = 0; block < BLOCKS; ++block)
            asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                             in_block(shared_address(sums[rank * share + t]), block)),
                         "f"(sum[0]), "f"(sum[1]), "f"(sum[2]), "f"(sum[3]), "r"(in_block(shared_address(&gathered), block))
                         : "memory");
    }
    wait(&gathered);
    for (int k = 0; k < 4; ++k) out[k] = __float_as_uint(sums[t][k]);
}
