// `decode` by Hopper's own instructions: attention over the cached latents themselves, `src/reference/decode.rs` on the
// device. Tokens or latents on m, heads on n, so that int4 goes from codes to registers, as in decode_sm80.cu, and bf16
// is multiplied where it lies (decode/sm90/bf16.cuh):
//
//     S^T [tokens x heads]  = C [tokens x latents] Q^T,  O^T [latents x heads] += C^T P^T
//
//     a block for each split of `schedule` (one query token, a range of its tokens) and each 8, 16, 32 or 64 heads:
//         one warpgroup copies, tile by tile, into a ring of stages:                           (load.cuh)
//             wait until the stage is free;  start copies, which arrive at its barrier when they are done
//         two warpgroups store the query in shared memory, and take every other tile each:     (queries.cuh)
//             wait for the tile
//             S^T = K Q^T of the rotated keys, += what all mins give, += C Q^T      (rope.cuh, mins.cuh, scores.cuh)
//             weights P = exp2(S - reference), times scales in f16, to shared memory           (softmax.cuh)
//             barrier of the warpgroup
//             O^T += C^T P^T;  free the stage                                                  (output.cuh)
//         merge the warpgroups' outputs, and write them                                        (merge.cuh)
//         of partials: merge those of the query token, or a part of them            (decode/merge_splits.cuh)
//
// With 64 heads the outputs of all latents are too many for a warpgroup: the two take two tiles together, the scores of
// one each, meet in one barrier, and accumulate half of the latents each over both. With latents of bf16 they take one
// tile together, with the scores of half of the heads each.
//
// Who owns what:
//     Scores: warp w of a warpgroup has 16 of the 64 tokens, a thread two of these, for every fourth pair of heads.
//     Accumulators: a warpgroup has all latents of all heads, for its own tiles (with 64 heads half of the latents, for
//         all tiles): 4 * M_TILES * N_TILES registers per thread, at most 128.
// Shared memory, divided by `src/ops/decode/sm90.rs`: the query (2 bytes per latent and head, and per value of a
//     rotated key and head, and its sums over groups), weights of two tiles of each warpgroup (of one with 64 heads, or
//     bf16), about 3 KiB of BlockState, and stages of 64 tokens as they are in the cache. In the end what the
//     warpgroups hand to each other lies in the stages.
// Per token and block, with latents of L numbers: the token's bytes of the cache, once; 4 L + 2 R FLOPs per head, R
//     being all values of a rotated key. Beside them a value costs 10/8 instructions to unpack, and with latents in
//     groups 1 more to dequantise. All instructions that a
//     token costs are held by tests/kernels/decode_sm90_budgets.rs.
// What bounds it: predicted, as no GPU has timed it: with int4 (L / 2 bytes) and up to 32 heads the bytes, with 64
//     heads the tensor cores; with bf16 the bytes, 2 L. Warpgroups with tiles of their own wait for nobody but the
//     copies, so that one multiplies while the other has its softmax.
// Rounding: products are exact and sums f32. The query is exact in f16 but for numbers below 2^-27 of its largest;
//     weights times scales have 11 bits (softmax.cuh), and with latents in groups weights and values each (output.cuh); bf16
//     are exact, and their weights have 16 bits. Everything else is exact, so that the lse is right to f32 rounding.
#include "decode/merge_splits.cuh"
#include "decode/results.cuh"
#include "decode/sm90/bf16.cuh"
#include "decode/sm90/block.cuh"
#include "decode/sm90/load.cuh"
#include "decode/sm90/merge.cuh"
#include "decode/sm90/output.cuh"
#include "decode/sm90/queries.cuh"
#include "decode/sm90/rope.cuh"
#include "decode/sm90/scores.cuh"
#include "decode/sm90/shared.cuh"
#include "decode/sm90/softmax.cuh"
#include "decode/split.cuh"
#include "ptx/griddepcontrol.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/setmaxnreg.cuh"

