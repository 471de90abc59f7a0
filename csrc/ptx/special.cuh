// The special function unit and special registers (PTX ISA, "Floating Point Instructions", "Special Registers").
#pragma once

// 2^x within 2 units in the last place; 0 for minus infinity.
__device__ inline float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x, of which the compiler does not know that it is what it was before, as of thread_index().
__device__ inline unsigned anew(unsigned x) {
    asm volatile("" : "+r"(x));
    return x;
}

// threadIdx.x, read anew: what is computed from it is not kept in registers from one use to the next.
__device__ inline unsigned thread_index() {
    unsigned x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}
