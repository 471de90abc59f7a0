// mbarrier (PTX ISA 9.7.13.15): phases, arrivals, bytes, states. In kernels whose name ends in `_each`, every thread has
// an object of its own.
// nvcc -ptx -arch=compute_90a -o ptx/mbarrier_90.ptx mbarrier_90.cu
#include "suite.h"

// Rounds in which each thread of the block writes a word, arrives, waits and reads another thread's.
#define ROUNDS(name, arrive, wait)                                                                                     \
    KERNEL(name) {                                                                                                     \
        ROWS(1, 1);                                                                                                    \
        __shared__ u64 object;                                                                                         \
        __shared__ u64 words[2][128];                                                                                  \
        u32 t = threadIdx.x, at = shared_address(&object);                                                             \
        if (t == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(128) : "memory");            \
        __syncthreads();                                                                                               \
        u64 value = in[0];                                                                                             \
        for (u32 round = 0; round < 5; round++) {                                                                      \
            words[round & 1][t] = value;                                                                               \
            u64 state = 0;                                                                                             \
            u32 done = 0;                                                                                              \
            arrive;                                                                                                    \
            while (!done) { wait; }                                                                                    \
            value += words[round & 1][(t + 33) & 127];                                                                 \
        }                                                                                                              \
        out[0] = value;                                                                                                \
    }
#define ARRIVE(text) asm volatile(text : "+l"(state) : "r"(at), "r"(1) : "memory")
#define WAIT(text, phase)                                                                                              \
    asm volatile("{.reg .pred p;\n" text "\nselp.u32 %0, 1, 0, p;}" : "=r"(done) : "r"(at), phase : "memory")
#define PARITY "r"(round & 1)
#define STATE "l"(state)

ROUNDS(rounds_state, ARRIVE("mbarrier.arrive.shared::cta.b64 %0, [%1];"),
       WAIT("mbarrier.test_wait.shared::cta.b64 p, [%1], %2;", STATE))
ROUNDS(rounds_try_state, ARRIVE("mbarrier.arrive.release.cta.shared::cta.b64 %0, [%1], %2;"),
       WAIT("mbarrier.try_wait.acquire.cta.shared::cta.b64 p, [%1], %2, 1000;", STATE))
ROUNDS(rounds_parity, ARRIVE("mbarrier.arrive.shared::cta.b64 _, [%1];"),
       WAIT("mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;", PARITY))
ROUNDS(rounds_try_parity, ARRIVE("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%1];"),
       WAIT("mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;", PARITY))
ROUNDS(rounds_relaxed,
       ARRIVE("fence.acq_rel.cta;\nmbarrier.arrive.relaxed.cta.shared::cta.b64 %0, [%1];"),
       WAIT("mbarrier.try_wait.relaxed.cta.shared::cta.b64 p, [%1], %2;\nfence.acq_rel.cta;", STATE))
ROUNDS(rounds_expect_tx,
       ARRIVE("mbarrier.arrive.expect_tx.shared::cta.b64 %0, [%1], %2;\nmbarrier.complete_tx.shared::cta.b64 [%1], %2;"),
       WAIT("mbarrier.try_wait.shared::cta.b64 p, [%1], %2;", STATE))

#define EACH                                                                                                           \
    __shared__ u64 objects[128];                                                                                       \
    u32 at = shared_address(&objects[threadIdx.x])
#define INIT(count) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory")

// Whether the phase of a parity has ended, by an address of its own kind.
__device__ inline u64 ended(u32 at, u32 parity) {
    u32 done;
    asm volatile("{.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(at), "r"(parity)
                 : "memory");
    return done;
}
__device__ inline u64 pending(u64 state) {
    u32 count;
    asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(count) : "l"(state));
    return count;
}

// in: a count, and how many arrive first. out: the counts that were pending, then whether phase 0 has ended.
KERNEL(pending_each) {
    ROWS(2, 4);
    EACH;
    u32 count = (u32)in[0], some = (u32)in[1];
    u64 first, second;
    INIT(count);
    asm volatile("mbarrier.arrive.noComplete.shared::cta.b64 %0, [%1], %2;" : "=l"(first) : "r"(at), "r"(some) : "memory");
    asm volatile("mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %0, [%1], %2;"
                 : "=l"(second)
                 : "r"(at), "r"(1)
                 : "memory");
    out[0] = pending(first), out[1] = pending(second), out[2] = ended(at, 0);
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(count - some - 1) : "memory");
    out[3] = ended(at, 0);
}

// out: the count of the phase in which some dropped out, and that of the next.
KERNEL(drop_each) {
    ROWS(2, 3);
    EACH;
    u32 count = (u32)in[0], some = (u32)in[1];
    u64 first, second;
    INIT(count);
    asm volatile("mbarrier.arrive_drop.noComplete.shared::cta.b64 %0, [%1], %2;" : "=l"(first) : "r"(at), "r"(some) : "memory");
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(count - some) : "memory");
    out[0] = pending(first), out[1] = ended(at, 0);
    asm volatile("mbarrier.arrive.noComplete.shared::cta.b64 %0, [%1], 1;" : "=l"(second) : "r"(at) : "memory");
    out[2] = pending(second);
}

