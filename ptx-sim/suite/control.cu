// Branches, calls, parameters by value, local memory, and an online softmax (PTX ISA 9.7.12, 7.1).
// nvcc -ptx -arch=compute_80 -o ptx/control.ptx control.cu
#include <cstdio>
#include "suite.h"

// Steps of the Collatz sequence, at most 100: lanes leave the loop one after the other.
KERNEL(divergent_loop) {
    ROWS(1, 1);
    u64 x = in[0] & 0xFFFF, steps = 0;
    while (x > 1 && steps < 100) {
        if (x & 1)
            x = 3 * x + 1;
        else
            x /= 2;
        steps++;
    }
    out[0] = steps;
}
KERNEL(jump_table) {
    ROWS(1, 1);
    u32 x = (u32)in[0], d;
    asm volatile("{\n.reg .b32 i;\nand.b32 i, %1, 3;\nTABLE: .branchtargets A0, A1, A2, A3;\nbrx.idx i, TABLE;\n"
                 "A0: mov.u32 %0, 100;\nbra.uni END;\nA1: add.u32 %0, %1, 1;\nbra END;\nA2: not.b32 %0, %1;\nbra END;\n"
                 "A3: mul.lo.u32 %0, %1, 3;\nEND:\n}" : "=r"(d) : "r"(x));
    out[0] = d;
}
KERNEL(early_exit) {
    ROWS(1, 1);
    if (in[0] & 1) asm volatile("exit;");
    asm volatile("{.reg .pred p;\nsetp.eq.u32 p, %0, 2;\n@p exit;}" ::"r"((u32)in[0] & 3));
    out[0] = in[0] + 1;
}

__device__ __noinline__ u32 twice(u32 x) { return 2 * x; }
__device__ __noinline__ u32 square(u32 x) { return x * x; }
__device__ __noinline__ u32 invert(u32 x) { return ~x; }
typedef u32 (*Function)(u32);
__device__ Function functions[3] = {twice, square, invert};
KERNEL(function_pointers) {
    ROWS(1, 2);
    out[0] = twice((u32)in[0]);
    out[1] = functions[in[0] % 3]((u32)in[0]);
}
__device__ __noinline__ u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
KERNEL(recursion) {
    ROWS(1, 1);
    out[0] = fibonacci((u32)in[0] % 12);
}

struct Mixed {
    char tag;
    double weight;
    short list[3];
    u32 word;
};
struct __align__(16) Wide {
    u32 a[5];
    Mixed inner;
};
__device__ __noinline__ Wide change(Mixed m, Wide w, int k) {
    w.a[k] += m.word;
    w.inner = m;
    w.inner.list[k % 3] = (short)(m.list[0] + k);
    return w;
}
extern "C" __global__ void structs_by_value(const u64 *in, u64 *out, int n, Mixed m, Wide w) {
    ROWS(1, 6);
    m.word ^= (u32)in[0];
    w = change(m, w, (int)(in[0] % 5));
    u64 sum = 0;
    for (int k = 0; k < 5; k++) sum = sum * 7 + w.a[k];
    out[0] = sum;
    out[1] = (unsigned char)w.inner.tag;
    out[2] = __double_as_longlong(w.inner.weight);
    out[3] = (u16)w.inner.list[in[0] % 3];
    out[4] = w.inner.word;
    out[5] = sizeof(Mixed) << 8 | sizeof(Wide);
}

// More values alive than there are registers: a permutation by two stages.
KERNEL(many_values) {
    ROWS(4, 1);
    u64 v[96];
#pragma unroll
    for (int k = 0; k < 96; k++) v[k] = in[k & 3] * (k + 1) ^ (in[(k + 1) & 3] >> (k & 31));
#pragma unroll
    for (int k = 0; k < 96; k++) v[k] += v[(k * 37 + 11) % 96];
    u64 d = 0;
#pragma unroll
    for (int k = 0; k < 96; k++) d = d * 3 + v[(k * 29 + 5) % 96];
    out[0] = d;
}

// Softmax of 8 rows of f32 per thread, 256 per warp, in one pass: maximum and sum are merged between lanes.
__device__ float ex2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
KERNEL(softmax) {
    ROWS(8, 8);
    const float log2e = 1.4426950408889634f;
    float most = -__int_as_float(0x7f800000), sum = 0;
    for (int k = 0; k < 8; k++) {
        float x = __uint_as_float((u32)in[k]) * log2e, next = fmaxf(most, x);
        sum = sum * ex2(most - next) + ex2(x - next);
        most = next;
    }
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(~0u, most, step), part = __shfl_xor_sync(~0u, sum, step);
        float next = fmaxf(most, other);
        sum = sum * ex2(most - next) + part * ex2(other - next);
        most = next;
    }
    for (int k = 0; k < 8; k++) out[k] = __float_as_uint(ex2(__uint_as_float((u32)in[k]) * log2e - most) / sum);
}

KERNEL(pause) {
    ROWS(1, 1);
    asm volatile("nanosleep.u32 20;");
    out[0] = in[0];
}
KERNEL(print) {
    ROWS(1, 1);
    if (i == 1) printf("%d %5.2f %s|%x|%c|%llu\n", -(int)in[0], 0.125 * in[0], "text", (u32)in[0], 'c', in[0] << 40);
    out[0] = in[0];
}
KERNEL(trap) {
    ROWS(1, 1);
    if (in[0] == 7) asm volatile("trap;");
    out[0] = in[0];
}
KERNEL(brkpt) {
    ROWS(1, 1);
    if (in[0] == 7) asm volatile("brkpt;");
    out[0] = in[0];
}
