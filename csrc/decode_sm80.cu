// `decode`: attention over the cached latents themselves, `src/reference/decode.rs` on the device, for every GPU from
// Ampere on. Tokens on m, heads on n, so that few heads are not padded to many and int4 goes from codes to registers:
//
//     S^T [tokens x heads]  = C [tokens x latents] Q^T,  O^T [latents x heads] += C^T P^T
//
//     a block for each split of `schedule` (one query token, a range of its tokens) and each 8, 16 or 32 heads:
//         begin to load the query; start the copies of the first tile; store the query          (queries.cuh, load.cuh)
//         for each tile of 8 to 64 tokens:
//             wait for the tile's copies;  barrier;  start the copies of the next one           (load.cuh)
//             int4 in groups: scales and mins of the tile in f16                                (scales.cuh)
//             a warp's m-tiles and k-slice of S^T = C Q^T, stored in shared memory              (scores.cuh)
//             barrier of the warps that share m-tiles
//             of its own fragments of scores: sums over k-slices, the rotated key               (logits.cuh, rope.cuh)
//             weights P = exp2(S - offset), 16-bit, to shared memory                            (softmax.cuh)
//             barrier;  as long as a weight is too large: raise the offset, weights again, barrier
//             a warp's slices of O^T += C^T P^T                                                 (output.cuh)
//         barrier;  sums of the block, and lse of each head;  barrier
//         write O^T / sum, bf16 or partials in f32                                              (write.cuh)
//         of partials: merge those of the query token, or a part of them             (decode/merge_splits.cuh)
//
// With one stage instead of two, a tile's copies start when its turn comes, with a barrier more behind them.
//
// Who owns what:
//     Scores: a warp has one or two m-tiles of 16 tokens and a k-slice of the latents. Those that share m-tiles divide
//         their fragments of 16 tokens and 8 heads, and each makes weights of its own ones.
//     Softmax: a lane has rows g and g + 8 and columns 2 t and 2 t + 1 of the warp's own fragments, as the tensor cores
//         leave them, and keeps what these add to its heads' sums.
//     Accumulators: a warp has slices w, w + 8, .. of 64 latents, for all heads: 16 * SLICES * N_TILES registers per
//         thread. With groups what mins add to the output is few numbers, in shared memory.
// Shared memory, divided by `src/ops/decode/sm80.rs`: the query (2 bytes per latent and head, and the k-steps of the
//     rotated key that the heads have), 1 or 2 stages of tokens as they are in the cache, 16 KiB of parts of scores for
//     32 heads, weights; about 3 KiB of BlockState.
// Per token and block, with latents of L numbers: the token's bytes of the cache, once; 4 L + 2 R FLOPs per head. Beside
//     them a value costs 11/8 instructions to unpack (in groups 12/8) and 2 conflict-free reads of its code. All
//     instructions that a token costs are held by tests/kernels/decode_budgets.rs.
// What bounds it: with int4 (L / 2 bytes) there are 8 FLOPs per byte and head, so that it is memory-bound up to about 20
//     heads on an A100, and compute-bound, by the tensor cores, from there on.
// Rounding: products are exact and sums f32. The query is exact in f16 but for numbers below 2^-27 of its largest;
//     weights, times a scale where latents have one, have 11 bits (bf16 latents: 16), and are normalised as rounded. In
//     groups a weight times a scale is rounded to 11 bits again. Everything else is exact, so that the lse is right to
//     f32 rounding.
#include "decode/merge_splits.cuh"
#include "decode/results.cuh"
#include "decode/sm80/block.cuh"
#include "decode/sm80/load.cuh"
#include "decode/sm80/output.cuh"
#include "decode/sm80/places.cuh"
#include "decode/sm80/queries.cuh"
#include "decode/sm80/rope.cuh"
#include "decode/sm80/scales.cuh"
#include "decode/sm80/scores.cuh"
#include "decode/sm80/shared.cuh"
#include "decode/sm80/softmax.cuh"
#include "decode/sm80/write.cuh"
#include "decode/split.cuh"
#include "ptx/barrier.cuh"
#include "ptx/griddepcontrol.cuh"

