// wgmma.mma_async of every type, and many shapes (PTX ISA 9.7.15). A name is that of the shape and the types, and says
// where A comes from (s: shared memory, r: registers), what is MN-major (ta, tb) and what is negated (na, nb).
// nvcc -ptx -arch=compute_90a -o ptx/wgmma_90.ptx wgmma_90.cu
#include "suite.h"
#include "wgmma.h"

// 16-bit elements: two negations and what is MN-major.
#define HALF_S(n, g, e, d, t, suffix, choices)                                                                 \
    PRODUCT(wgmma_n##n##_##d##_##t##_s##suffix, "m64n" #n "k16." #d "." #t "." #t, g, e, BY_DESCRIPTOR, choices)
#define HALF_R(n, g, e, d, t, suffix, choices)                                                                 \
    PRODUCT(wgmma_n##n##_##d##_##t##_r##suffix, "m64n" #n "k16." #d "." #t "." #t, g, e, IN_REGISTERS, choices)
// 32-bit and 8-bit elements.
#define OTHER_S(n, k, g, e, d, a, b, suffix, choices)                                                                     \
    PRODUCT(wgmma_n##n##_##d##_##a##_##b##_s##suffix, "m64n" #n "k" #k "." #d "." #a "." #b, g, e, BY_DESCRIPTOR, choices)
#define OTHER_R(n, k, g, e, d, a, b, suffix, choices)                                                                     \
    PRODUCT(wgmma_n##n##_##d##_##a##_##b##_r##suffix, "m64n" #n "k" #k "." #d "." #a "." #b, g, e, IN_REGISTERS, choices)
#define SATURATED_S(n, g, a, b)                                                                                   \
    PRODUCT(wgmma_n##n##_satfinite_##a##_##b##_s, "m64n" #n "k32.s32." #a "." #b ".satfinite", g, 4, BY_DESCRIPTOR, "")
#define SATURATED_R(n, g, a, b)                                                                                   \
    PRODUCT(wgmma_n##n##_satfinite_##a##_##b##_r, "m64n" #n "k32.s32." #a "." #b ".satfinite", g, 4, IN_REGISTERS, "")

HALF_S(8, 1, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(16, 2, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(24, 3, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(32, 4, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(40, 5, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(64, 8, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(72, 9, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(128, 16, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(136, 17, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(192, 24, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(248, 31, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_S(256, 32, 4, f32, f16, , ", 1, 1, 0, 0")
HALF_R(8, 1, 4, f32, f16, , ", 1, 1, 0")
HALF_R(16, 2, 4, f32, f16, , ", 1, 1, 0")
HALF_R(32, 4, 4, f32, f16, , ", 1, 1, 0")
HALF_R(64, 8, 4, f32, f16, , ", 1, 1, 0")
HALF_R(128, 16, 4, f32, f16, , ", 1, 1, 0")
HALF_R(256, 32, 4, f32, f16, , ", 1, 1, 0")
HALF_S(8, 1, 4, f32, f16, _ta, ", 1, 1, 1, 0")
HALF_S(8, 1, 4, f32, f16, _tb, ", 1, 1, 0, 1")
HALF_S(8, 1, 4, f32, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_S(16, 2, 4, f32, f16, _ta, ", 1, 1, 1, 0")
HALF_S(16, 2, 4, f32, f16, _tb, ", 1, 1, 0, 1")
HALF_S(16, 2, 4, f32, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_S(64, 8, 4, f32, f16, _ta, ", 1, 1, 1, 0")
HALF_S(64, 8, 4, f32, f16, _tb, ", 1, 1, 0, 1")
HALF_S(64, 8, 4, f32, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_S(96, 12, 4, f32, f16, _ta, ", 1, 1, 1, 0")
HALF_S(96, 12, 4, f32, f16, _tb, ", 1, 1, 0, 1")
HALF_S(96, 12, 4, f32, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_S(256, 32, 4, f32, f16, _ta, ", 1, 1, 1, 0")
HALF_S(256, 32, 4, f32, f16, _tb, ", 1, 1, 0, 1")
HALF_S(256, 32, 4, f32, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_R(64, 8, 4, f32, f16, _tb, ", 1, 1, 1")
HALF_S(16, 2, 4, f32, f16, _na, ", -1, 1, 0, 0")
HALF_S(16, 2, 4, f32, f16, _nb, ", 1, -1, 0, 0")
HALF_S(16, 2, 4, f32, f16, _na_nb, ", -1, -1, 0, 0")
HALF_R(8, 1, 4, f32, f16, _na, ", -1, 1, 0")
HALF_S(8, 1, 2, f16, f16, , ", 1, 1, 0, 0")
HALF_S(56, 7, 2, f16, f16, , ", 1, 1, 0, 0")
HALF_S(256, 32, 2, f16, f16, , ", 1, 1, 0, 0")
HALF_R(32, 4, 2, f16, f16, , ", 1, 1, 0")
HALF_S(64, 8, 2, f16, f16, _ta_tb, ", 1, 1, 1, 1")
HALF_R(16, 2, 2, f16, f16, _tb_nb, ", 1, -1, 1")
HALF_S(8, 1, 4, f32, bf16, , ", 1, 1, 0, 0")
HALF_S(24, 3, 4, f32, bf16, , ", 1, 1, 0, 0")
HALF_S(128, 16, 4, f32, bf16, , ", 1, 1, 0, 0")
HALF_S(256, 32, 4, f32, bf16, , ", 1, 1, 0, 0")
HALF_R(64, 8, 4, f32, bf16, , ", 1, 1, 0")
HALF_S(120, 15, 4, f32, bf16, _ta_tb_na, ", -1, 1, 1, 1")
OTHER_S(8, 8, 1, 4, f32, tf32, tf32, , ", 1, 1")
OTHER_S(40, 8, 5, 4, f32, tf32, tf32, , ", 1, 1")
OTHER_S(256, 8, 32, 4, f32, tf32, tf32, , ", 1, 1")
OTHER_R(32, 8, 4, 4, f32, tf32, tf32, , ", 1, 1")
OTHER_S(16, 8, 2, 4, f32, tf32, tf32, _na, ", -1, 1")
OTHER_S(8, 32, 1, 4, f32, e4m3, e4m3, , ", 1, 1")
OTHER_S(104, 32, 13, 4, f32, e4m3, e4m3, , ", 1, 1")
OTHER_S(256, 32, 32, 4, f32, e4m3, e4m3, , ", 1, 1")
OTHER_R(64, 32, 8, 4, f32, e5m2, e4m3, , ", 1, 1")
OTHER_S(48, 32, 6, 4, f32, e4m3, e5m2, _nb, ", 1, -1")
OTHER_R(32, 32, 4, 4, f32, e5m2, e5m2, , ", 1, 1")
OTHER_S(8, 32, 1, 2, f16, e4m3, e4m3, , ", 1, 1")
OTHER_R(16, 32, 2, 2, f16, e4m3, e5m2, , ", 1, 1")
OTHER_S(80, 32, 10, 2, f16, e5m2, e4m3, , ", 1, 1")
OTHER_S(256, 32, 32, 2, f16, e5m2, e5m2, , ", 1, 1")
OTHER_S(8, 32, 1, 4, s32, s8, s8, , "")
OTHER_S(16, 32, 2, 4, s32, s8, s8, , "")
OTHER_S(24, 32, 3, 4, s32, s8, s8, , "")
OTHER_S(32, 32, 4, 4, s32, s8, s8, , "")
OTHER_S(48, 32, 6, 4, s32, s8, s8, , "")
OTHER_S(224, 32, 28, 4, s32, s8, s8, , "")
OTHER_S(240, 32, 30, 4, s32, s8, s8, , "")
OTHER_S(256, 32, 32, 4, s32, s8, s8, , "")
OTHER_S(64, 32, 8, 4, s32, u8, u8, , "")
OTHER_R(96, 32, 12, 4, s32, s8, u8, , "")
OTHER_S(16, 32, 2, 4, s32, u8, s8, , "")
OTHER_R(32, 32, 4, 4, s32, s8, s8, , "")
OTHER_R(8, 32, 1, 4, s32, u8, u8, , "")
SATURATED_S(32, 4, s8, s8)
SATURATED_S(64, 8, u8, u8)
SATURATED_R(8, 1, s8, u8)
SATURATED_R(112, 14, u8, s8)

// Patterns that begin at other places than the swizzle's, as the base offset says.
PRODUCT(wgmma_base_offset, "m64n32k16.f32.f16.f16", 4, 4, BY_DESCRIPTOR, ", 1, 1, 0, 0")

// 64 values of k in two groups: the second begins before the first has ended, with the same accumulators and no fence.
#define STEP(k)                                                                                                   \
    "add.s64 a, %2, " #k ";\nadd.s64 b, %3, " #k ";\n"                                                            \
    "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " D(8, 4) ", a, b, s, 1, 1, 0, 0;\nsetp.eq.b32 s, 0, 0;\n"
WARPGROUP(wgmma_chain, 8, 4,
          ".reg .b64 a, b;\n" STEP(0) STEP(2) "wgmma.commit_group.sync.aligned;\n" STEP(4) STEP(6)
          "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 1;\nwgmma.wait_group.sync.aligned 0;\n")