// Dropping out to the last arrival: by `.expect_tx`, and through the cluster's addresses. out: whether each phase ended.
KERNEL(drop_expect_tx_each) {
    ROWS(1, 4);
    EACH;
    u32 bytes = (u32)in[0] & 0xFFFFF;
    INIT(3);
    asm volatile("mbarrier.arrive_drop.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
    asm volatile("mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(at) : "memory");
    out[0] = ended(at, 0);
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(at) : "memory");
    out[1] = ended(at, 0);
    asm volatile("mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
    out[2] = ended(at, 0);
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
    out[3] = ended(at, 1);
}

// Bytes that come before they are announced, and behind it. out: whether phase 0 has ended after each step.
KERNEL(bytes_each) {
    ROWS(2, 5);
    EACH;
    u32 first = (u32)in[0] & 0x3FFFF, second = (u32)in[1] & 0x3FFFF;
    INIT(2);
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(first) : "memory");
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
    out[0] = ended(at, 0);
    asm volatile("mbarrier.complete_tx.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(first + second) : "memory");
    out[1] = ended(at, 0);
    asm volatile("mbarrier.expect_tx.shared::cluster.b64 [%0], %1;" ::"r"(at), "r"(second) : "memory");
    out[2] = ended(at, 0);
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(second + 1) : "memory");
    out[3] = ended(at, 0);
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(second + 1) : "memory");
    out[4] = ended(at, 0);
}

// Generic addresses, and memory that is used otherwise when its object is gone.
KERNEL(inval_each) {
    ROWS(1, 3);
    __shared__ u64 objects[128];
    u64 *at = &objects[threadIdx.x];
    u64 state;
    u32 done;
    asm volatile("mbarrier.init.b64 [%0], %1;" ::"l"(at), "r"(1) : "memory");
    asm volatile("mbarrier.arrive.b64 %0, [%1];" : "=l"(state) : "l"(at) : "memory");
    asm volatile("{.reg .pred p;\nmbarrier.test_wait.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "l"(at), "l"(state)
                 : "memory");
    out[0] = done;
    asm volatile("mbarrier.inval.b64 [%0];" ::"l"(at) : "memory");
    *at = in[0];
    out[1] = *(volatile u64 *)at;
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(2) : "memory");
    out[2] = ended(shared_address(at), 1) << 1 | ended(shared_address(at), 0);
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(at)) : "memory");
}

// The first warp hands over buffers, three stages deep, which the others sum up; `full` and `empty` as pipelines have them.
KERNEL(pipeline) {
    ROWS(1, 1);
    __shared__ u64 full[3], empty[3], buffers[3][32];
    u32 t = threadIdx.x;
    if (t == 0) {
        for (int s = 0; s < 3; s++) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 32;" ::"r"(shared_address(&full[s])) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 96;" ::"r"(shared_address(&empty[s])) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    u64 sum = t < 32 ? 0 : in[0];
    for (u32 k = 0; k < 10; k++) {
        u32 s = k % 3, parity = k / 3 & 1, done = 0;
        u32 at = shared_address(t < 32 ? &empty[s] : &full[s]);
        while (!done)
            asm volatile("{.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;}"
                         : "=r"(done)
                         : "r"(at), "r"(t < 32 ? parity ^ 1 : parity)
                         : "memory");
        if (t < 32)
            buffers[s][t] = (in[0] >> k) + k;
        else
            sum += buffers[s][(t + k) & 31];
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(t < 32 ? &full[s] : &empty[s])) : "memory");
    }
    out[0] = sum;
}

// Copies that an object waits for: counted by the kernel (`.noinc`), or by the object itself.
#define COPIES(name, text, count)                                                                                      \
    KERNEL(name) {                                                                                                     \
        ROWS(2, 2);                                                                                                    \
        __shared__ u64 object;                                                                                         \
        __shared__ __align__(16) u64 words[128][2];                                                                    \
        u32 t = threadIdx.x, at = shared_address(&object), done = 0;                                                   \
        if (t == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");          \
        __syncthreads();                                                                                               \
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(&words[t][0])), "l"(in) : "memory"); \
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(&words[t][1])), "l"(in + 1) : "memory"); \
        asm volatile(text ::"r"(at) : "memory");                                                                       \
        if (count == 128) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");               \
        while (!done)                                                                                                  \
            asm volatile("{.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;}" \
                         : "=r"(done)                                                                                  \
                         : "r"(at)                                                                                     \
                         : "memory");                                                                                  \
        out[0] = words[(t + 65) & 127][0], out[1] = words[(t + 65) & 127][1];                                          \
    }
// With `.noinc` the count is that of the copying threads, and one more so that it differs from the other form's.
COPIES(copies, "cp.async.mbarrier.arrive.shared::cta.b64 [%0];", 128)
#define NOINC "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];"
COPIES(copies_noinc, NOINC "\n{.reg .pred q;\n.reg .b32 t;\nmov.u32 t, %%tid.x;\nsetp.eq.u32 q, t, 7;\n"
       "@q mbarrier.arrive.shared::cta.b64 _, [%0];}", 129)
