// `schedule`: cuts a batch's attention into splits for `decode`, on the device.
//
// Query token q sees v_q tokens. With splits of c tokens there are sum_q max(1, ceil(v_q / c)) of them. A fixed c makes a
// query token's splits, and so its result, independent of the rest of the batch; else c is the smallest multiple of
// decode's tile with which there are at most as many splits as blocks run at once, so that all end at about the same
// time.
//
//     c = fixed_tokens, or by bisection over multiples of the tile:
//         every thread counts the splits of its query tokens; the block's sum says whether they are few enough
//     for every SCHEDULE_THREADS query tokens:
//         a thread finds what its query token sees, and counts its splits
//         prefix sums over the block, of splits and of partials, on top of those of the passes before
//         the thread writes split_starts[its query token]
//         barrier; a warp takes a query token at a time, its lanes write the splits of it; barrier
//     thread 0 writes the end of split_starts and the number of splits
//
// One block. Thread t owns query tokens t, t + SCHEDULE_THREADS, .. in every pass; it finds a query token's sequence by
// bisection and reads 2 numbers of it, 4 with a CSR table. The search for c takes log2(max_tokens / tile) passes, writing takes one.
// Barriers: two in a block's sum, two in its prefix sums, and two around the writing of splits.
// Shared memory: scratch of sums and prefix sums, and 16 bytes for each query token of a pass.
// What bounds it: latency, of dependent reads and barriers; its bytes are few.
#include "common/reduce.cuh"
#include "params.h"

namespace {

constexpr unsigned WARPS = SCHEDULE_THREADS / WARP;

// What a query token sees.
struct Query {
    unsigned tokens;
    // Where its sequence's page ids begin.
    unsigned row;
};

__device__ Query find_query(const ScheduleParams &params, unsigned query) {
    const BatchParams &batch = params.batch;
    const int32_t *starts = reinterpret_cast<const int32_t *>(batch.query_starts);
    const int signed_query = static_cast<int>(query);
    if (query >= params.query_tokens || signed_query >= __ldg(starts + batch.sequences)) {
        return {0, 0};
    }
    // The last sequence that starts at or before the query token: empty ones stand before it.
    unsigned low = 0, high = batch.sequences;
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        (__ldg(starts + middle) <= signed_query ? low : high) = middle;
    }
    const int length = __ldg(reinterpret_cast<const int32_t *>(batch.seq_lens) + low);
    const int visible = min(length, length - __ldg(starts + low + 1) + signed_query + 1);
    // Never past the page table, nor past what the workspace has room for.
    unsigned row = low * batch.max_pages, pages = batch.max_pages;
    if (batch.page_starts != 0) {
        const int32_t *page_starts = reinterpret_cast<const int32_t *>(batch.page_starts) + low;
        row = __ldg(page_starts);
        pages = __ldg(page_starts + 1) - row;
    }
    const uint64_t in_table = static_cast<uint64_t>(pages) * params.page_size;
    const uint64_t most = min(static_cast<uint64_t>(params.max_tokens), in_table);
    return {visible <= 0 ? 0 : static_cast<unsigned>(min(static_cast<uint64_t>(visible), most)), row};
}

// How many splits of `split_tokens` cover `tokens`; one if there are none, which writes that nothing was seen.
__device__ unsigned splits_of(unsigned tokens, unsigned split_tokens) {
    return tokens <= split_tokens ? 1 : (tokens - 1) / split_tokens + 1;
}

