// Questions that only a Hopper GPU answers: what the ISA leaves open of wgmma's sums, and rates. Every kernel is
// `NAME(const u64 *in, u64 *out, int n, u32 rounds)`, `n` the number of threads; `tests/suite/questions.rs` says what
// goes in and what comes out, and runs them. On the simulator they only have to run without a finding.
#include "../cluster.h"

#define QUESTION(name) extern "C" __global__ void name(const u64 *in, u64 *out, int n, u32 rounds)

namespace {

__device__ u64 clock_cycles() {
    u64 cycles;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles)::"memory");
    return cycles;
}

__device__ u64 nanoseconds() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    return time;
}

// Ordinary stores before it reach wgmma behind it, those of all threads of the block.
__device__ void publish() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}

__device__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Has a register written here: what the compiler writes behind a `wgmma.fence` must not be an accumulator (PTX ISA
// 9.7.15.7.1).
__device__ void pin(float &accumulator) { asm volatile("" : "+f"(accumulator)); }
__device__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT>
__device__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// A descriptor without swizzle of a K-major tile of 8 rows: core matrices of 8 rows of 16 bytes, 128 bytes apart.
__device__ u64 plain_descriptor(const void *tile) {
    return (u64)((shared_address(tile) & 0x3FFFF) >> 4) | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
}

// A descriptor with a swizzle of 128 bytes of a K-major tile: rows of 128 bytes, 8 of them a pattern of 1024 bytes.
__device__ u64 swizzled_descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | 1ull << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

}  // namespace

// One product of 64 x 8 and k elements of `type`, of `bytes` each, 32 / bytes of them: in row b of `in`, which block b
// takes, stand 4 words of A's elements, which all rows of A share, 4 words of B's, which all columns share, and the
// accumulator's f32. Its result is word b of `out`.
#define SUM(name, instruction, immediates)                                                                             \
    QUESTION(name) {                                                                                                   \
        __shared__ __align__(128) unsigned char tile[256];                                                             \
        const unsigned char *row = (const unsigned char *)(in + 9 * blockIdx.x);                                       \
        for (u32 i = threadIdx.x; i < 256; i += blockDim.x) {                                                          \
            tile[i] = row[32 + i / 128 * 16 + i % 16];                                                                 \
        }                                                                                                              \
        publish();                                                                                                     \
        /* Registers 0 and 1 hold rows 8 apart of the first half of k, 2 and 3 of the second. */                       \
        const u32 quad = threadIdx.x % 4;                                                                              \
        const u32 low = ((const u32 *)row)[quad], high = ((const u32 *)row)[4 + quad];                                 \
        const float sum = __uint_as_float((u32)in[9 * blockIdx.x + 8]);                                                \
        float d[4] = {sum, sum, sum, sum};                                                                             \
        _Pragma("unroll") for (u32 i = 0; i < 4; ++i) { pin(d[i]); }                                                   \
        wgmma_fence();                                                                                                 \
        asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0;\n" instruction                                               \
                     " {%0, %1, %2, %3}, {%4, %4, %5, %5}, %6, p" immediates ";}"                                      \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                  \
                     : "r"(low), "r"(high), "l"(plain_descriptor(tile)));                                              \
        wgmma_commit();                                                                                                \
        wgmma_wait<0>();                                                                                               \
        if (threadIdx.x == 0) {                                                                                        \
            out[blockIdx.x] = __float_as_uint(d[0]);                                                                   \
        }                                                                                                              \
    }

SUM(sum_f16, "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16", ", 1, 1, 0")
SUM(sum_bf16, "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16", ", 1, 1, 0")
SUM(sum_e4m3, "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3", ", 1, 1")

namespace {

// Two f16 between 1 and 2 in magnitude, of any signs and fractions.
__device__ u32 numbers(u32 bits) { return (bits & 0x83FF83FF) | 0x3C003C00; }

}  // namespace

