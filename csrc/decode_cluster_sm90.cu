// `decode` of long latents by Hopper's own instructions: attention over the cached latents themselves,
// `src/reference/decode.rs` on the device, for latents of more than 512 numbers. decode_sm90.cu says how a block multiplies;
// here a cluster of blocks shares each tile of tokens, so that every code is read and unpacked once:
//
//     a cluster for each split of `schedule` (one query token, a range of its tokens) and each 8, 16 or 32 heads; block r of
//     it has 512 latents, a run with one scale, and a part of the rotated keys:
//         one warpgroup copies the block's part of each tile into a ring of stages             (load.cuh)
//         two warpgroups have the scores of every other tile, two tiles ahead:                 (scores.cuh)
//             S^T = K Q^T of the block's rotated keys, += C Q^T of its latents
//             partial scores to the blocks that do the softmax of 16 of the tokens each
//           and half of the block's latents of every tile each:                                (output.cuh)
//             wait for the tile's weights;  O^T += C^T P^T;  free the stage
//         one warpgroup does the softmax of the block's share of tokens, 8 heads a warp:       (softmax.cuh)
//             add the blocks' partial scores in ascending order
//             weights P = exp2(S - reference), times each block's scales in f16, to that block
//     all blocks give the others their sums of P, and write the outputs of their latents
//
// Who waits for whom: scores of a tile for the copies; the softmax for scores of all blocks, and for room among the
// weights of all; outputs for weights of all blocks. No barrier of a whole block or cluster is in the loop; block.cuh says
// why nothing is overwritten too early.
// Shared memory, divided by `src/ops/decode/sm90/cluster.rs`: the block's part of the query, weights of six tiles,
// `ClusterState` (40 KiB with 32 heads, mostly partial scores of 48 tokens), stages of 64 tokens.
// Per token and cluster: the token's bytes of the cache, once. Per tile of 64 tokens and block of 32 heads, through
// distributed shared memory: 8.25 KiB of partial scores and 4.6 KiB of weights with their references, of which a block's
// share goes to itself.
// Rounding: as in decode_sm90.cu. Scores are sums of the blocks' parts, in the order of the blocks.
#include "decode/cluster/block.cuh"
#include "decode/cluster/load.cuh"
#include "decode/cluster/output.cuh"
#include "decode/cluster/scores.cuh"
#include "decode/cluster/softmax.cuh"
#include "decode/results.cuh"
#include "decode/sm90/merge.cuh"
#include "decode/sm90/queries.cuh"
#include "ptx/griddepcontrol.cuh"
#include "ptx/setmaxnreg.cuh"

