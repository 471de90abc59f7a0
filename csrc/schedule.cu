// `schedule`: cuts a batch's attention into pieces for `decode`, on the device.
//
// Query token q sees v_q tokens. With pieces of c tokens there are sum_q max(1, ceil(v_q / c)) items. A fixed c makes a
// query token's pieces, and so its result, independent of the rest of the batch; else c is the smallest multiple of
// decode's tile of which there are at most as many items as blocks run at once, so that all end at about the same time.
//
// One block. Thread t looks at query tokens t, t + SCHEDULE_THREADS, .. in every pass; a pass finds its sequence by
// bisection and reads 4 numbers of it. The search for c takes up to log2(longest / tile) passes, writing two: their
// prefix sums, and the items, a warp at a time for each query token.
// Shared memory: scratch of reductions and scans, and 24 bytes for each query token of a pass.
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

// Pieces of `piece` tokens.
__device__ unsigned items_of(unsigned tokens, unsigned piece) { return tokens <= piece ? 1 : (tokens - 1) / piece + 1; }

__device__ unsigned reduce_block_sum(unsigned value, unsigned (&scratch)[WARP]) {
    value = __reduce_add_sync(ALL_LANES, value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    return __reduce_add_sync(ALL_LANES, threadIdx.x % WARP < WARPS ? scratch[threadIdx.x % WARP] : 0);
}

// The sum of all threads before this one, of items (x) and slots (y), and in `total` that of all.
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
    const uint2 part = lane < WARPS ? scratch[lane] : uint2{0, 0};
    const uint2 before = {__reduce_add_sync(ALL_LANES, lane < warp ? part.x : 0),
                          __reduce_add_sync(ALL_LANES, lane < warp ? part.y : 0)};
    total = {__reduce_add_sync(ALL_LANES, part.x), __reduce_add_sync(ALL_LANES, part.y)};
    return {before.x + sum.x - value.x, before.y + sum.y - value.y};
}

__device__ unsigned count_items(const ScheduleParams &params, unsigned piece, unsigned (&scratch)[WARP]) {
    unsigned count = 0;
    for (unsigned query = threadIdx.x; query < params.query_tokens; query += SCHEDULE_THREADS) {
        count += items_of(find_query(params, query).tokens, piece);
    }
    return reduce_block_sum(count, scratch);
}

// The smallest number of tiles per piece with few enough items, as tokens.
__device__ unsigned balanced_piece(const ScheduleParams &params, unsigned (&scratch)[WARP]) {
    const unsigned tile = params.tile_tokens, most = (params.max_tokens - 1) / tile + 1;
    unsigned low = 0, high = most;
    while (high - low > 1) {
        const unsigned middle = low + (high - low) / 2;
        const bool fits = count_items(params, middle * tile, scratch) <= params.target_items;
        (fits ? high : low) = middle;
    }
    return high * tile;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(SCHEDULE_THREADS) schedule(const __grid_constant__ ScheduleParams params) {
    __shared__ unsigned scratch[WARP];
    __shared__ uint2 scan_scratch[WARP];
    __shared__ Query queries[SCHEDULE_THREADS];
    __shared__ uint2 starts[SCHEDULE_THREADS];
    const unsigned piece = params.fixed_tokens != 0 ? params.fixed_tokens : balanced_piece(params, scratch);
    int32_t *split_starts = reinterpret_cast<int32_t *>(params.split_starts);
    DecodeItem *items = reinterpret_cast<DecodeItem *>(params.items);

    uint2 done{0, 0};
    for (unsigned base = 0; base < params.query_tokens; base += SCHEDULE_THREADS) {
        const unsigned query = base + threadIdx.x;
        const Query found = find_query(params, query);
        const unsigned count = query < params.query_tokens ? items_of(found.tokens, piece) : 0;
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
            const unsigned tokens = queries[q].tokens, pieces = items_of(tokens, piece);
            for (unsigned i = threadIdx.x % WARP; i < pieces; i += WARP) {
                const int32_t slot = pieces > 1 ? static_cast<int32_t>(starts[q].y + i) : -1;
                const unsigned first = i * piece;
                items[starts[q].x + i] = {base + q, queries[q].row, first, min(tokens, first + piece), slot, {0, 0, 0}};
            }
        }
        done = {done.x + total.x, done.y + total.y};
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        split_starts[params.query_tokens] = static_cast<int32_t>(done.y);
        *reinterpret_cast<uint32_t *>(params.item_count) = done.x;
    }
}
