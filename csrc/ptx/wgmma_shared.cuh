// `wgmma.mma_async` with A and B in shared memory, 256 columns wide (PTX ISA, "Asynchronous Warpgroup Level Matrix
// Multiply-Accumulate Instructions"); fences, groups and descriptors are in wgmma.cuh.
#pragma once

#include <stdint.h>

#include "wgmma.cuh"

// D = A B, or D += A B if `adds`: D [64 x 256] in f32, A [64 x 16] and B [16 x 256] in bf16. Rows of A and columns of B
// lie as `swizzled_descriptor` says. Of D, warp w of the four has rows 16 w .. 16 w + 15; of columns 8 j + 2 t and the
// next, lane 4 g + t has d[4 j] and d[4 j + 1] in row g, d[4 j + 2] and d[4 j + 3] in row g + 8.
__device__ inline void wgmma_256(float (&d)[128], uint64_t a, uint64_t b, bool adds) {
#define SUMS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS_32(i) \
    SUMS(i), SUMS(i + 4), SUMS(i + 8), SUMS(i + 12), SUMS(i + 16), SUMS(i + 20), SUMS(i + 24), SUMS(i + 28)
    asm volatile(
        "{.reg .pred p;\n setp.ne.u32 p, %130, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
        "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, "
        "%68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, "
        "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
        "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, 0, 0;}"
        : SUMS_32(0), SUMS_32(32), SUMS_32(64), SUMS_32(96)
        : "l"(a), "l"(b), "r"(static_cast<unsigned>(adds)));
#undef SUMS_32
#undef SUMS
}