namespace {

template <typename S>
__device__ void decode(const DecodeParams &params) {
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ BlockState<S> block;
    wait_for_kernel_in_front();
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
    if (threadIdx.x == 0) {
        begin_merge(params, split.query, split.partial);
    }

    const SharedMemory<S> memory(shared, params);
    const unsigned tile = memory.tile_tokens();
    // Tiles of a split alternate between two of these, as between stages.
    const auto rows_of = [&](unsigned first) -> CopiedRows(&)[WARPS] {
        return block.rows[(first & tile) != 0 ? 1u : 0u];
    };
    const unsigned begin = tiles_begin(split);
    const Queries<S> queries(params, split.query, first_head);
    if (threadIdx.x < WARPS) {
        rows_of(begin)[threadIdx.x] = find_rows<S>(params, split, begin);
        rows_of(begin + tile)[threadIdx.x] = find_rows<S>(params, split, begin + tile);
    }
    prepare_copies<S>(params, memory);
    prepare_places<S>(params, memory, block);
    __syncthreads();
    if (memory.overlapped) {
        copy_tile<S>(params, memory, rows_of(begin), begin, split.end, block.warps);
    }
    queries.store(params, split.query, first_head, memory, block);
    begin_softmax<S>(params, memory, block);

    Output<S> output = {};
    Sums<S> sums = {};
    for (unsigned first = uniform(begin); first < split.end; first += tile) {
        cp_async_wait_all();
        // This tile is there, and nobody needs the one before.
        __syncthreads();
        if (memory.overlapped) {
            if (first + tile < split.end) {
                copy_tile<S>(params, memory, rows_of(first + tile), first + tile, split.end, block.warps);
            }
        } else {
            copy_tile<S>(params, memory, rows_of(first), first, split.end, block.warps);
            cp_async_wait_all();
            __syncthreads();
        }
        if constexpr (S::LATENTS == Latents::Groups) {
            prepare_scales<S>(params, memory.stage_of(first), min(tile, split.end - first), memory, block);
        }
        score_latents<S>(params, memory.stage_of(first), memory, block);
        // The k-slices of the warps that share m-tiles are there.
        if constexpr (S::K_SLICES < WARPS) {
            sync_group(ScoreTile<S>().m_group, WARP * S::K_SLICES);
        } else {
            __syncthreads();
        }
        const TileRange range(tile, split, first);
        FragmentC scores[S::OWN];
        const PairWords only_run = own_scores<S>(params, memory.stage_of(first), memory, block, scores);
        // Weights are made once, or twice where offsets had to be set, as before the first tile's. (With NaN among the
        // scores some may be too large for any.)
        unsigned raised = 0;
#pragma unroll 1
        for (;; raised = 1) {
            Sums<S> added = sums;
            const RowPair affine = own_affine_rows<S>(memory.stage_of(first), block);
            if (make_weights<S>(params, affine, only_run, range, memory, block, scores, added)) {
                atomicExch(&block.overflowed, first);
            }
            __syncthreads();
            if (opaque(raised) != 0 || block.overflowed != first) {
                sums = added;
                break;
            }
            raise_offsets<S>(params, memory.stage_of(first), range, block, scores, sums);
        }
        if (raised != 0) {
            rescale_output<S>(params, memory, block, output);
        }
        if (thread_index() < WARPS) {
            // In place of this tile's, whose copies all have been started.
            rows_of(first)[thread_index()] = find_rows<S>(params, split, first + 2 * tile);
        }
        accumulate<S>(params, memory.stage_of(first), memory, block, output);
    }

    // Nobody reads scores any more: sums take their place.
    __syncthreads();
    finish_softmax<S>(params, split, first_head, memory, block, sums);
    write_output<S>(params, split, first_head, memory, block, output);
    merge_splits<S, WholeBlock>(params, split.query, split.partial, shared);
}

}  // namespace

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define BLOCKS(before_blackwell, from_blackwell) from_blackwell
#else
#define BLOCKS(before_blackwell, from_blackwell) before_blackwell
#endif

#define DECODE_KERNEL(name, latents, slices, n_tiles, tokens, before_blackwell, from_blackwell)                     \
    static_assert(sizeof(BlockState<Shape<Latents::latents, slices, n_tiles, tokens>>) <=                           \
                      DECODE_SM80_STATIC_BYTES,                                                                     \
                  "the host plans with less static shared memory than " #name " has");                              \
    extern "C" __global__ void __launch_bounds__(DECODE_THREADS, BLOCKS(before_blackwell, from_blackwell))          \
        name(const __grid_constant__ DecodeParams params) {                                                         \
        decode<Shape<Latents::latents, slices, n_tiles, tokens>>(params);                                           \
    }

DECODE_SM80_KERNELS(DECODE_KERNEL)