namespace {

// Zeros in place of the 16-byte units `from` to `end - 1` of all rows of blocks of values, which begin `begin` bytes into
// each stage.
template <typename S>
__device__ void fill_blocks(const SharedMemory<S> &memory, unsigned begin, unsigned from, unsigned end) {
    for (unsigned i = threadIdx.x; i < (end - from) * TILE * memory.map().stage_count; i += CONSUMER_THREADS) {
        const unsigned row = i / (end - from), unit = from + i % (end - from);
        *reinterpret_cast<uint4 *>(memory.stage(row / TILE) + begin + place_of_unit(row % TILE, unit)) = {};
    }
}

// What no copy reaches, as a layer's rows are shorter than the kernel's: codes that are finite, whatever they are
// multiplied with.
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
    if constexpr (S::LATENTS == Latents::Bf16) {
        fill_blocks(memory, 0, params.cache.latent_row_bytes / 16, 8 * S::STEPS);
        if (params.cache.rope_kind == ROW_BF16) {
            fill_blocks(memory, map.rope, params.cache.rope_row_bytes / 16, 8 * map.rope_blocks);
            return;
        }
    } else {
        fill(0, params.cache.latent_row_bytes, S::ROW_BYTES, S::ROW_STRIDE);
    }
    fill(map.rope, params.cache.rope_row_bytes, 2 * map.rope_blocks * 4 * map.rope_lane_bytes, map.rope_stride);
    clear_behind_pairs(params, memory);
}

// The first of a thread's two tokens of a tile; the second is 8 further.
__device__ unsigned low_token() {
    const unsigned thread = thread_index() % WARPGROUP;
    return thread / WARP * 16 + token_in_row(thread % WARP / 4);
}

// Where in a stage the thread's numbers of that token are.
template <typename S>
struct Places {
    unsigned codes, keys, pairs;

    __device__ explicit Places(const DecodeParams &params)
        : codes(low_token() * S::ROW_STRIDE + 8 / S::STEP_GROUPS * (thread_index() % 4)),
          keys(params.sm90.rope + low_token() * params.sm90.rope_stride + thread_index() % 4 * params.sm90.rope_lane_bytes),
          pairs(params.sm90.affine + low_token() * params.cache.affine_row_bytes) {}
};

// A thread's tokens of the tile from token `first` on, with the pairs of their latents.
__device__ TokenRows rows_of_tile(const DecodeSplit &split, unsigned first, LatentAffine low, LatentAffine high) {
    const unsigned token = low_token(), skipped = max(split.first, first) - first;
    return {low, high, token, token + 8, skipped, min(split.end - first, TILE) - skipped};
}

// What a thread of a warpgroup does with a tile of tokens.
template <typename S>
struct TileScores {
    const DecodeParams &params;
    const SharedMemory<S> &memory;
    Places<S> own;

    __device__ TileScores(const DecodeParams &params, const SharedMemory<S> &memory)
        : params(params), memory(memory), own(params) {}

    // Where more heads leave no registers for them, they are computed where they are needed.
    __device__ Places<S> places() const {
        if constexpr (S::SHARED) {
            return Places<S>(params);
        }
        return own;
    }

    // Its tokens of the tile from token `first` on.
    __device__ TokenRows rows(const unsigned char *stage, unsigned first) const {
        const unsigned char *pair = stage + places().pairs;
        return rows_of_tile(memory.state().split, first, LatentAffine(at<uint32_t>(pair, 0)),
                            LatentAffine(at<uint32_t>(pair, 8 * params.cache.affine_row_bytes)));
    }

    __device__ void score(const unsigned char *stage, TokenRows &rows, Sums<S> &scores) const {
        const Places<S> own = places();
        const unsigned char *codes = stage + own.codes, *keys = stage + own.keys, *low_pairs = stage + own.pairs;
        const PairRows pairs = {low_pairs, low_pairs + 8 * params.cache.affine_row_bytes};
        float2 scales = {rows.low.scale, rows.high.scale};
        score_tokens<S>(params, memory, codes, keys, pairs, {rows.low.pair, rows.high.pair}, scales, scores);
        rows.low.scale = scales.x, rows.high.scale = scales.y;
    }
};

// A warpgroup's tiles of the split: every other one.
template <typename S>
__device__ void attend_alone(const DecodeParams &params, const SharedMemory<S> &memory, SoftmaxState<S> &state,
                             Output<S> &output) {
    BlockState<S> &block = memory.state();
    const unsigned group = uniform(threadIdx.x / WARPGROUP);
    const Meeting<S> meeting(group);
    const TileScores<S> tile(params, memory);
    const unsigned half_words = place_of_half_words<S>(), weights_place = place_of_weights();
    const uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
    unsigned which = 0;
    Slot slot;
    slot.advance(group, memory.map().stage_count);
    for (unsigned first = tiles_begin(block.split) + group * TILE; first < block.split.end; first += CONSUMERS * TILE) {
        mbarrier_wait(full + 8 * slot.index(), slot.parity());
        const unsigned char *stage = memory.stage(slot.index());
        TokenRows rows = tile.rows(stage, first);
        Sums<S> scores, p;
        tile.score(stage, rows, scores);
        const uint32_t weights = memory.weights(group, which);
        // A second time with new references, which bring all weights into f16 but those of scores that are no numbers.
#pragma unroll 1
        for (bool is_first = true;; is_first = false) {
            const bool beyond = weigh<S>(rows, scores, block, group, weights + weights_place, p);
            if (!meeting.any(beyond && is_first)) {
                break;
            }
            find_largest<S>(rows, scores, block, group, p);
            raise_references<S>(block, meeting, state, output);
        }
        add_sums<S>(rows, p, state);
        accumulate<S>(params, shared_address(stage) + half_words, token_pairs<S>(params, stage),
                      swizzled_descriptor(uniform(weights)), output);
        __syncwarp();
        mbarrier_arrive(empty + 8 * slot.index(), threadIdx.x % WARP == 0);
        // Warps of the group may still multiply these weights while others write the next tile's.
        which ^= 1;
        slot.advance(CONSUMERS, memory.map().stage_count);
    }
}

