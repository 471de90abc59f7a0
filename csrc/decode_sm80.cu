// `decode`: attention over the cached latents themselves, `src/reference/decode.rs` on the device, for every GPU from
// Ampere on. Tokens on m, heads on n, so that few heads are not padded to many and int4 goes from codes to registers:
//
//     S^T [tokens x heads]  = C [tokens x latents] Q^T,  O^T [latents x heads] += C^T P^T
//
//     a block for each split of `schedule` (one query token, a range of its tokens) and each 8, 16 or 32 heads:
//         start the copies of the first tile
//         store the query of the block's heads in shared memory                               (queries.cuh)
//         for each tile of 8 to 64 tokens:
//             wait for the tile's copies;  barrier;  start the copies of the next one         (load.cuh)
//             int4: scales and mins of the tile in f16                                        (scales.cuh)
//             a warp's m-tile and k-slice of S^T = C Q^T, stored in shared memory             (scores.cuh, rope.cuh)
//             barrier
//             sums over k-slices; largest score so far; weights P = exp2(S - largest), 16-bit (softmax.cuh)
//             barrier
//             a warp's slices of O^T = O^T * rescale + C^T P^T                                (output.cuh)
//         barrier;  divisor and lse of each head;  barrier
//         write O^T * rescale, bf16 or partials in f32                                        (write.cuh)
//
// With one stage instead of two, a tile's copies start when its turn comes, with a barrier more behind them.
//
// Who owns what:
//     Scores: a warp has 16 tokens, an m-tile, and every k_slices-th k-step of 64 latents; the k-slices' sums meet in
//         shared memory.
//     Softmax: a warp has N_TILES heads, a lane four or eight tokens of one of them, or none.
//     Accumulators: a warp has slices w, w + 8, .. of 64 latents, for all heads: 16 * SLICES * N_TILES registers per
//         thread. What a group's mins add to the output (output.cuh) is few numbers, in shared memory.
// Shared memory, divided by `src/ops/decode/sm80.rs`: the query (2 bytes per latent and head, and the k-steps of the
//     rotated key that the heads have), 1 or 2 stages of tokens as they are in the cache, a tile's scales and mins in
//     f16, 17 to 20 KiB of scores for 32 heads, weights; about 3 KiB of BlockState.
// Per token and block, with latents of L numbers: the token's bytes of the cache, once; 4 L + 2 R FLOPs per head. Beside
//     them a value costs 11/8 instructions to unpack (in groups 12/8) and 2 conflict-free reads of its code. All
//     instructions that a token costs are held by tests/kernels/decode_budgets.rs.
// What bounds it: with int4 (L / 2 bytes) there are 8 FLOPs per byte and head, so that it is memory-bound up to about 20
//     heads on an A100, and compute-bound, by the tensor cores, from there on.
// Rounding: products are exact and sums f32. The query is exact in f16 but for numbers below 2^-27 of its largest;
//     weights have 11 bits (bf16 latents: 16) and are normalised as rounded; times a scale they are rounded to 11 bits
//     again. Everything else is exact, so that the lse is right to f32 rounding.
#include "decode/results.cuh"
#include "decode/sm80/block.cuh"
#include "decode/sm80/load.cuh"
#include "decode/sm80/output.cuh"
#include "decode/sm80/queries.cuh"
#include "decode/sm80/rope.cuh"
#include "decode/sm80/scales.cuh"
#include "decode/sm80/scores.cuh"
#include "decode/sm80/shared.cuh"
#include "decode/sm80/softmax.cuh"
#include "decode/sm80/write.cuh"

namespace {

template <typename S>
__device__ void decode(const DecodeParams &params) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ BlockState<S> block;
    if (blockIdx.x >= *reinterpret_cast<const uint32_t *>(params.split_count)) {
        return;
    }
    const DecodeSplit &split = block.split;
    if (threadIdx.x < sizeof(DecodeSplit) / 4) {
        const uint32_t *splits = reinterpret_cast<const uint32_t *>(params.splits);
        splits += sizeof(DecodeSplit) / 4 * blockIdx.x;
        reinterpret_cast<uint32_t *>(&block.split)[threadIdx.x] = __ldg(splits + threadIdx.x);
    }
    __syncthreads();
    const unsigned first_head = blockIdx.y * S::HEADS;
    if (split.first >= split.end) {
        write_nothing<DECODE_THREADS>(params, split, first_head, S::HEADS);
        return;
    }

