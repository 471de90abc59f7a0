// `decode` by Hopper's own instructions: attention over the cached latents themselves, `src/reference/decode.rs` on the
// device. Tokens or latents on m, heads on n, so that int4 goes from codes to registers, as in decode_sm80.cu:
//
//     S^T [tokens x heads]  = C [tokens x latents] Q^T,  O^T [latents x heads] += C^T P^T
//
//     a block for each split of `schedule` (one query token, a range of its tokens) and each 8, 16 or 32 heads:
//         one warpgroup copies, tile by tile, into a ring of stages:                           (load.cuh)
//             wait until the stage is free;  start copies, which arrive at its barrier when they are done
//         two warpgroups store the query in shared memory, and take every other tile each:     (queries.cuh)
//             wait for the tile
//             S^T = K Q^T of the rotated keys, += C Q^T                                        (rope.cuh, scores.cuh)
//             weights P = exp2(S - reference), times scales in f16, to shared memory           (softmax.cuh)
//             barrier of the warpgroup
//             O^T += C^T P^T;  free the stage                                                  (output.cuh)
//         merge the warpgroups' outputs, and write them                                        (merge.cuh)
//
// Who owns what:
//     Scores: warp w of a warpgroup has 16 of the 64 tokens, a thread two of these, for every fourth pair of heads.
//     Accumulators: a warpgroup has all latents of all heads, for its own tiles: 4 * STEPS * N_TILES registers per thread.
// Shared memory, divided by `src/ops/decode/sm90.rs`: the query (2 bytes per latent and head, and per value of a rotated
//     key and head), weights of two tiles of each warpgroup, about 3 KiB of BlockState, and stages of 64 tokens as they
//     are in the cache. In the end what the warpgroups hand to each other lies in the stages.
// Per token and block, with latents of L numbers: the token's bytes of the cache, once; 4 L + 2 R FLOPs per head, R being all
//     values of a rotated key. Beside them a value costs 10/8 instructions to unpack. All instructions that a token costs
//     are held by tests/kernels/decode_sm90_budgets.rs.
// What bounds it: with int4 (L / 2 bytes) and 32 heads, products take 70 to 80 % of the time of the bytes on an H200, and
//     all instructions as much. Warpgroups wait for nobody but the copies and themselves, so that one multiplies while
//     the other has its softmax.
// Rounding: products are exact and sums f32. The query is exact in f16 but for numbers below 2^-27 of its largest; weights
//     times scales have 11 bits (softmax.cuh). Everything else is exact, so that the lse is right to f32 rounding.
#include "decode/results.cuh"
#include "decode/sm90/block.cuh"
#include "decode/sm90/load.cuh"
#include "decode/sm90/merge.cuh"
#include "decode/sm90/output.cuh"
#include "decode/sm90/queries.cuh"
#include "decode/sm90/rope.cuh"
#include "decode/sm90/scores.cuh"
#include "decode/sm90/shared.cuh"
#include "decode/sm90/softmax.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/setmaxnreg.cuh"

