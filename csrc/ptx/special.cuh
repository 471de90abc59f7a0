// The special function unit and special registers (PTX ISA, "Floating Point Instructions", "Special Registers").
#pragma once

// 2^x within 2 units in the last place; 0 for minus infinity.
__device__ inline float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x within 1 unit in the last place; neither is a subnormal number.
__device__ inline float reciprocal_approximate(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x, as a value that the compiler must not trace: it does not know that this is what x was before. What is computed from
// it is computed where it is used, instead of being kept in a register from one use to the next.
__device__ inline unsigned opaque(unsigned x) {
    asm volatile("" : "+r"(x));
    return x;
}

// threadIdx.x, as an opaque value.
__device__ inline unsigned thread_index() {
    unsigned x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}

// The logarithm of x to base 2, within 2^-22 or so; x is no subnormal number.
__device__ inline float log2_approximate(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