    const SharedMemory<S> memory(shared, params);
    const unsigned tile = memory.tile_tokens;
    // Tiles of a split alternate between two rows of pages, as between stages.
    const auto pages_of = [&](unsigned first) -> uint64_t(&)[WARPS] {
        return block.pages[(first & tile) != 0 ? 1u : 0u];
    };
    // Tiles begin where pages may; what is before the split is skipped.
    const unsigned begin = split.first & ~7u;
    if (threadIdx.x < WARPS) {
        pages_of(begin)[threadIdx.x] = find_page(params, split, begin);
        pages_of(begin + tile)[threadIdx.x] = find_page(params, split, begin + tile);
    }
    __syncthreads();
    if (memory.overlapped) {
        copy_tile<S>(params, pages_of(begin), begin, split.end, memory.stage_of(begin));
    }
    load_queries<S>(params, split.query, first_head, memory, block);
    Softmax<S>::begin(params, memory, block);

    Output<S> output = {};
    // By a shuffle, which tells the compiler that all lanes agree: then it need not be in a register of each.
    for (unsigned first = __shfl_sync(ALL_LANES, begin, 0); first < split.end; first += tile) {
        cp_async_wait_all();
        // This tile is there, and nobody needs the one before.
        __syncthreads();
        if (memory.overlapped) {
            if (first + tile < split.end) {
                copy_tile<S>(params, pages_of(first + tile), first + tile, split.end, memory.stage_of(first + tile));
            }
        } else {
            copy_tile<S>(params, pages_of(first), first, split.end, memory.stage_of(first));
            cp_async_wait_all();
            __syncthreads();
        }
        if constexpr (S::CODED) {
            prepare_scales<S>(params, memory.stage_of(first), min(tile, split.end - first), memory, block);
        }
        FragmentC scores[S::N_TILES] = {};
        score_latents<S>(params, memory.stage_of(first), memory, block, scores);
        score_rope<S>(params, memory.stage_of(first), memory, block, scores);
        store_scores<S>(params, memory, scores);
        __syncthreads();
        const uint64_t page = find_page(params, split, first + 2 * tile);
        const unsigned skipped = max(split.first, first) - first;
        Softmax<S>::add_tile(params, skipped, min(tile, split.end - first), memory, block);
        if (thread_index() < WARPS) {
            // In place of this tile's, whose copies all have been started.
            pages_of(first)[thread_index()] = page;
        }
        __syncthreads();
        accumulate<S>(params, memory.stage_of(first), memory, block, output);
    }

    // The last tile's rescaling is done.
    __syncthreads();
    const float lse = Softmax<S>::finish(block);
    if (Softmax<S>::leads()) {
        write_lse(params, split, first_head + Softmax<S>::head(), lse);
    }
    __syncthreads();
    write_output<S>(params, split, first_head, memory, block, output);
}

}  // namespace

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define BLOCKS(before_blackwell, from_blackwell) from_blackwell
#else
#define BLOCKS(before_blackwell, from_blackwell) before_blackwell
#endif

#define DECODE_KERNEL(name, latents, slices, n_tiles, before_blackwell, from_blackwell)                             \
    static_assert(sizeof(BlockState<Shape<Latents::latents, slices, n_tiles>>) <=                                   \
                      (slices > 2 ? DECODE_SM80_LARGE_STATIC_BYTES : DECODE_SM80_STATIC_BYTES),                     \
                  "the host plans with less static shared memory than " #name " has");                              \
    extern "C" __global__ void __launch_bounds__(DECODE_THREADS, BLOCKS(before_blackwell, from_blackwell))          \
        name(const __grid_constant__ DecodeParams params) {                                                         \
        decode<Shape<Latents::latents, slices, n_tiles>>(params);                                                   \
    }

DECODE_SM80_KERNELS(DECODE_KERNEL)
