// cp.async.bulk.tensor and cp.reduce.async.bulk.tensor from shared to global memory (PTX ISA 9.7.9.25.5.2-3).
// nvcc -ptx -arch=compute_90a -o ptx/tensor_store_90.ptx tensor_store_90.cu
#include "tensor.h"

// The tensor lies in `out`. The tile has the block's rows of `in`; `before` are instructions on `out`.
#define STORE(name, before, text, ...)                                                                      \
    extern "C" __global__ void name(const u64 *in, u64 *out, int n, const __grid_constant__ Maps maps) {    \
        __shared__ alignas(1024) u64 tile[THREADS * WORDS];                                                 \
        Task task = task_of(in, maps.map);                                                                  \
        u64 row = ((u64)blockIdx.x * THREADS + threadIdx.x) * WORDS;                                        \
        for (int i = 0; i < WORDS; i++) tile[threadIdx.x * WORDS + i] = in[row + i];                        \
        before;                                                                                             \
        asm volatile("fence.proxy.async;" ::: "memory");                                                    \
        __syncthreads();                                                                                    \
        if (threadIdx.x == 0) {                                                                             \
            const int *c = task.coordinate;                                                                 \
            asm volatile(text ::"r"(TO), "l"(task.map), __VA_ARGS__ : "memory");                            \
            asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");          \
        }                                                                                                   \
    }
#define GROUP ".global.shared::cta.bulk_group"
STORE(store_1d, , "cp.async.bulk.tensor.1d" GROUP " [%1, {%2}], [%0];", "r"(c[0]))
STORE(store_2d, , "cp.async.bulk.tensor.2d" GROUP " [%1, {%2, %3}], [%0];", "r"(c[0]), "r"(c[1]))
STORE(store_3d, , "cp.async.bulk.tensor.3d" GROUP " [%1, {%2, %3, %4}], [%0];", "r"(c[0]), "r"(c[1]), "r"(c[2]))
STORE(store_4d, , "cp.async.bulk.tensor.4d" GROUP " [%1, {%2, %3, %4, %5}], [%0];", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]))
STORE(store_5d, , "cp.async.bulk.tensor.5d" GROUP " [%1, {%2, %3, %4, %5, %6}], [%0];", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]))
STORE(store_hint, , "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group.L2::cache_hint [%1, {%2, %3, %4}], [%0], %5;", "r"(c[0]),
      "r"(c[1]), "r"(c[2]), "l"(EVICT_FIRST))

// What is there before is another row of `in`, that of the thread on the block's other side.
#define OLD                                                                                     \
    u64 other = ((u64)blockIdx.x * THREADS + THREADS - 1 - threadIdx.x) * WORDS;                \
    for (int i = 0; i < WORDS; i++) out[row + i] = in[other + i]
#define REDUCE(op)                                                                                                         \
    STORE(reduce_##op, OLD, "cp.reduce.async.bulk.tensor.3d.global.shared::cta." #op ".bulk_group [%1, {%2, %3, %4}], [%0];", \
          "r"(c[0]), "r"(c[1]), "r"(c[2]))
REDUCE(add) REDUCE(min) REDUCE(max) REDUCE(inc) REDUCE(dec) REDUCE(and) REDUCE(or) REDUCE(xor)
// Sums and extremes of floats.
STORE(reduce_add_float, OLD, "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%1, {%2, %3, %4}], [%0];", "r"(c[0]), "r"(c[1]), "r"(c[2]))
STORE(reduce_min_float, OLD, "cp.reduce.async.bulk.tensor.3d.global.shared::cta.min.bulk_group.L2::cache_hint [%1, {%2, %3, %4}], [%0], %5;", "r"(c[0]), "r"(c[1]), "r"(c[2]), "l"(EVICT_FIRST))
STORE(reduce_max_float, OLD, "cp.reduce.async.bulk.tensor.3d.global.shared::cta.max.bulk_group [%1, {%2, %3, %4}], [%0];", "r"(c[0]), "r"(c[1]), "r"(c[2]))
