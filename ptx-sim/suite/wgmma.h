// Kernels of one wgmma: a block is one warpgroup. Words of a row: the descriptors of A and B without the place of the
// block's shared memory, scale-d, four registers of A, the accumulators, and the thread's part of what the block has in
// shared memory, a word of every 128.
#pragma once

#define WORDS 7
// Words of shared memory of each thread: 44 KiB of the block.
#define IMAGE 44

// The groups of accumulators that eight columns have, by macros F of their numbers, with S between.
#define G1(F, S) F("0")
#define G2(F, S) G1(F, S) S F("1")
#define G3(F, S) G2(F, S) S F("2")
#define G4(F, S) G3(F, S) S F("3")
#define G5(F, S) G4(F, S) S F("4")
#define G6(F, S) G5(F, S) S F("5")
#define G7(F, S) G6(F, S) S F("6")
#define G8(F, S) G7(F, S) S F("7")
#define G9(F, S) G8(F, S) S F("8")
#define G10(F, S) G9(F, S) S F("9")
#define G11(F, S) G10(F, S) S F("10")
#define G12(F, S) G11(F, S) S F("11")
#define G13(F, S) G12(F, S) S F("12")
#define G14(F, S) G13(F, S) S F("13")
#define G15(F, S) G14(F, S) S F("14")
#define G16(F, S) G15(F, S) S F("15")
#define G17(F, S) G16(F, S) S F("16")
#define G18(F, S) G17(F, S) S F("17")
#define G19(F, S) G18(F, S) S F("18")
#define G20(F, S) G19(F, S) S F("19")
#define G21(F, S) G20(F, S) S F("20")
#define G22(F, S) G21(F, S) S F("21")
#define G23(F, S) G22(F, S) S F("22")
#define G24(F, S) G23(F, S) S F("23")
#define G25(F, S) G24(F, S) S F("24")
#define G26(F, S) G25(F, S) S F("25")
#define G27(F, S) G26(F, S) S F("26")
#define G28(F, S) G27(F, S) S F("27")
#define G29(F, S) G28(F, S) S F("28")
#define G30(F, S) G29(F, S) S F("29")
#define G31(F, S) G30(F, S) S F("30")
#define G32(F, S) G31(F, S) S F("31")

// Four registers of 32 bits each.
#define DECLARE4(g) ".reg .b32 d" g "_<4>;\n"
#define NAME4(g) "d" g "_0, d" g "_1, d" g "_2, d" g "_3"
#define LOAD4(g)                                                                                                  \
    "ld.global.b32 d" g "_0, [%0];\nld.global.b32 d" g "_1, [%0+8];\nld.global.b32 d" g "_2, [%0+16];\n"         \
    "ld.global.b32 d" g "_3, [%0+24];\nadd.s64 %0, %0, 32;\n"
#define STORE4(g)                                                                                                 \
    "st.global.b32 [%1], d" g "_0;\nst.global.b32 [%1+8], d" g "_1;\nst.global.b32 [%1+16], d" g "_2;\n"         \
    "st.global.b32 [%1+24], d" g "_3;\nadd.s64 %1, %1, 32;\n"
// Two registers of two accumulators of 16 bits.
#define DECLARE2(g) ".reg .b32 d" g "_<2>;\n"
#define NAME2(g) "d" g "_0, d" g "_1"
#define LOAD2(g) "ld.global.b32 d" g "_0, [%0];\nld.global.b32 d" g "_1, [%0+8];\nadd.s64 %0, %0, 16;\n"
#define STORE2(g) "st.global.b32 [%1], d" g "_0;\nst.global.b32 [%1+8], d" g "_1;\nadd.s64 %1, %1, 16;\n"

#define IN_REGISTERS "{%5, %6, %7, %8}"
#define BY_DESCRIPTOR "%2"

// What is to happen with the accumulators `d` that `groups` groups of `each` registers are: `body`, with the operands
// of the comment above as %2 to %8.
#define WARPGROUP(name, groups, each, body)                                                                       \
    KERNEL(name) {                                                                                                \
        __shared__ __align__(1024) u64 image[128 * IMAGE];                                                        \
        ROWS((WORDS + IMAGE + groups * each), (groups * each));                                                   \
        const u64 *mine = in + WORDS + groups * each;                                                             \
        _Pragma("unroll 1") for (int k = 0; k < IMAGE; ++k) image[128 * k + threadIdx.x] = mine[k];               \
        asm volatile("fence.proxy.async;" ::: "memory");                                                          \
        __syncthreads();                                                                                          \
        const u64 place = (u32)__cvta_generic_to_shared(image) >> 4;                                              \
        const u64 *from = in + WORDS;                                                                             \
        asm volatile("{.reg .pred s;\nsetp.ne.b32 s, %4, 0;\n" G##groups(DECLARE##each, ) G##groups(LOAD##each, ) \
                     "wgmma.fence.sync.aligned;\n" body G##groups(STORE##each, ) "}"                              \
                     : "+l"(from), "+l"(out)                                                                      \
                     : "l"(in[0] + place), "l"(in[1] + place), "r"((u32)in[2]), "r"((u32)in[3]), "r"((u32)in[4]), \
                       "r"((u32)in[5]), "r"((u32)in[6])                                                           \
                     : "memory");                                                                                 \
    }
#define DONE "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
#define D(groups, each) "{" G##groups(NAME##each, ", ") "}"
#define PRODUCT(name, text, groups, each, a, choices)                                                             \
    WARPGROUP(name, groups, each,                                                                                 \
              "wgmma.mma_async.sync.aligned." text " " D(groups, each) ", " a ", %3, s" choices ";\n" DONE)
