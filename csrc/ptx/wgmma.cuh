// `wgmma.mma_async`: products of a warpgroup's matrices on Hopper's tensor cores, with A in registers or in shared memory
// and B in shared memory (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
//
// D [64 x N] += A [64 x 16] B [16 x N]. Of D and A, warp w of the four has rows 16 w .. 16 w + 15, in the fragments of
// mma.cuh; D has four sums for each 8 columns. A product is in flight until its group has been waited for: nobody may
// touch its registers before.
#pragma once

#include <stdint.h>

// Registers that products are to read or to add to hold their numbers by then, before the fence: a compiler may compute
// them later, as it does not know that the fence is about registers.
__device__ inline void settle(uint32_t &x) { asm volatile("" : "+r"(x)); }
__device__ inline void settle(float &x) { asm volatile("" : "+f"(x)); }
template <typename T, int N>
__device__ inline void settle(T (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        settle(x[i]);
    }
}

// Orders what the thread's registers held before with the products that follow.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Makes a group of the products since the last group.
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the latest `Pending` groups are in flight.
template <int Pending>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// B of rows of 64 k for each column, or A of rows of its own, 128 bytes, in the 128-byte swizzle: eight rows are 1024 bytes, aligned to that,
// and the 16-byte units of row r are exchanged by `swizzled`. `address` is that within shared memory.
__device__ inline uint64_t swizzled_descriptor(uint32_t address) {
    constexpr uint64_t SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 1024 / 16;
    return SWIZZLE_128 | EIGHT_ROWS << 32 | 1ull << 16 | (address & 0x3FFFF) >> 4;
}

// Where byte `byte` of row `row` lies in that swizzle.
__device__ inline uint32_t swizzled(uint32_t row, uint32_t byte) { return 128 * row + (byte ^ row % 8 * 16); }

// What a descriptor grows by for the next 16 k, or for so many bytes, multiples of 16.
constexpr uint64_t DESCRIPTOR_STEP = 32 / 16;
__device__ constexpr uint64_t descriptor_bytes(uint32_t bytes) { return bytes / 16; }

#define WGMMA_SUMS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_SUMS_8 WGMMA_SUMS(0)
#define WGMMA_SUMS_16 WGMMA_SUMS_8, WGMMA_SUMS(4)
#define WGMMA_SUMS_32 WGMMA_SUMS_16, WGMMA_SUMS(8), WGMMA_SUMS(12)
#define WGMMA_SUMS_64 WGMMA_SUMS_32, WGMMA_SUMS(16), WGMMA_SUMS(20), WGMMA_SUMS(24), WGMMA_SUMS(28)
#define WGMMA_INPUTS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
#define WGMMA_SHARED_INPUTS "l"(a), "l"(b), "n"(TRANSPOSED ? 1 : 0)

// With its registers' numbers in the assembly: the sums, A (four registers, or a descriptor), and that of the descriptor of B.
#define WGMMA_D_8 "%0, %1, %2, %3"
#define WGMMA_D_16 WGMMA_D_8 ", %4, %5, %6, %7"
#define WGMMA_D_32 WGMMA_D_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_D_64                                                                                                  \
    WGMMA_D_32 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA(columns, type, sums, a, b, transpositions)                                                \
    "{.reg .pred p;\n setp.ne.u32 p, 1, 0;\n wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
    "." type " {" sums "}, " a ", " b ", p, 1, 1, " transpositions ";}"
#define WGMMA_8(type) WGMMA("8", type, WGMMA_D_8, "{%4, %5, %6, %7}", "%8", "0")
#define WGMMA_16(type) WGMMA("16", type, WGMMA_D_16, "{%8, %9, %10, %11}", "%12", "0")
#define WGMMA_32(type) WGMMA("32", type, WGMMA_D_32, "{%16, %17, %18, %19}", "%20", "0")
#define WGMMA_64(type) WGMMA("64", type, WGMMA_D_64, "{%32, %33, %34, %35}", "%36", "0")

