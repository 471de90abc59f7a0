// What the suite's kernels share. Every kernel is `NAME(const u64 *in, u64 *out, int n)`: thread i takes row i of `in`
// and writes row i of `out`, one value per 64-bit word, zero-extended. Registers are untyped to PTX, so floats travel as
// bits. A kernel of one form is named after its instruction, with `_` for dots and colons.
#pragma once

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

// The types of the constraint letters of inline PTX: h, r, l are registers of 16, 32, 64 bits.
#define T_h u16
#define T_r u32
#define T_l u64

static __device__ __forceinline__ u32 shared_address(const void *at) { return (u32)__cvta_generic_to_shared(at); }

#define KERNEL(name) extern "C" __global__ void name(const u64 *in, u64 *out, int n)
// Goes to the thread's rows, of `from` and `to` words.
#define ROWS(from, to)                           \
    int i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= n) return;                          \
    in += i * from;                              \
    out += i * to

#define ARG(W, k) #W((T_##W)in[k])

// `text d, a...;` with registers of the given widths.
#define FORM1(name, text, D, A)                                   \
    KERNEL(name) {                                                \
        ROWS(1, 1);                                               \
        T_##D d;                                                  \
        asm volatile(text " %0, %1;" : "=" #D(d) : ARG(A, 0));    \
        out[0] = d;                                               \
    }
#define FORM2(name, text, D, A, B)                                             \
    KERNEL(name) {                                                             \
        ROWS(2, 1);                                                            \
        T_##D d;                                                               \
        asm volatile(text " %0, %1, %2;" : "=" #D(d) : ARG(A, 0), ARG(B, 1));  \
        out[0] = d;                                                            \
    }
#define FORM3(name, text, D, A, B, C)                                                              \
    KERNEL(name) {                                                                                 \
        ROWS(3, 1);                                                                                \
        T_##D d;                                                                                   \
        asm volatile(text " %0, %1, %2, %3;" : "=" #D(d) : ARG(A, 0), ARG(B, 1), ARG(C, 2));       \
        out[0] = d;                                                                                \
    }
#define FORM4(name, text, D, A, B, C, E)                                                                     \
    KERNEL(name) {                                                                                           \
        ROWS(4, 1);                                                                                          \
        T_##D d;                                                                                             \
        asm volatile(text " %0, %1, %2, %3, %4;" : "=" #D(d) : ARG(A, 0), ARG(B, 1), ARG(C, 2), ARG(E, 3));  \
        out[0] = d;                                                                                          \
    }
// `text p, a...;` with a predicate as result.
#define TEST1(name, text, A)                                                                                        \
    KERNEL(name) {                                                                                                  \
        ROWS(1, 1);                                                                                                 \
        u32 d;                                                                                                      \
        asm volatile("{.reg .pred p;\n" text " p, %1;\nselp.b32 %0, 1, 0, p;}" : "=r"(d) : ARG(A, 0));               \
        out[0] = d;                                                                                                 \
    }
#define TEST2(name, text, A)                                                                                        \
    KERNEL(name) {                                                                                                  \
        ROWS(2, 1);                                                                                                 \
        u32 d;                                                                                                      \
        asm volatile("{.reg .pred p;\n" text " p, %1, %2;\nselp.b32 %0, 1, 0, p;}" : "=r"(d) : ARG(A, 0), ARG(A, 1)); \
        out[0] = d;                                                                                                 \
    }