namespace {

// What no copy reaches, as a layer's rows are shorter than the kernel's: codes that are finite, whatever they are multiplied
// with.
template <typename S>
__device__ void fill_rows(const DecodeParams &params, const SharedMemory<S> &memory) {
    const DecodeSm90Shared &map = memory.map();
    const auto fill = [&](unsigned begin, unsigned from, unsigned end, unsigned stride) {
        const unsigned units = from < end ? (end - from) / 16 : 0;
        for (unsigned i = threadIdx.x; i < units * TILE * map.stage_count; i += CONSUMER_THREADS) {
            const unsigned row = i / units;
            unsigned char *to = memory.stage(row / TILE) + begin + row % TILE * stride + from + i % units * 16;
            *reinterpret_cast<uint4 *>(to) = {};
        }
    };
    fill(0, params.cache.latent_row_bytes, S::ROW_BYTES, S::ROW_STRIDE);
    fill(map.rope, params.cache.rope_row_bytes, 2 * map.rope_blocks * 4 * map.rope_lane_bytes,
         map.rope_stride);
}

// A warpgroup's tiles of the split, of which `begin` is the first token.
template <typename S>
__device__ void attend(const DecodeParams &params, unsigned begin, const SharedMemory<S> &memory, SoftmaxState<S> &state,
                       Output<S> &output) {
    const DecodeSm90Shared &map = memory.map();
    BlockState<S> &block = memory.state();
    const unsigned group = uniform(threadIdx.x / WARPGROUP), lane = threadIdx.x % WARP, t = lane % 4;
    const unsigned low_token = threadIdx.x % WARPGROUP / WARP * 16 + token_in_row(lane / 4), high_token = low_token + 8;
    const unsigned rope_bytes = map.rope_lane_bytes * t, pair_bytes = params.cache.affine_row_bytes;
    const unsigned low_rope = map.rope + low_token * map.rope_stride + rope_bytes;
    const unsigned high_rope = map.rope + high_token * map.rope_stride + rope_bytes;
    const uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
    const uint64_t query = swizzled_descriptor(shared_address(memory.q_latent()));
    unsigned which = 0;
    Slot slot;
    slot.advance(group, map.stage_count);
    for (unsigned first = begin + group * TILE; first < block.split.end; first += CONSUMERS * TILE) {
        mbarrier_wait(full + 8 * slot.index(), slot.parity());
        const unsigned char *stage = memory.stage(slot.index()), *pairs = stage + map.affine;
        const unsigned char *low_pairs = pairs + low_token * pair_bytes, *high_pairs = pairs + high_token * pair_bytes;
        const unsigned skipped = max(block.split.first, first) - first;
        const TokenRows rows = {LatentAffine(at<uint32_t>(low_pairs, 0)), LatentAffine(at<uint32_t>(high_pairs, 0)),
                                low_token, high_token, skipped, min(block.split.end - first, TILE) - skipped};
        Sums<S> scores;
        const RopeRows rope = {stage + low_rope,
                               stage + high_rope,
                               low_pairs + 4 * params.cache.latent_groups,
                               high_pairs + 4 * params.cache.latent_groups,
                               reciprocal_approximate(rows.low.scale),
                               reciprocal_approximate(rows.high.scale)};
        score_rope<S>(params, rope, memory, scores);
        score_latents<S>(stage + low_token * S::ROW_STRIDE + 8 * t, stage + high_token * S::ROW_STRIDE + 8 * t, query, scores);
        const uint32_t weights = memory.weights(group, which);
        add_tile<S>(rows, scores, block, group, weights, state, output);
        accumulate<S>(shared_address(stage) + half_words<S>(), swizzled_descriptor(weights), output);
        __syncwarp();
        mbarrier_arrive(empty + 8 * slot.index(), lane == 0);
        // Warps of the group may still multiply these weights while others write the next tile's.
        which ^= 1;
        slot.advance(CONSUMERS, map.stage_count);
    }
}

template <typename S>
__device__ void decode(const DecodeParams &params) {
    extern __shared__ __align__(1024) unsigned char shared[];
    if (blockIdx.x >= *reinterpret_cast<const uint32_t *>(params.split_count)) {
        return;
    }
    const uint4 *splits = reinterpret_cast<const uint4 *>(params.splits) + sizeof(DecodeSplit) / 16 * blockIdx.x;
    const uint4 words = __ldg(splits);
    const DecodeSplit split = {words.x, words.y, words.z, words.w, static_cast<int32_t>(__ldg(splits + 1).x)};
    const unsigned first_head = blockIdx.y * S::HEADS;
    if (split.first >= split.end) {
        write_nothing<DECODE_SM90_THREADS>(params, split, first_head, S::HEADS);
        return;
    }
    const SharedMemory<S> memory(shared, params);
    BlockState<S> &block = memory.state();
    if (threadIdx.x == 0) {
        block.split = split;
    }
    if (threadIdx.x < params.sm90.stage_count) {
        mbarrier_init(shared_address(&block.full[threadIdx.x]), PRODUCER_THREADS);
        mbarrier_init(shared_address(&block.empty[threadIdx.x]), WARPGROUP_WARPS);
    }
    __syncthreads();
    // Tiles begin where pages may; what is before the split is skipped.
    const unsigned begin = uniform(split.first & ~7u);
    if (threadIdx.x >= CONSUMER_THREADS) {
        release_registers<S::PRODUCER_REGISTERS>();
        copy_tiles<S>(params, begin, memory);
        return;
    }
    acquire_registers<S::CONSUMER_REGISTERS>();
    fill_rows<S>(params, memory);
    load_queries<S>(params, block.split.query, first_head, memory);
    fence_proxy_async();
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    SoftmaxState<S> state = {};
    Output<S> output = {};
    attend<S>(params, begin, memory, state, output);
    merge_and_write<S>(params, block.split, first_head, memory, state, output);
}

}  // namespace

#define DECODE_KERNEL(name, latents, steps, n_tiles)                                                                     \
    static_assert(sizeof(BlockState<Shape<Latents::latents, steps, n_tiles>>) <= DECODE_SM90_STATE_BYTES,                \
                  "the host plans with less shared memory than " #name " needs");                                        \
    extern "C" __global__ void __launch_bounds__(DECODE_SM90_THREADS, 1)                                                 \
        name(const __grid_constant__ DecodeParams params) {                                                              \
        decode<Shape<Latents::latents, steps, n_tiles>>(params);                                                         \
    }

DECODE_SM90_KERNELS(DECODE_KERNEL)