// D += A B, of N_TILES times 8 columns; BF16: of bf16, otherwise of f16, whose subnormal numbers are not flushed to zero.
template <bool BF16, int N_TILES>
__device__ inline void wgmma(float (&d)[4 * N_TILES], const uint32_t (&a)[4], uint64_t b) {
    static_assert(N_TILES == 1 || N_TILES == 2 || N_TILES == 4 || N_TILES == 8,
                  "8, 16, 32 or 64 columns");
    if constexpr (N_TILES == 1 && BF16) {
        asm volatile(WGMMA_8("bf16") : WGMMA_SUMS_8 : WGMMA_INPUTS);
    } else if constexpr (N_TILES == 1) {
        asm volatile(WGMMA_8("f16") : WGMMA_SUMS_8 : WGMMA_INPUTS);
    } else if constexpr (N_TILES == 2 && BF16) {
        asm volatile(WGMMA_16("bf16") : WGMMA_SUMS_16 : WGMMA_INPUTS);
    } else if constexpr (N_TILES == 2) {
        asm volatile(WGMMA_16("f16") : WGMMA_SUMS_16 : WGMMA_INPUTS);
    } else if constexpr (N_TILES == 4 && BF16) {
        asm volatile(WGMMA_32("bf16") : WGMMA_SUMS_32 : WGMMA_INPUTS);
    } else if constexpr (N_TILES == 4) {
        asm volatile(WGMMA_32("f16") : WGMMA_SUMS_32 : WGMMA_INPUTS);
    } else if constexpr (BF16) {
        asm volatile(WGMMA_64("bf16") : WGMMA_SUMS_64 : WGMMA_INPUTS);
    } else {
        asm volatile(WGMMA_64("f16") : WGMMA_SUMS_64 : WGMMA_INPUTS);
    }
}

// The same of bf16 with A in shared memory, found by a descriptor too: of 64 rows with their k together, or TRANSPOSED of 16
// k with their 64 rows together, 128 bytes, which are then as swizzled_descriptor's rows of B.
template <bool TRANSPOSED, int N_TILES>
__device__ inline void wgmma_shared(float (&d)[4 * N_TILES], uint64_t a, uint64_t b) {
    static_assert(N_TILES == 1 || N_TILES == 2 || N_TILES == 4 || N_TILES == 8,
                  "8, 16, 32 or 64 columns");
    if constexpr (N_TILES == 1) {
        asm volatile(WGMMA("8", "bf16", WGMMA_D_8, "%4", "%5", "%6, 0") : WGMMA_SUMS_8 : WGMMA_SHARED_INPUTS);
    } else if constexpr (N_TILES == 2) {
        asm volatile(WGMMA("16", "bf16", WGMMA_D_16, "%8", "%9", "%10, 0") : WGMMA_SUMS_16 : WGMMA_SHARED_INPUTS);
    } else if constexpr (N_TILES == 4) {
        asm volatile(WGMMA("32", "bf16", WGMMA_D_32, "%16", "%17", "%18, 0") : WGMMA_SUMS_32 : WGMMA_SHARED_INPUTS);
    } else {
        asm volatile(WGMMA("64", "bf16", WGMMA_D_64, "%32", "%33", "%34, 0") : WGMMA_SUMS_64 : WGMMA_SHARED_INPUTS);
    }
}

#undef WGMMA_64
#undef WGMMA_32
#undef WGMMA_16
#undef WGMMA_8
#undef WGMMA
#undef WGMMA_D_64
#undef WGMMA_D_32
#undef WGMMA_D_16
#undef WGMMA_D_8
#undef WGMMA_SHARED_INPUTS
#undef WGMMA_INPUTS
#undef WGMMA_SUMS_64
#undef WGMMA_SUMS_32
#undef WGMMA_SUMS_16
#undef WGMMA_SUMS_8
#undef WGMMA_SUMS
