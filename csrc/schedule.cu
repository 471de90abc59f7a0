// `schedule`: cuts a batch's attention into splits for `decode`, on the device.
//
// Query token q sees v_q tokens. With splits of c tokens there are n_q = max(1, ceil(v_q / c)) of it, N in all, in
// w = ceil(N / target_splits) waves. A fixed c makes a query token's splits, and so its result, independent of the rest of
// the batch; else c is the multiple of decode's tile that is predicted to cost least, of tiles that cost 1:
//
//     w (block + tiles of the longest split) + [something is cut] (merge + merge_partial P + merge_batch B)
//
// with P the sum of the n_q above 1, and B = ceil(largest n_q / COMBINE_BATCH). If anything is cut, N is at most
// target_splits, or SCHEDULE_WAVES times as many where the query tokens alone are more than half of that.
//
//     threads clear the words by which decode's blocks merge
//     a thread finds what its query token sees; barrier
//     c = fixed_tokens, or:
//         a group of GROUP warps for each w:
//             c_w = the smallest c with which there are w waves: by bisection, a c for each warp (barriers)
//             predictions of c_w, c_w + 1, .., a c for each warp, until all that follow cost more than the best (barriers)
//     for every SCHEDULE_THREADS query tokens:
//         prefix sums over the block, of splits and of partials, on top of those of the passes before
//         the thread writes split_starts[its query token]
//         barrier; a warp takes a query token at a time, its lanes write the splits of it; barrier
//     thread 0 writes the end of split_starts and the number of splits
//
// One block. Thread t owns query tokens t, t + SCHEDULE_THREADS, .. in every pass; it finds a query token's sequence by
// bisection and reads 2 numbers of it, 4 with a CSR table. A warp counts the splits of all query tokens, 32 at a time, of
// the first SCHEDULE_THREADS in shared memory. The sum of all tiles bounds c_w from both sides, so that bisection seldom
// takes more than two passes; one or two of predictions follow. Between c_w and c_(w-1) waves are the same, so that
// predictions rise but for merging.
// Barriers: two in each pass of a search, two in prefix sums, and two around the writing of splits.
// Shared memory: scratch of searches and prefix sums, and 16 bytes for each query token of a pass.
// What bounds it: latency, of dependent reads and barriers; its bytes are few.
#include "common/reduce.cuh"
#include "params.h"
#include "ptx/griddepcontrol.cuh"

