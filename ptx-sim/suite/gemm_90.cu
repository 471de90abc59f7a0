// A warp-specialised product of bf16 matrices, D = A B^T with sums in f32: the parts of Hopper together (PTX ISA 9.7.9.25.5,
// 9.7.13.15, 9.7.15, 9.7.19.5).
// nvcc -ptx -arch=compute_90a -o ptx/gemm_90.ptx gemm_90.cu
//
// A is [M][K] and B [N][K], both of rows of K; D is [M][N]. A block makes a tile of 128 x 128. Its warpgroup 0 has one
// thread that loads: tensor copies into a ring of four stages of 64 columns, with the 128-byte swizzle. Its warpgroups 1
// and 2 multiply 64 rows each, by wgmma on descriptors. Two blocks of a cluster have the same rows of B: each loads half
// of them for both. An object `full` of each stage counts the bytes; `empty` the warps, of both blocks, that have read
// the stage. The result goes through shared memory to global memory by a tensor copy.
#include <cuda.h>

#include "suite.h"

#define M 256
#define N 256
#define K 512
#define TILE 128
#define STEP 64
#define STAGES 4
// Bytes of 64 rows of 64 columns, the unit of which tiles are made.
#define UNIT 8192

struct Maps {
    CUtensorMap a, b, d;
};

struct Memory {
    // [stage][rows of A, rows of B]
    char stage[STAGES][4][UNIT];
    // [warpgroup][half of the columns]
    char result[2][2][UNIT];
    u64 full[STAGES], empty[STAGES];
};

__device__ __forceinline__ void wait(u32 bar, u32 parity) {
    asm volatile(
        "{.reg .pred p;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@!p bra again;}" ::"r"(bar), "r"(parity) : "memory");
}

// Arrives at an object of a block of the cluster.
__device__ __forceinline__ void arrive(u32 bar, u32 rank) {
    asm volatile(
        "{.reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];}" ::"r"(bar), "r"(rank) : "memory");
}

// Loads 64 columns of 128 rows of A, and of 64 rows of B for both blocks.
__device__ __forceinline__ void load(const Maps &maps, u32 stage, u32 bar, u32 rank, int column, int row_a, int row_b) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(4 * UNIT) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(stage), "l"(&maps.a), "r"(bar), "r"(column), "r"(row_a) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%3, %4}], [%2], %5;"
                 ::"r"(stage + (2 + rank) * UNIT), "l"(&maps.b), "r"(bar), "r"(column), "r"(row_b + 64 * rank), "h"((u16)3)
                 : "memory");
}

// A matrix of rows of 128 bytes, swizzled in groups of 8 rows that lie 1024 bytes apart.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)(address >> 4 & 0x3FFF) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// d = a b^T, plus d if `more`.
__device__ __forceinline__ void multiply(float (&d)[64], u64 a, u64 b, u32 more) {
    asm volatile(
        "{.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p, 1, 1, 0, 0;}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b), "r"(more));
}

__device__ __forceinline__ void consume(const Maps &maps, Memory &memory, u32 group, int row, int column) {
    float d[64];
    u32 lane = threadIdx.x % 32;
    for (int i = 0; i < K / STEP; i++) {
        u32 stage = i % STAGES;
        wait(shared_address(&memory.full[stage]), i / STAGES & 1);
        u32 a = shared_address(memory.stage[stage][group]), b = shared_address(memory.stage[stage][2]);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int k = 0; k < STEP / 16; k++) multiply(d, descriptor(a + 32 * k), descriptor(b + 32 * k), i + k);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        // The stage before this one has been read.
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (i > 0 && lane < 2) arrive(shared_address(&memory.empty[(i - 1) % STAGES]), lane);
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");

    // Two columns of a row side by side, 8 x 8 matrices, four of them at once: 16 rows of 16 columns.
    u32 own = threadIdx.x % 128 / 32 * 16 + lane % 16;
    for (int j = 0; j < 16; j += 2) {
        u32 pair[4];
        for (int k = 0; k < 4; k++)
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair[k]) : "f"(d[4 * j + 2 * k + 1]), "f"(d[4 * j + 2 * k]));
        u32 chunk = j + lane / 16;
        u32 at = shared_address(memory.result[group][chunk / 8]) + own * 128 + (chunk % 8 ^ own % 8) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     ::"r"(at), "r"(pair[0]), "r"(pair[1]), "r"(pair[2]), "r"(pair[3]) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;\nbar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (threadIdx.x % 128 == 0) {
        for (int half = 0; half < 2; half++)
            asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
                         ::"l"(&maps.d), "r"(shared_address(memory.result[group][half])), "r"(column + 64 * half),
                           "r"(row + 64 * (int)group) : "memory");
        asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
    }
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    gemm(const u64 *, u64 *, int, const __grid_constant__ Maps maps) {
    extern __shared__ __align__(1024) char dynamic[];
    Memory &memory = *(Memory *)dynamic;
    u32 rank = blockIdx.x % 2;
    int row = blockIdx.x % (M / TILE) * TILE, column = blockIdx.x / (M / TILE) * TILE;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&memory.full[stage])) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 16;" ::"r"(shared_address(&memory.empty[stage])) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0)
            for (int i = 0; i < K / STEP; i++) {
                u32 stage = i % STAGES;
                // The ring begins empty: the first waits are for the phase before the first one.
                wait(shared_address(&memory.empty[stage]), (i / STAGES & 1) ^ 1);
                load(maps, shared_address(memory.stage[stage]), shared_address(&memory.full[stage]), rank, i * STEP, row, column);
            }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume(maps, memory, threadIdx.x / 128 - 1, row, column);
        __syncwarp();
    }
    // Nobody reaches for the memory of a block that has exited.
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