__device__ unsigned reduce_block_sum(unsigned value, unsigned (&scratch)[WARP]) {
    value = __reduce_add_sync(ALL_LANES, value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    return __reduce_add_sync(ALL_LANES, threadIdx.x % WARP < WARPS ? scratch[threadIdx.x % WARP] : 0);
}

// The sum of all threads before this one, of splits (x) and partials (y), and in `total` that of all.
__device__ uint2 scan_block(uint2 value, uint2 (&scratch)[WARP], uint2 &total) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint2 sum = value;
#pragma unroll
    for (unsigned distance = 1; distance < WARP; distance *= 2) {
        const unsigned x = __shfl_up_sync(ALL_LANES, sum.x, distance), y = __shfl_up_sync(ALL_LANES, sum.y, distance);
        sum.x += lane >= distance ? x : 0;
        sum.y += lane >= distance ? y : 0;
    }
    __syncthreads();
    if (lane == WARP - 1) {
        scratch[warp] = sum;
    }
    __syncthreads();
    const uint2 of_warp = lane < WARPS ? scratch[lane] : uint2{0, 0};
    const uint2 before = {__reduce_add_sync(ALL_LANES, lane < warp ? of_warp.x : 0),
                          __reduce_add_sync(ALL_LANES, lane < warp ? of_warp.y : 0)};
    total = {__reduce_add_sync(ALL_LANES, of_warp.x), __reduce_add_sync(ALL_LANES, of_warp.y)};
    return {before.x + sum.x - value.x, before.y + sum.y - value.y};
}

__device__ unsigned count_splits(const ScheduleParams &params, unsigned split_tokens, unsigned (&scratch)[WARP]) {
    unsigned count = 0;
    for (unsigned query = threadIdx.x; query < params.query_tokens; query += SCHEDULE_THREADS) {
        count += splits_of(find_query(params, query).tokens, split_tokens);
    }
    return reduce_block_sum(count, scratch);
}

// The tokens of a split: the smallest number of tiles with which there are few enough splits.
__device__ unsigned balanced_split_tokens(const ScheduleParams &params, unsigned (&scratch)[WARP]) {
    const unsigned tile = params.tile_tokens, most = (params.max_tokens - 1) / tile + 1;
    unsigned low = 0, high = most;
    while (high - low > 1) {
        const unsigned middle = low + (high - low) / 2;
        const bool fits = count_splits(params, middle * tile, scratch) <= params.target_splits;
        (fits ? high : low) = middle;
    }
    return high * tile;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(SCHEDULE_THREADS) schedule(const __grid_constant__ ScheduleParams params) {
    __shared__ unsigned scratch[WARP];
    __shared__ uint2 scan_scratch[WARP];
    __shared__ Query queries[SCHEDULE_THREADS];
    // Where each query token's splits (x) and partials (y) begin.
    __shared__ uint2 starts[SCHEDULE_THREADS];
    const unsigned split_tokens =
        params.fixed_tokens != 0 ? params.fixed_tokens : balanced_split_tokens(params, scratch);
    int32_t *split_starts = reinterpret_cast<int32_t *>(params.split_starts);
    DecodeSplit *splits = reinterpret_cast<DecodeSplit *>(params.splits);

    uint2 done{0, 0};
    for (unsigned base = 0; base < params.query_tokens; base += SCHEDULE_THREADS) {
        const unsigned query = base + threadIdx.x;
        const Query found = find_query(params, query);
        const unsigned count = query < params.query_tokens ? splits_of(found.tokens, split_tokens) : 0;
        uint2 total;
        const uint2 before = scan_block({count, count > 1 ? count : 0}, scan_scratch, total);
        queries[threadIdx.x] = found;
        starts[threadIdx.x] = {done.x + before.x, done.y + before.y};
        if (query < params.query_tokens) {
            split_starts[query] = static_cast<int32_t>(done.y + before.y);
        }
        __syncthreads();
        const unsigned here = min(params.query_tokens - base, SCHEDULE_THREADS);
        for (unsigned q = threadIdx.x / WARP; q < here; q += WARPS) {
            const unsigned tokens = queries[q].tokens, own = splits_of(tokens, split_tokens);
            for (unsigned i = threadIdx.x % WARP; i < own; i += WARP) {
                const int32_t partial = own > 1 ? static_cast<int32_t>(starts[q].y + i) : -1;
                const unsigned first = i * split_tokens;
                splits[starts[q].x + i] = {
                    base + q, queries[q].row, first, min(tokens, first + split_tokens), partial, {0, 0, 0}};
            }
        }
        done = {done.x + total.x, done.y + total.y};
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        split_starts[params.query_tokens] = static_cast<int32_t>(done.y);
        *reinterpret_cast<uint32_t *>(params.split_count) = done.x;
    }
}