// All tiles of the split, two at a time: a warpgroup has the scores of one, and half of the latents for both. The last
// may be alone.
template <typename S>
__device__ void attend_together(const DecodeParams &params, const SharedMemory<S> &memory, Output<S> &output) {
    BlockState<S> &block = memory.state();
    const Meeting<S> meeting(0);
    const TileScores<S> tile(params, memory);
    const uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
    // Computed where it is needed, as other numbers of a thread: registers are the output's.
    const auto group = [] { return thread_index() / WARPGROUP; };
    // The number of a tile says all that is to be known of it: of two neighbours the even one is the first warpgroup's,
    // and weights alternate between two places.
    const auto exists = [&](unsigned number) { return tiles_begin(block.split) + number * TILE < block.split.end; };
    const auto wait = [&](unsigned number) {
        mbarrier_wait(full + number % TOGETHER_STAGES * 8, number / TOGETHER_STAGES % 2);
    };
    for (unsigned pair = 0; exists(pair); pair += CONSUMERS) {
        if (exists(pair + group())) {
            wait(pair + group());
        }
        // New references need the scores, and weights by these once more: they are computed anew, as there are no
        // registers for both. Weights are beyond f16 the second time only of scores that are no numbers.
        enum { WEIGH, RAISE, WEIGH_AGAIN } round = WEIGH;
#pragma unroll 1
        while (true) {
            TokenRows rows = {LatentAffine(0), LatentAffine(0), 0, 0, 0, 0};
            Sums<S> scores;
            const unsigned number = pair + group();
            if (exists(number)) {
                const unsigned char *stage = memory.stage(number % TOGETHER_STAGES);
                rows = tile.rows(stage, tiles_begin(block.split) + number * TILE);
                tile.score(stage, rows, scores);
            }
            if (round == RAISE) {
                if (exists(number)) {
                    find_largest<S>(rows, scores, block, meeting.group, scores);
                } else {
                    find_nothing<S>(block);
                }
                SoftmaxState<S> state = SoftmaxState<S>::load(memory);
                raise_references<S>(block, meeting, state, output);
                state.store(memory);
                round = WEIGH_AGAIN;
                continue;
            }
            // Nobody multiplies the weights before these any more.
            if (round == WEIGH) {
                meeting.sync();
            }
            const bool beyond =
                exists(number) && weigh<S>(rows, scores, block, meeting.group, memory.weights(group(), 0) + place_of_weights(), scores);
            if (!meeting.any(beyond && round == WEIGH)) {
                if (exists(number)) {
                    SoftmaxState<S> state = SoftmaxState<S>::load(memory);
                    add_sums<S>(rows, scores, state);
                    state.store(memory);
                }
                break;
            }
            round = RAISE;
        }
#pragma unroll 1
        for (unsigned i = 0; i < CONSUMERS; ++i) {
            const unsigned other = pair + i, index = other % TOGETHER_STAGES;
            if (!exists(other)) {
                break;
            }
            wait(other);
            accumulate<S>(params, shared_address(memory.stage(index)) + place_of_half_words<S>(),
                          token_pairs<S>(params, memory.stage(index)),
                          swizzled_descriptor(uniform(memory.weights(i, 0))), output);
            __syncwarp();
            mbarrier_arrive(empty + 8 * index, threadIdx.x % WARP == 0);
        }
    }
}