namespace {

constexpr unsigned WARPS = SCHEDULE_THREADS / WARP;

// Warps that search for the splits of one number of waves.
constexpr unsigned GROUP = WARPS / SCHEDULE_WAVES;

// More splits than any workspace holds: counts end here, so that no sum of a warp overflows.
constexpr unsigned MOST_SPLITS = 1u << 26;

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

// What a batch is cut into.
struct Cut {
    unsigned splits;
    unsigned partials;
    unsigned most;
};

// What the searches' warps tell each other.
struct Scratch {
    uint64_t costs[WARPS];
    unsigned tiles[WARPS];
    bool fits[WARPS];
};

// The batch cut into splits of so many tokens, counted by a warp. `queries` are the first SCHEDULE_THREADS query tokens.
__device__ Cut cut(const ScheduleParams &params, const Query *queries, unsigned split_tokens) {
    Cut all{0, 0, 0};
    for (unsigned query = threadIdx.x % WARP; query < params.query_tokens; query += WARP) {
        const unsigned tokens =
            query < SCHEDULE_THREADS ? queries[query].tokens : find_query(params, query).tokens;
        const unsigned splits = splits_of(tokens, split_tokens);
        all.splits = min(all.splits + min(splits, MOST_SPLITS), MOST_SPLITS);
        all.partials = min(all.partials + (splits > 1 ? min(splits, MOST_SPLITS) : 0), MOST_SPLITS);
        all.most = max(all.most, splits);
    }
    return {__reduce_add_sync(ALL_LANES, all.splits), __reduce_add_sync(ALL_LANES, all.partials),
            __reduce_max_sync(ALL_LANES, all.most)};
}

// Splits of so many waves.
__device__ unsigned splits_in(const ScheduleParams &params, unsigned waves) {
    return min(static_cast<uint64_t>(params.target_splits) * waves, static_cast<uint64_t>(MOST_SPLITS - 1));
}

// Waves of a batch of which anything is cut.
__device__ unsigned most_waves(const ScheduleParams &params) {
    return params.query_tokens > params.target_splits / 2 ? SCHEDULE_WAVES : 1;
}

// What tiles cost in so many waves.
__device__ uint64_t tile_cost(const ScheduleParams &params, unsigned waves, unsigned tiles) {
    return waves * (params.costs.block + static_cast<uint64_t>(tiles) * SCHEDULE_TILE);
}

// What a batch is predicted to cost in splits of so many tiles; infinity if these are too many.
__device__ uint64_t predicted(const ScheduleParams &params, const Cut &all, unsigned tiles) {
    if (all.partials != 0 && all.splits > splits_in(params, most_waves(params))) {
        return ~0ull;
    }
    const SplitCosts &costs = params.costs;
    const uint64_t batches = (all.most - 1) / COMBINE_BATCH + 1;
    const uint64_t merging =
        costs.merge + static_cast<uint64_t>(costs.merge_partial) * all.partials + costs.merge_batch * batches;
    return tile_cost(params, (all.splits - 1) / params.target_splits + 1, tiles) + (all.partials != 0 ? merging : 0);
}

// The tokens of a split with which the batch is predicted to cost least, of the smallest of several. All threads see the
// same.
__device__ unsigned cheapest_split_tokens(const ScheduleParams &params, const Query *queries, Scratch &scratch) {
    const unsigned warp = threadIdx.x / WARP, group = warp / GROUP, member = warp % GROUP, tile = params.tile_tokens;
    const Cut tiles_of = cut(params, queries, tile);
    const unsigned longest = max(tiles_of.most, 1u), sum = tiles_of.splits;
    const unsigned waves_allowed = most_waves(params);
    if (params.query_tokens > splits_in(params, waves_allowed)) {
        return longest * tile;
    }

    // Each group's c_w lies above `low`, which has more splits, and not above `high`: there are at least sum / c splits, and
    // fewer than sum / c + query_tokens. A group whose waves are not allowed, or too few for all query tokens, rests.
    const unsigned waves = group + 1, target = splits_in(params, waves);
    const bool can_be = waves <= waves_allowed && params.query_tokens <= target;
    unsigned low = longest - 1, high = longest;
    if (can_be) {
        low = sum == 0 ? 0 : (sum - 1) / target;
        const unsigned room = target - params.query_tokens;
        // Sums that reach the most that is counted say nothing.
        if (room != 0 && sum < MOST_SPLITS) {
            high = min(longest, sum / room + 1);
        }
    }
    while (__syncthreads_or(high - low > 1)) {
        const unsigned step = (high - low + GROUP) / (GROUP + 1), tiles = low + (member + 1) * step;
        const bool fits = tiles >= high || cut(params, queries, tiles * tile).splits <= target;
        if (threadIdx.x % WARP == 0) {
            scratch.fits[warp] = fits;
        }
        __syncthreads();
        unsigned missed = 0;
        while (missed < GROUP && !scratch.fits[group * GROUP + missed]) {
            ++missed;
        }
        high = missed < GROUP ? min(high, low + (missed + 1) * step) : high;
        low += missed * step;
    }

    uint64_t least = ~0ull;
    unsigned best = longest;
    bool goes_on = can_be;
    for (unsigned first = high; __syncthreads_or(goes_on); first += GROUP) {
        const unsigned tiles = first + member;
        const bool is_one = goes_on && tiles <= longest;
        const uint64_t cost = is_one ? predicted(params, cut(params, queries, tiles * tile), tiles) : ~0ull;
        if (threadIdx.x % WARP == 0) {
            scratch.costs[warp] = cost;
            scratch.tiles[warp] = tiles;
        }
        __syncthreads();
        for (unsigned other = 0; other < GROUP * waves_allowed; ++other) {
            const uint64_t its = scratch.costs[other];
            if (its < least || (its == least && scratch.tiles[other] < best)) {
                least = its;
                best = scratch.tiles[other];
            }
        }
        const unsigned next = first + GROUP;
        goes_on = goes_on && next <= longest && tile_cost(params, waves, next) <= least;
    }
    return best * tile;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(SCHEDULE_THREADS, 1) schedule(const __grid_constant__ ScheduleParams params) {
    __shared__ Scratch scratch;
    __shared__ uint2 scan_scratch[WARP];
    __shared__ Query queries[SCHEDULE_THREADS];
    // Where each query token's splits (x) and partials (y) begin.
    __shared__ uint2 starts[SCHEDULE_THREADS];
    wait_for_kernel_in_front();
    const uint64_t words = static_cast<uint64_t>(params.query_tokens) * params.merge_tiles;
    for (uint64_t i = threadIdx.x; i < words; i += SCHEDULE_THREADS) {
        reinterpret_cast<uint64_t *>(params.merges)[i] = 0;
    }
    queries[threadIdx.x] = find_query(params, threadIdx.x);
    __syncthreads();
    const unsigned split_tokens =
        params.fixed_tokens != 0 ? params.fixed_tokens : cheapest_split_tokens(params, queries, scratch);
    int32_t *split_starts = reinterpret_cast<int32_t *>(params.split_starts);
    DecodeSplit *splits = reinterpret_cast<DecodeSplit *>(params.splits);

    uint2 done{0, 0};
    for (unsigned base = 0; base < params.query_tokens; base += SCHEDULE_THREADS) {
        const unsigned query = base + threadIdx.x;
        const Query found = base == 0 ? queries[threadIdx.x] : find_query(params, query);
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
