// cp.async.bulk.tensor in tile mode (PTX ISA 9.7.9.25.5.2), from global to shared memory.
// nvcc -ptx -arch=compute_90a -o ptx/tensor_copy_90.ptx tensor_copy_90.cu
#include "tensor.h"

// The tensor lies in `in`. The tile is written in full before, and comes back in full, a row for each thread.
#define LOAD(name, text, ...)                                                                              \
    extern "C" __global__ void name(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {   \
        TILE;                                                                                              \
        Task task = task_of(in, maps.map);                                                                 \
        prepare(tile, &bar);                                                                               \
        if (threadIdx.x == 0) {                                                                            \
            expect(&bar, task.bytes);                                                                      \
            const int *c = task.coordinate;                                                                \
            asm volatile(text ::"r"(TO), "l"(task.map), "r"(shared_address(&bar)), __VA_ARGS__ : "memory"); \
        }                                                                                                  \
        wait(&bar);                                                                                        \
        give(out, tile);                                                                                   \
    }
#define FROM ".global.mbarrier::complete_tx::bytes"
LOAD(load_1d, "cp.async.bulk.tensor.1d.shared::cluster" FROM " [%0], [%1, {%3}], [%2];", "r"(c[0]))
LOAD(load_2d, "cp.async.bulk.tensor.2d.shared::cluster" FROM " [%0], [%1, {%3, %4}], [%2];", "r"(c[0]), "r"(c[1]))
LOAD(load_3d, "cp.async.bulk.tensor.3d.shared::cluster" FROM " [%0], [%1, {%3, %4, %5}], [%2];", "r"(c[0]), "r"(c[1]), "r"(c[2]))
LOAD(load_4d, "cp.async.bulk.tensor.4d.shared::cluster" FROM " [%0], [%1, {%3, %4, %5, %6}], [%2];", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]))
LOAD(load_5d, "cp.async.bulk.tensor.5d.shared::cluster" FROM " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]))
// The parts that change nothing here: the mode by name, the block's own memory, a cache policy.
LOAD(load_own, "cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];", "r"(c[0]), "r"(c[1]))
LOAD(load_hint, "cp.async.bulk.tensor.2d.shared::cluster" FROM ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;", "r"(c[0]), "r"(c[1]), "l"(EVICT_FIRST))
// Values that change on their way: f32 flushed, rounded to tf32, both, and as they are.
LOAD(load_converted, "cp.async.bulk.tensor.2d.shared::cluster" FROM " [%0], [%1, {%3, %4}], [%2];", "r"(c[0]), "r"(c[1]))

// Elements outside of the tensor become NaNs, of which only that they are some is said: all NaNs come back as ones.
// Map 0 is of f16, map 1 of bf16, the others of f32 and f64.
extern "C" __global__ void load_nan(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {
    TILE;
    Task task = task_of(in, maps.map);
    prepare(tile, &bar);
    if (threadIdx.x == 0) {
        expect(&bar, task.bytes);
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster" FROM " [%0], [%1, {%3, %4}], [%2];" ::"r"(TO), "l"(task.map),
                     "r"(shared_address(&bar)), "r"(task.coordinate[0]), "r"(task.coordinate[1]) : "memory");
    }
    wait(&bar);
    int which = (int)(task.map - maps.map), bits = which < 2 ? 16 : which == 2 ? 32 : 64;
    u64 infinity = which == 0 ? 0x7C00 : which == 1 ? 0x7F80 : which == 2 ? 0x7F800000 : 0x7FF0000000000000, ones = ~0ull >> (64 - bits);
    out += ((u64)blockIdx.x * THREADS + threadIdx.x) * WORDS;
    for (int i = 0; i < WORDS; i++) {
        u64 word = tile[threadIdx.x * WORDS + i], result = 0;
        for (int at = 0; at < 64; at += bits) {
            u64 value = word >> at & ones;
            if ((value & ones >> 1) > infinity) value = ones;
            result |= value << at;
        }
        out[i] = result;
    }
}

// A map that the kernel itself puts into global memory: what was written through the generic proxy passes a fence before
// it is read through the tensor map's.
__device__ CUtensorMap written[64];
extern "C" __global__ void load_written_map(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {
    TILE;
    Task task = task_of(in, maps.map);
    prepare(tile, &bar);
    if (threadIdx.x == 0) {
        CUtensorMap *map = written + blockIdx.x;
        for (int i = 0; i < 16; i++) ((volatile u64 *)map)[i] = ((const u64 *)task.map)[i];
        asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
        asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
        expect(&bar, task.bytes);
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster" FROM " [%0], [%1, {%3, %4}], [%2];" ::"r"(TO), "l"(map),
                     "r"(shared_address(&bar)), "r"(task.coordinate[0]), "r"(task.coordinate[1]) : "memory");
    }
    wait(&bar);
    give(out, tile);
}

// The two blocks of a cluster load a box each, and both get both. `bytes` are those of the two boxes.
extern "C" __global__ void __cluster_dims__(2, 1, 1) load_multicast(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {
    TILE;
    Task task = task_of(in, maps.map);
    prepare(tile, &bar);
    if (threadIdx.x == 0) {
        expect(&bar, task.bytes);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (threadIdx.x == 0)
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster" FROM ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(TO),
                     "l"(task.map), "r"(shared_address(&bar)), "r"(task.coordinate[0]), "r"(task.coordinate[1]), "h"((u16)3) : "memory");
    wait(&bar);
    give(out, tile);
}

// Prefetches change nothing.
#define PREFETCH(name, text, ...)                                                                         \
    extern "C" __global__ void name(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {  \
        Task task = task_of(in, maps.map);                                                                \
        const int *c = task.coordinate;                                                                   \
        if (threadIdx.x == 0) asm volatile(text ::"l"(task.map), __VA_ARGS__ : "memory");                 \
        ROWS(WORDS, WORDS);                                                                               \
        for (int k = 0; k < WORDS; k++) out[k] = in[k];                                                   \
    }
PREFETCH(prefetch_1d, "cp.async.bulk.prefetch.tensor.1d.L2.global.tile [%0, {%1}];", "r"(c[0]))
PREFETCH(prefetch_5d, "cp.async.bulk.prefetch.tensor.5d.L2.global [%0, {%1, %2, %3, %4, %5}];", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]))
PREFETCH(prefetch_hint, "cp.async.bulk.prefetch.tensor.2d.L2.global.L2::cache_hint [%0, {%1, %2}], %3;", "r"(c[0]), "r"(c[1]), "l"(EVICT_FIRST))
PREFETCH(prefetch_map, "prefetch.tensormap [%0];", "r"(c[0]))
