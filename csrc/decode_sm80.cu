// `decode`: attention over the cached latents themselves, `src/reference/decode.rs` on the device, for every GPU from
// Ampere on. Tokens on m, heads on n, so that few heads are not padded to many and int4 goes from codes to registers:
//
//     S^T [tokens x heads]  = C [tokens x latents] Q^T,  O^T [latents x heads] += C^T P^T
//
// Tile: a block has one item of `schedule` (one query token, a range of its tokens) and 8, 16 or 32 heads; it takes 8
//     to 64 tokens at a time, in three phases with a barrier after each: copies of the next tile start, and partial
//     scores; softmax; output.
// Scores: a warp has 16 tokens and every score_parts-th step of 64 latents; partial sums meet in shared memory.
// Softmax: a warp has TILES heads, a lane four or eight tokens of one of them.
// Accumulators: a warp has slices w, w + 8, .. of 64 latents, for all heads: 16 * SLICES * TILES registers per thread.
//     What a group's mins add to the output (output.cuh) is few numbers, in shared memory.
// Shared memory, by `ops/decode/tiling.rs`: the query (2 bytes per latent and head, and the heads' steps of the rotated
//     key), 1 or 2 stages of tokens as they are in the cache, a tile's scales and mins in f16, 18 KiB of scores for 32
//     heads, weights; about 4 KiB of SmallArrays.
// Per token and block, with latents of L numbers: the token's bytes of the cache, once; 4 L + 2 R FLOPs per head. With
//     int4 (L / 2 bytes) that is 8 FLOPs per byte and head: memory decides up to about 20 heads on an A100, then tensor
//     cores do. Beside them a value costs 11/8 instructions to unpack (in groups 12/8) and 2 conflict-free reads of its
//     code. All instructions that a token costs are held by tests/kernels/decode_budgets.rs.
// Rounding: products are exact and sums f32. The query is exact in f16 but for numbers below 2^-28 of its largest;
//     weights have 11 bits (bf16 latents: 16) and are normalised as rounded; times a scale they are rounded to 11 bits
//     again. Everything else is exact, so that the lse is right to f32 rounding.
#include "decode/block.cuh"
#include "decode/load.cuh"
#include "decode/output.cuh"
#include "decode/queries.cuh"
#include "decode/rope.cuh"
#include "decode/scales.cuh"
#include "decode/scores.cuh"
#include "decode/softmax.cuh"
#include "decode/write.cuh"

namespace {

// A warp's part of its m-tile's scores, [part][head][position].
template <typename S>
__device__ void store_scores(const DecodeParams &params, unsigned char *buffer, const float (&scores)[S::TILES][4]) {
    const unsigned lane = thread_index() % WARP, g = lane / 4, t = lane % 4, stride = anew(params.shared.score_stride);
    const Share share(params);
    unsigned char *to = buffer + (share.part * S::HEADS + 2 * t) * stride + 4 * (16 * share.m_tile + g);
#pragma unroll
    for (int n = 0; n < S::TILES; ++n) {
        float *first = reinterpret_cast<float *>(to), *second = reinterpret_cast<float *>(to + stride);
        first[0] = scores[n][0];
        first[8] = scores[n][2];
        second[0] = scores[n][1];
        second[8] = scores[n][3];
        to += 8 * stride;
    }
}

template <typename S>
__device__ void decode(const DecodeParams &params) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ SmallArrays<S> small;
    if (blockIdx.x >= *reinterpret_cast<const uint32_t *>(params.item_count)) {
        return;
    }
    const DecodeItem &item = small.item;
    if (threadIdx.x < sizeof(DecodeItem) / 4) {
        const uint32_t *items = reinterpret_cast<const uint32_t *>(params.items);
        items += sizeof(DecodeItem) / 4 * blockIdx.x;
        reinterpret_cast<uint32_t *>(&small.item)[threadIdx.x] = __ldg(items + threadIdx.x);
    }
    __syncthreads();
    const unsigned first_head = blockIdx.y * S::HEADS;
    if (item.first >= item.end) {
        write_nothing(params, item, first_head, S::HEADS);
        return;
    }