// All tiles of the split, each by both warpgroups (bf16.cuh).
template <typename S>
__device__ void attend_by_heads(const DecodeParams &params, const SharedMemory<S> &memory, SoftmaxState<S> &state,
                                Output<S> &output) {
    BlockState<S> &block = memory.state();
    const unsigned group = uniform(threadIdx.x / WARPGROUP), pair_bytes = params.cache.affine_row_bytes;
    const Meeting<S> meeting(group);
    const Places<S> own(params);
    // bf16 are what they are.
    const LatentAffine unscaled(affine_pair(0x3C00, 0));
    const unsigned weights_place = place_of_weights() + 1024 * S::N_TILES * group;
    const uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
    Slot slot;
    for (unsigned first = tiles_begin(block.split); first < block.split.end; first += TILE) {
        const unsigned char *stage = memory.stage(slot.index()), *pairs = stage + own.pairs, *keys = stage + own.keys;
        const uint2 parts = weight_parts(memory, stage);
        mbarrier_wait(full + 8 * slot.index(), slot.parity());
        // Products read by another proxy than copies write.
        fence_proxy_async();
        const TokenRows rows = rows_of_tile(block.split, first, unscaled, unscaled);
        Sums<S> scores, p;
        score_values<S>(params, memory, stage,
                        {keys, keys + 8 * params.sm90.rope_stride, {pairs, pairs + 8 * pair_bytes}}, group, scores);
        // Nobody multiplies the weights before these any more, nor the keys that they are stored over.
        meeting.sync();
        // A second time with new references, below whose bound all weights are but those of scores that are no numbers.
#pragma unroll 1
        for (bool is_first = true;; is_first = false) {
            const bool beyond = weigh_values<S>(rows, scores, block, group,
                                                {parts.x + weights_place, parts.y + weights_place}, p);
            if (!meeting.any(beyond && is_first)) {
                break;
            }
            find_largest<S>(rows, scores, block, group, p);
            raise_references<S>(block, meeting, state, output);
        }
        add_sums<S>(rows, p, state);
        accumulate_values<S>(stage, parts, group, output);
        __syncwarp();
        mbarrier_arrive(empty + 8 * slot.index(), threadIdx.x % WARP == 0);
        slot.advance(1, memory.map().stage_count);
    }
}

// The threads that multiply, which are all that are left in the end.
struct Consumers {
    __device__ static unsigned index() { return threadIdx.x; }
    __device__ static unsigned threads() { return CONSUMER_THREADS; }
    __device__ static void meet() { barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS); }
};

template <typename S>
__device__ void decode(const DecodeParams &params) {
    extern __shared__ __align__(1024) unsigned char shared[];
    wait_for_kernel_in_front();
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
        begin_merge(params, split.query, split.partial);
    }
    if (threadIdx.x < params.sm90.stage_count) {
        mbarrier_init(shared_address(&block.full[threadIdx.x]), PRODUCER_THREADS);
        mbarrier_init(shared_address(&block.empty[threadIdx.x]), Meeting<S>::THREADS / WARP);
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMER_THREADS) {
        release_registers<S::PRODUCER_REGISTERS>();
        copy_tiles<S>(params, memory);
        return;
    }
    acquire_registers<S::CONSUMER_REGISTERS>();
    fill_rows<S>(params, memory);
    load_queries<S>(params, block.split.query, first_head, whole_query(params), memory);
    fence_proxy_async();
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    SoftmaxState<S> state = {};
    Output<S> output = {};
    if constexpr (S::BY_HEADS) {
        attend_by_heads<S>(params, memory, state, output);
        write_values<S>(params, block.split, first_head, memory, state, output);
    } else if constexpr (S::SHARED) {
        state.store(memory);
        attend_together<S>(params, memory, output);
        state = SoftmaxState<S>::load(memory);
        merge_and_write<S>(params, block.split, first_head, memory, state, output);
    } else {
        attend_alone<S>(params, memory, state, output);
        merge_and_write<S>(params, block.split, first_head, memory, state, output);
    }
    // The state is in dynamic shared memory, where partials are merged.
    const unsigned query = block.split.query;
    const int32_t partial = block.split.partial;
    merge_splits<S, Consumers>(params, query, partial, shared);
}

}  // namespace

#define DECODE_KERNEL(name, latents, steps, n_tiles)                                                                   \
    static_assert(sizeof(BlockState<Shape<Latents::latents, steps, n_tiles>>) <=                                       \
                      DECODE_SM90_STATE_BYTES +                                                                        \
                          DECODE_SM90_STATE_HEAD_BYTES * Shape<Latents::latents, steps, n_tiles>::OWN_HEADS,           \
                  "the host plans with less shared memory than " #name " needs");                                      \
    extern "C" __global__ void __launch_bounds__(DECODE_SM90_THREADS, 1)                                               \
        name(const __grid_constant__ DecodeParams params) {                                                            \
        decode<Shape<Latents::latents, steps, n_tiles>>(params);                                                       \
    }

DECODE_SM90_KERNELS(DECODE_KERNEL)
