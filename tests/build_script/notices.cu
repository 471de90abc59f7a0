// Kernels that ptxas makes machine code of that is not what they ask for. What it says of each names the line that has
// the notice's number in a comment.

#include <stdint.h>

#ifdef NOTICES

// The registers at entry are not bounded, so that nothing can be given or taken.
extern "C" __global__ void __launch_bounds__(256) gives_registers(uint32_t *to) {
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); // C7508
        to[0] = threadIdx.x;
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        to[1] = threadIdx.x;
    }
}

__device__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int LEFT>
__device__ void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

__device__ void multiply(float (&d)[4], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(a), "l"(b));
}

// Changes an operand in registers while products read it.
extern "C" __global__ void __launch_bounds__(128, 1) writes_operand(float *to, uint64_t b, int n) { // C7513
    float d[4] = {};
    uint32_t a = threadIdx.x;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
        begin();
        asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %4, %4, %4}, %5, "
                     "1, 1, 1, 0;"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a), "l"(b + k));
        commit();
        asm volatile("add.u32 %0, %0, 7;" : "+r"(a));
    }
    wait<0>();
    to[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}

// Reads the second product when only the first is waited for.
extern "C" __global__ void __launch_bounds__(128, 1) reads_early(float *to, uint64_t a, uint64_t b) { // C7514
    float d[4] = {}, e[4] = {};
    begin();
    multiply(d, a, b);
    commit();
    begin();
    multiply(e, a + 2, b);
    commit();
    wait<1>();
    to[threadIdx.x] = e[0];
    wait<0>();
    to[threadIdx.x + 128] = d[0];
}

extern "C" __global__ void __launch_bounds__(128, 1) does_not_wait(float *to, uint64_t a, uint64_t b) {
    float d[4] = {};
    begin();
    multiply(d, a, b);
    commit();
    to[threadIdx.x] = d[0]; // C7517
}

#endif
#ifdef SPILLS

// 64 sums of a thread, all alive together, in 16 blocks of 256 threads: 16 registers.
extern "C" __global__ void __launch_bounds__(256, 8) spills(const float *from, float *to) {
    float sums[64] = {};
    for (int i = 0; i < 1000; ++i) {
#pragma unroll
        for (int j = 0; j < 64; ++j) {
            sums[j] = sums[j] * from[i] + from[i + j];
        }
    }
#pragma unroll
    for (int j = 0; j < 64; ++j) {
        to[threadIdx.x + 256 * j] = sums[j];
    }
}

#endif
#ifdef LOCAL_MEMORY

extern "C" __global__ void __launch_bounds__(256) indexes(const unsigned *from, unsigned *to) {
    unsigned numbers[16];
    for (unsigned i = 0; i < 16; ++i) {
        numbers[from[i] % 16] = threadIdx.x + i;
    }
    to[threadIdx.x] = numbers[from[16] % 16];
}

#endif
