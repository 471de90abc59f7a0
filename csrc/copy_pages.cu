// `copy_pages`: whole pages of a cache copied to other pages of it; `src/reference/copy_pages.rs` on the device.
//
//     for each copy (source, destination), for each part of a page:  one block
//         if source or destination is no page of the cache: count it (once), leave
//         for each unit of 16 bytes of the part that the thread owns: destination[unit] = source[unit]
//
// Tile: a block has COPY_PAGES_BYTES neighbouring bytes of a page, a thread COPY_PAGES_UNITS units of 16 bytes, all of
//     which it loads before it stores the first, so that their latencies overlap. No barrier, no shared memory.
// Bytes: every byte of a copied page is read once and written once; without arithmetic it is memory-bound.
#include "cache/layout.cuh"
#include "params.h"

namespace {

// Units of 16 bytes that a thread copies.
constexpr unsigned COPY_PAGES_UNITS = COPY_PAGES_BYTES / 16 / COPY_PAGES_THREADS;

}  // namespace

extern "C" __global__ void __launch_bounds__(COPY_PAGES_THREADS)
    copy_pages(const __grid_constant__ CopyPagesParams params) {
    const int2 copy = __ldg(reinterpret_cast<const int2 *>(params.copies) + blockIdx.x);
    // As unsigned numbers, negative ids are too large as well.
    const unsigned source = copy.x, destination = copy.y;
    if (source >= params.cache.page_count || destination >= params.cache.page_count) {
        if (params.counters != 0 && blockIdx.y == 0 && threadIdx.x == 0) {
            atomicAdd(reinterpret_cast<unsigned long long *>(params.counters), 1ull);
        }
        return;
    }
    const unsigned units = params.cache.page_bytes / 16;
    const uint4 *from = reinterpret_cast<const uint4 *>(page_address(params.cache, source));
    uint4 *to = reinterpret_cast<uint4 *>(page_address(params.cache, destination));
    const unsigned first = blockIdx.y * (COPY_PAGES_BYTES / 16) + threadIdx.x;
    uint4 loaded[COPY_PAGES_UNITS];
#pragma unroll
    for (unsigned i = 0; i < COPY_PAGES_UNITS; ++i) {
        const unsigned unit = first + i * COPY_PAGES_THREADS;
        if (unit < units) {
            loaded[i] = from[unit];
        }
    }
#pragma unroll
    for (unsigned i = 0; i < COPY_PAGES_UNITS; ++i) {
        const unsigned unit = first + i * COPY_PAGES_THREADS;
        if (unit < units) {
            to[unit] = loaded[i];
        }
    }
}