// Steps of 16 elements of k between a fence and its commit: two tiles of 64, as a query has them, each step with a
// descriptor of its own, because ptxas makes one instruction of equal ones (findings/ptxas-merges-equal-wgmma.sh). And
// such stages in a round: at its end the warpgroup waits for all of them, for between rounds ptxas would have it wait
// after every instruction (its notice C7514).
constexpr u32 STEPS = 8, STAGES = 8;

// `rounds` times STAGES * STEPS products of 64 x N x 16 of f16 by every warpgroup of a block, A in registers, of
// numbers made of the 4096 words of `in`. Writes for each block the cycles and the nanoseconds that its first thread
// saw, and a number that depends on all sums.
#define RATE(N, registers, list, a_and_b, ...)                                                                         \
    QUESTION(rate_##N) {                                                                                               \
        __shared__ __align__(1024) unsigned char tiles[2 * N * 128];                                                   \
        for (u32 i = threadIdx.x; i < sizeof(tiles) / 4; i += blockDim.x) {                                            \
            ((u32 *)tiles)[i] = numbers((u32)in[i % 4096]);                                                            \
        }                                                                                                              \
        publish();                                                                                                     \
        float d[registers] = {};                                                                                       \
        u32 a[4];                                                                                                      \
        _Pragma("unroll") for (u32 i = 0; i < 4; ++i) {                                                                \
            a[i] = numbers((u32)(in[(4 * threadIdx.x + i) % 4096] >> 32));                                             \
        }                                                                                                              \
        const u32 base = shared_address(tiles);                                                                        \
        const u64 time = nanoseconds(), start = clock_cycles();                                                        \
        _Pragma("unroll 1") for (u32 round = 0; round < rounds; ++round) {                                             \
            _Pragma("unroll") for (u32 stage = 0; stage < STAGES; ++stage) {                                           \
                wgmma_fence();                                                                                         \
                _Pragma("unroll") for (u32 step = 0; step < STEPS; ++step) {                                           \
                    const u64 b = swizzled_descriptor(base + step / 4 * N * 128 + step % 4 * 32);                      \
                    asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0;\n"                                               \
                                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" list                       \
                                 "}, " a_and_b ", p, 1, 1, 0;}"                                                        \
                                 : __VA_ARGS__                                                                         \
                                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                \
                }                                                                                                      \
                wgmma_commit();                                                                                        \
                wgmma_wait<1>();                                                                                       \
            }                                                                                                          \
            wgmma_wait<0>();                                                                                           \
        }                                                                                                              \
        const u64 cycles = clock_cycles() - start, passed = nanoseconds() - time;                                      \
        float total = 0;                                                                                               \
        _Pragma("unroll") for (u32 i = 0; i < registers; ++i) { total += d[i]; }                                       \
        if (threadIdx.x == 0) {                                                                                        \
            out[3 * blockIdx.x] = cycles;                                                                              \
            out[3 * blockIdx.x + 1] = passed;                                                                          \
            out[3 * blockIdx.x + 2] = __float_as_uint(total);                                                          \
        }                                                                                                              \
    }

#define ONE(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FOUR(i) ONE(i), ONE(i + 4), ONE(i + 8), ONE(i + 12)
#define LIST_4 "%0, %1, %2, %3"
#define LIST_8 LIST_4 ", %4, %5, %6, %7"
#define LIST_16 LIST_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST_32 LIST_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_64                                                                                                        \
    LIST_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

RATE(8, 4, LIST_4, "{%4, %5, %6, %7}, %8", ONE(0))
RATE(16, 8, LIST_8, "{%8, %9, %10, %11}, %12", ONE(0), ONE(4))
RATE(32, 16, LIST_16, "{%16, %17, %18, %19}, %20", FOUR(0))
RATE(64, 32, LIST_32, "{%32, %33, %34, %35}, %36", FOUR(0), FOUR(16))
RATE(128, 64, LIST_64, "{%64, %65, %66, %67}, %68", FOUR(0), FOUR(16), FOUR(32), FOUR(48))

