// The special function unit, extrema that keep NaN, and special registers (PTX ISA, "Floating Point Instructions", "Special
// Registers").
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

// The smaller and the larger of two numbers; NaN if one of them is.
__device__ inline float minimum_or_nan(float a, float b) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
__device__ inline float maximum_or_nan(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
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

// blockIdx.y, as an opaque value.
__device__ inline unsigned block_y() {
    unsigned y;
    asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(y));
    return y;
}

// The logarithm of x to base 2, within 2^-22 or so; x is no subnormal number.
__device__ inline float log2_approximate(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