namespace {

// Scores of every other tile of the split, and the block's latents of all tiles, half of them to a warpgroup.
template <typename S>
__device__ void attend(const DecodeParams &params, const SharedMemory<S> &memory, unsigned rank, Accumulated<S> &sums) {
    ClusterState<S> &state = cluster_state(memory);
    const unsigned group = uniform(threadIdx.x / WARPGROUP), tiles = tile_count(state.split);
    const uint32_t full = shared_address(state.full), empty = shared_address(state.empty);
    Slot scored, read, weighed;
    for (unsigned tile = 0; tile < tiles + TILES_AHEAD; ++tile) {
        if (tile < tiles && tile % CONSUMERS == group) {
            mbarrier_wait(full + 8 * scored.index(), scored.parity());
            send_scores<S>(params, memory, memory.stage(scored.index()), tile, rank);
        }
        scored.advance(1, params.sm90.stage_count);
        if (tile < TILES_AHEAD) {
            continue;
        }
        mbarrier_wait(full + 8 * read.index(), read.parity());
        cluster_wait(shared_address(&state.weighed[weighed.index()]), weighed.parity());
        fence_proxy_async();
        accumulate_tile<S>(params, memory, memory.stage(read.index()), tile - TILES_AHEAD, weighed.index(), sums);
        __syncwarp();
        mbarrier_arrive(empty + 8 * read.index(), threadIdx.x % WARP == 0);
        read.advance(1, params.sm90.stage_count);
        weighed.advance(1, WEIGHT_TILES);
    }
}

// Each head's sums over all blocks: leaves what its outputs are multiplied with and what is added; the first block writes
// its lse. The largest of the references is that of the outputs, too.
template <typename S>
__device__ void merge_totals(const DecodeParams &params, unsigned first_head, ClusterState<S> &state, unsigned rank) {
    const unsigned head = threadIdx.x;
    if (head < S::HEADS) {
        float reference = LOWEST_REFERENCE, sum = 0.0f, mins = 0.0f;
#pragma unroll
        for (unsigned run = 0; run < S::RUNS; ++run) {
            reference = fmaxf(reference, state.totals[run][head].z);
        }
#pragma unroll
        for (unsigned run = 0; run < S::RUNS; ++run) {
            const float4 total = state.totals[run][head];
            const float shrink = exp2_approximate(total.z - reference);
            sum = fmaf(total.x, shrink, sum), mins = fmaf(total.y, shrink, mins);
        }
        state.rescale[0][head] = OUTPUT_UNIT<S> / sum;
        state.offsets[head] = mins / sum;
        if (rank == 0) {
            write_lse(params, state.split, first_head + head, (reference + log2f(sum)) * CUDART_LN2_F);
        }
    }
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
}

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
    const unsigned first_head = blockIdx.y * S::HEADS, rank = cluster_rank();
    if (split.first >= split.end) {
        if (rank == 0) {
            write_nothing<DECODE_CLUSTER_SM90_THREADS>(params, split, first_head, S::HEADS);
        }
        return;
    }
    const SharedMemory<S> memory(shared, params);
    ClusterState<S> &state = cluster_state(memory);
    if (threadIdx.x == 0) {
        state.split = split;
    }
    if (threadIdx.x < params.sm90.stage_count) {
        mbarrier_init(shared_address(&state.full[threadIdx.x]), PRODUCER_THREADS);
        mbarrier_init(shared_address(&state.empty[threadIdx.x]), CONSUMER_THREADS / WARP);
    }
    if (threadIdx.x < S::UNITS) {
        // Of every block a warp that has scores, and one that copies.
        mbarrier_init(shared_address(&state.scored[threadIdx.x]), 2 * S::RUNS);
    }
    if (threadIdx.x < WEIGHT_TILES) {
        mbarrier_init(shared_address(&state.weighed[threadIdx.x]), TILE_UNITS * S::N_TILES);
    }
    fence_mbarrier_init();
    cluster_sync();
    if (threadIdx.x >= WEIGHERS_BEGIN) {
        release_registers<S::WEIGHER_REGISTERS>();
        weigh_tiles<S>(memory, rank);
        cluster_sync();
        return;
    }
    if (threadIdx.x >= CONSUMER_THREADS) {
        release_registers<S::PRODUCER_REGISTERS>();
        copy_part_of_tiles<S>(params, memory);
        cluster_sync();
        return;
    }
    acquire_registers<S::CONSUMER_REGISTERS>();
    const QueryPart part = {rank * DECODE_CLUSTER_SM90_RUN, rank * params.sm90.rope_blocks * 2 * ROPE_STEP,
                            own_rope_groups(params)};
    clear_behind_pairs(params, memory);
    load_queries<S>(params, state.split.query, first_head, part, memory);
    fence_proxy_async();
    barrier_sync(CONSUMER_BARRIER, CONSUMER_THREADS);
    Accumulated<S> sums;
    attend<S>(params, memory, rank, sums);
    cluster_sync();
    merge_totals<S>(params, first_head, state, rank);
    write_outputs<S>(params, state.split, first_head, part.latent, state, sums.output);
}

}  // namespace

#define DECODE_KERNEL(name, latents, runs, n_tiles)                                                                    \
    static_assert(sizeof(ClusterState<ClusterShape<Latents::latents, runs, n_tiles>>) <=                               \
                      DECODE_CLUSTER_SM90_STATE_BYTES +                                                                \
                          n_tiles * (DECODE_CLUSTER_SM90_STATE_HEADS_BYTES +                                           \
                                     DECODE_CLUSTER_SM90_STATE_BLOCK_BYTES * runs +                                    \
                                     DECODE_CLUSTER_SM90_STATE_PARTIAL_BYTES * runs *                                  \
                                         ClusterShape<Latents::latents, runs, n_tiles>::UNITS),                        \
                  "the host plans with less shared memory than " #name " needs");                                      \
    extern "C" __global__ void __launch_bounds__(DECODE_CLUSTER_SM90_THREADS, 1)                                       \
        name(const __grid_constant__ DecodeParams params) {                                                            \
        decode<ClusterShape<Latents::latents, runs, n_tiles>>(params);                                                 \
    }

DECODE_CLUSTER_SM90_KERNELS(DECODE_KERNEL)