// Reads all of `in`, n * rounds units of 16 bytes, once and writes nothing of it. Writes for each block when it began
// and when it ended, in nanoseconds, its cycles between, and what no data make but all zeros.
QUESTION(read_only) {
    constexpr u32 UNROLL = 8;
    const u64 time = nanoseconds(), start = clock_cycles();
    const ulonglong2 *from = (const ulonglong2 *)in;
    u64 unit = (u64)blockIdx.x * blockDim.x + threadIdx.x, seen = 0;
#pragma unroll 1
    for (u32 round = 0; round < rounds; round += UNROLL) {
        ulonglong2 values[UNROLL];
#pragma unroll
        for (u32 i = 0; i < UNROLL; ++i) {
            const bool there = round + i < rounds;
            values[i] = there ? __ldcs(from + unit + (u64)i * n) : make_ulonglong2(0, 0);
        }
#pragma unroll
        for (u32 i = 0; i < UNROLL; ++i) {
            seen |= values[i].x | values[i].y;
        }
        unit += (u64)UNROLL * n;
    }
    const int all_zeros = __syncthreads_and(seen == 0);
    if (threadIdx.x == 0) {
        out[4 * blockIdx.x] = time;
        out[4 * blockIdx.x + 1] = nanoseconds();
        out[4 * blockIdx.x + 2] = clock_cycles() - start;
        out[4 * blockIdx.x + 3] = all_zeros;
    }
}

namespace {

// The address of the other block's memory in a cluster of two.
__device__ u32 neighbour(u32 address) { return in_block(address, cluster_rank() ^ 1); }

}  // namespace

// Loads that each wait for the one before, from the own block's shared memory (word 0 of `out`) and from the other
// block's (word 1): cycles of `rounds` of them. Two blocks, a cluster.
extern "C" __global__ void __cluster_dims__(2) chase(const u64 *in, u64 *out, int n, u32 rounds) {
    __shared__ u32 links[32];
    const u32 own = shared_address(links), other = neighbour(own);
    if (threadIdx.x < 32) {
        links[threadIdx.x] = (threadIdx.x * 5 + 1) % 32 * 4;
    }
    __syncthreads();
    meet_cluster();
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        for (u32 remote = 0; remote < 2; ++remote) {
            const u32 base = remote ? other : own;
            u32 at = 0;
            const u64 start = clock_cycles();
            for (u32 round = 0; round < rounds; ++round) {
                asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(at) : "r"(base + at) : "memory");
            }
            const u64 cycles = clock_cycles() - start;
            out[remote] = at < 128 ? cycles : 0;
        }
    }
    meet_cluster();
}

// Every thread loads `rounds` times 16 bytes from the own block's shared memory (first word of the block in `out`), and
// as many from the other block's (second word), 8 loads in flight: cycles of each.
extern "C" __global__ void __cluster_dims__(2) share(const u64 *in, u64 *out, int n, u32 rounds) {
    constexpr u32 UNROLL = 8;
    __shared__ uint4 units[1024];
    const u32 own = shared_address(units), other = neighbour(own);
    for (u32 i = threadIdx.x; i < 1024; i += blockDim.x) {
        units[i] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
    for (u32 remote = 0; remote < 2; ++remote) {
        meet_cluster();
        const u32 base = remote ? other : own;
        u32 seen = 0;
        const u64 start = clock_cycles();
#pragma unroll 1
        for (u32 round = 0; round < rounds; round += UNROLL) {
            uint4 values[UNROLL];
#pragma unroll
            for (u32 i = 0; i < UNROLL; ++i) {
                const u32 at = base + ((round + i) * blockDim.x + threadIdx.x) % 1024 * 16;
                asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(values[i].x), "=r"(values[i].y), "=r"(values[i].z), "=r"(values[i].w)
                             : "r"(at)
                             : "memory");
            }
#pragma unroll
            for (u32 i = 0; i < UNROLL; ++i) {
                seen |= values[i].x | values[i].y | values[i].z | values[i].w;
            }
        }
        const int any = __syncthreads_or(seen != 0);
        const u64 cycles = clock_cycles() - start;
        if (threadIdx.x == 0) {
            out[2 * blockIdx.x + remote] = any ? 0 : cycles;
        }
    }
    meet_cluster();
}