    const DecodeShared &map = params.shared;
    const unsigned tile = params.tile_tokens;
    const bool overlapped = map.stage_count > 1;
    // Tiles of an item take turns in two places. Where one is, is found anew in each phase: registers are the output's.
    const auto turn_of = [&](unsigned first) { return (first & tile) != 0 ? 1u : 0u; };
    const auto stage_of = [&](unsigned first) {
        return shared + map.stages + (overlapped && (anew(first) & tile) != 0 ? map.stage_bytes : 0);
    };
    // Tiles begin where pages may; what is before the item is skipped.
    const unsigned begin = item.first & ~7u;
    if (threadIdx.x < WARPS) {
        small.pages[turn_of(begin)][threadIdx.x] = find_page(params, item, begin);
        small.pages[turn_of(begin + tile)][threadIdx.x] = find_page(params, item, begin + tile);
    }
    __syncthreads();
    if (overlapped) {
        copy_tile<S>(params, small.pages[turn_of(begin)], begin, item.end, stage_of(begin));
    }
    load_queries<S>(params, item.query, first_head, shared, small);
    Softmax<S>::begin(params, shared, small);

    Output<S> output = {};
    // By a shuffle, which tells the compiler that all lanes agree: then it need not be in a register of each.
    for (unsigned first = __shfl_sync(ALL_LANES, begin, 0); first < item.end; first += tile) {
        cp_async_wait_all();
        // This tile is there, and nobody needs the one before.
        __syncthreads();
        if (overlapped) {
            if (first + tile < item.end) {
                copy_tile<S>(params, small.pages[turn_of(first + tile)], first + tile, item.end,
                             stage_of(first + tile));
            }
        } else {
            copy_tile<S>(params, small.pages[turn_of(first)], first, item.end, stage_of(first));
            cp_async_wait_all();
            __syncthreads();
        }
        if constexpr (S::CODED) {
            prepare_scales<S>(params, stage_of(first), min(tile, item.end - first), shared, small);
        }
        float scores[S::TILES][4] = {};
        score_latents<S>(params, stage_of(first), shared, small, scores);
        score_rope<S>(params, stage_of(first), shared, small, scores);
        store_scores<S>(params, shared + map.scores, scores);
        __syncthreads();
        const uint64_t page = find_page(params, item, first + 2 * tile);
        const unsigned skipped = max(item.first, first) - first;
        Softmax<S>::add_tile(params, skipped, min(tile, item.end - first), shared, small);
        if (thread_index() < WARPS) {
            // In place of this tile's, whose copies all have been started.
            small.pages[turn_of(first)][thread_index()] = page;
        }
        __syncthreads();
        accumulate<S>(params, stage_of(first), shared, small, output);
    }

    // The last tile's rescaling is done.
    __syncthreads();
    const float lse = Softmax<S>::finish(small);
    if (Softmax<S>::leads()) {
        write_lse(params, item, first_head + Softmax<S>::head(), lse);
    }
    __syncthreads();
    write_output<S>(params, item, first_head, shared, small, output);
}

}  // namespace

// Where the accumulators leave room for it, two or three blocks share a multiprocessor, so that one computes scores while
// another waits for its softmax. On Blackwell the compiler would spill a few bytes for that with the largest ones.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define BLOCKS_1X4 1
#else
#define BLOCKS_1X4 2
#endif

#define DECODE_KERNEL(name, latents, slices, tiles, blocks)                      \
    extern "C" __global__ void __launch_bounds__(DECODE_THREADS, blocks)         \
        name(const __grid_constant__ DecodeParams params) {                      \
        decode<Shape<Latents::latents, slices, tiles>>(params);                  \
    }

DECODE_KERNEL(decode_whole_1x2, Whole, 1, 2, 3)
DECODE_KERNEL(decode_whole_1x4, Whole, 1, 4, BLOCKS_1X4)
DECODE_KERNEL(decode_whole_2x2, Whole, 2, 2, 2)
DECODE_KERNEL(decode_whole_2x4, Whole, 2, 4, 1)
DECODE_KERNEL(decode_whole_5x2, Whole, 5, 2, 1)
DECODE_KERNEL(decode_whole_5x1, Whole, 5, 1, 1)
DECODE_KERNEL(decode_groups_1x2, Groups, 1, 2, 3)
DECODE_KERNEL(decode_groups_1x4, Groups, 1, 4, BLOCKS_1X4)
DECODE_KERNEL(decode_groups_2x2, Groups, 2, 2, 2)
DECODE_KERNEL(decode_groups_5x1, Groups, 5, 1, 1)
DECODE_KERNEL(decode_bf16_1x2, Bf16, 1, 2, 3)
DECODE_KERNEL(decode_bf16_1x4, Bf16, 1, 4, BLOCKS_1X4)
DECODE_KERNEL(decode_bf16_2x2, Bf16, 2, 2, 2)
DECODE_KERNEL(decode_bf16_5x1, Bf16, 5, 1, 1)
