// The partials of a query token that was split, merged by the blocks that wrote them instead of by a launch of `combine`,
// whose arithmetic it is (../combine/rows.cuh): to the bit.
//
//     a block of a split, when it begins:  started += 1
//     when its partials are written:       arrived += 1
//         if others are to come, and one of them has not begun: it does not wait for that one, and leaves
//         claim a unit of work;  wait until all have arrived
//         until all units are claimed:     claim the next unit; merge the one before
//
// So the last block to arrive always merges, and all that wait are resident together with those that they wait for: no
// block waits for one that has no place. Where a query token's splits all run at once, all its blocks merge.
//
// A unit is a chunk of a head's latents, merged by the whole block; of up to COMBINE_FEW partials as many chunks as there are
// warps, one for each.
//
// The numbers are of a query token and a tile of heads, 16 bits each of one word. It is 0 before and after each launch:
// every block ends with an addition that says that it has left, or claims a unit that there is none of, and the last of
// these finds that all have, and clears the word.
#pragma once

#include "../combine/rows.cuh"
#include "../ptx/atomic.cuh"
#include "../ptx/special.cuh"

namespace merging {

// One of each number of the word.
constexpr uint64_t STARTED = 1, ARRIVED = 1ull << 16, CLAIMED = 1ull << 32, LEFT = 1ull << 48;

__device__ inline unsigned number(uint64_t word, uint64_t one) { return static_cast<unsigned>(word / one) & 0xFFFF; }

// Where partials are merged, in dynamic shared memory when nothing else is needed there any more.
struct MergeState {
    Ways ways;
    float scratch[WARP];
    // What is merged: the word, the first partial of the block's first head and its lse, and where its results go.
    uint64_t *word;
    const float *o_partial, *lse_partial;
    uint16_t *o_latent;
    float *lse;
    // Partials of a head, heads of the block and of the layer, and numbers of a latent.
    unsigned splits, heads, all_heads, latent_rank;
    // Whether rows may be accessed by vectors; the unit at hand.
    unsigned is_aligned, unit;
    // Of COMBINE_FEW partials for each warp, or of as many as there are, in whole batches.
    float weights[];
};
static_assert(sizeof(MergeState) == DECODE_MERGE_BYTES, "as the host has it");

// The word of a query token and the block's tile of heads.
__device__ inline uint64_t *word_of(const DecodeParams &params, unsigned query) {
    return reinterpret_cast<uint64_t *>(params.merges) + size_t(query) * gridDim.y + block_y();
}

// A block's part in a merge, by a team of WAYS warps.
template <typename Team>
struct Merge {
    MergeState &state;

    __device__ unsigned splits() const { return state.splits; }
    __device__ bool has_few() const { return splits() <= COMBINE_FEW; }

    // Chunks of all heads, and units.
    __device__ unsigned chunks() const { return state.heads * chunks_of(state.latent_rank); }
    __device__ unsigned units() const { return has_few() ? (chunks() + WAYS - 1) / WAYS : chunks(); }

    // By what an addition has left in the word: if every block of the query token has made its last one, clears it.
    __device__ void clear_if_all_left(uint64_t now) const {
        const unsigned claimed = number(now, CLAIMED), units = this->units();
        if (number(now, LEFT) + (claimed > units ? claimed - units : 0) == splits()) {
            *state.word = 0;
        }
    }

    // The unit of a claim that found the word so; units() if there is none left.
    __device__ unsigned claimed(uint64_t before) const {
        const unsigned unit = number(before, CLAIMED);
        if (unit >= units()) {
            clear_if_all_left(before + CLAIMED);
            return units();
        }
        return unit;
    }

    // Says that the block's partials are there. Returns its first unit, when all partials are; units() if there is none.
    __device__ unsigned arrive() const {
        const uint64_t before = fetch_add_acq_rel(state.word, ARRIVED);
        const bool is_last = number(before, ARRIVED) + 1 == splits();
        if (!is_last && number(before, STARTED) != splits()) {
            clear_if_all_left(fetch_add_relaxed(state.word, LEFT) + LEFT);
            return units();
        }
        const unsigned unit = claimed(fetch_add_relaxed(state.word, CLAIMED));
        if (!is_last && unit < units()) {
            // (More have arrived only if two runs of one plan were not ordered, which must not make anybody wait for ever.)
            while (number(load_acquire(state.word), ARRIVED) < splits()) {
                __nanosleep(20);
            }
        }
        return unit;
    }

    // Merges a unit.
    template <bool IS_ALIGNED>
    __device__ void merge(unsigned unit) const {
        const unsigned rank = state.latent_rank, all_heads = state.all_heads;
        const unsigned warp = Team::index() / WARP, own = has_few() ? unit * WAYS + warp : unit;
        if (own >= chunks()) {
            return;
        }
        const unsigned head = own / chunks_of(rank), chunk = own % chunks_of(rank);
        const float *lse_partial = state.lse_partial + head;
        float *weights = state.weights + (has_few() ? warp * COMBINE_FEW : 0);
        const unsigned skipped = head * rank;
        const Row row{state.o_partial + skipped, all_heads * rank, splits(), rank, weights, state.o_latent + skipped};
        float largest, sum;
        if (has_few()) {
            largest = weigh<OneWarp>(lse_partial, all_heads, splits(), COMBINE_FEW, weights, state.scratch);
            sum = merge_few<IS_ALIGNED>(row, chunk);
        } else {
            const unsigned padded = (splits() + COMBINE_BATCH - 1) / COMBINE_BATCH * COMBINE_BATCH;
            largest = weigh<Team>(lse_partial, all_heads, splits(), padded, weights, state.scratch);
            sum = merge_many<IS_ALIGNED, Team>(row, chunk, state.ways);
        }
        // The first thread of those that have the sum.
        if (chunk == 0 && (has_few() ? OneWarp::index() : Team::index()) == 0) {
            state.lse[head] = largest + logf(sum);
        }
    }

    template <bool IS_ALIGNED>
    __device__ void merge_units() const {
        for (unsigned unit = state.unit; unit < units(); unit = state.unit) {
            // The next claim is on its way while this unit is merged.
            uint64_t before = 0;
            if (Team::index() == 0) {
                before = fetch_add_relaxed(state.word, CLAIMED);
            }
            merge<IS_ALIGNED>(unit);
            Team::meet();
            if (Team::index() == 0) {
                state.unit = claimed(before);
            }
            Team::meet();
        }
    }

    // From arriving to leaving, when all of the state but the unit is there.
    __device__ void take_part() const {
        if (Team::index() == 0) {
            state.unit = arrive();
        }
        Team::meet();
        if (state.is_aligned != 0) {
            merge_units<true>();
        } else {
            merge_units<false>();
        }
    }
};

// A call, so that it takes no registers from the tiles in front of it, of which kernels have none to spare; a function for each
// kernel, as the compiler gives one that several kernels share the registers of the smallest.
template <typename S, typename Team>
__device__ __noinline__ void take_part(MergeState &state) {
    Merge<Team>{state}.take_part();
}

}  // namespace merging

// Whether a split's partials are merged by the blocks that write them.
__device__ inline bool is_merged_here(const DecodeParams &params, int32_t partial) {
    return partial >= 0 && params.merges != 0;
}

// Says that a block has begun with a split of this query token; for one thread. A call, as `take_part` is.
__device__ __noinline__ void begin_merge(const DecodeParams &params, unsigned query, int32_t partial) {
    if (is_merged_here(params, partial)) {
        add_relaxed(merging::word_of(params, query), merging::STARTED);
    }
}

// Merges the query token's partials, or some of them, if that is the block's to do: when all threads of the team have
// written its own. `shared` is the block's dynamic shared memory, on a multiple of 16 bytes.
template <typename S, typename Team>
__device__ void merge_splits(const DecodeParams &params, unsigned query, int32_t partial, unsigned char *shared) {
    if (!is_merged_here(params, partial)) {
        return;
    }
    merging::MergeState &state = *reinterpret_cast<merging::MergeState *>(shared);
    // All partials of the block are written, and nobody needs anything in shared memory any more.
    Team::meet();
    if (Team::index() == 0) {
        const int32_t *starts = reinterpret_cast<const int32_t *>(params.split_starts) + query;
        const unsigned first = __ldg(starts), all_heads = params.geometry.query_heads, rank = params.geometry.latent_rank;
        const unsigned first_head = block_y() * S::HEADS;
        const size_t part = size_t(first) * all_heads + first_head, result = size_t(query) * all_heads + first_head;
        state.word = merging::word_of(params, query);
        state.o_partial = reinterpret_cast<const float *>(params.o_partial) + part * rank;
        state.lse_partial = reinterpret_cast<const float *>(params.lse_partial) + part;
        state.o_latent = reinterpret_cast<uint16_t *>(params.o_latent) + result * rank;
        state.lse = reinterpret_cast<float *>(params.lse) + result;
        state.splits = __ldg(starts + 1) - first;
        state.heads = min(S::HEADS, all_heads - first_head);
        state.all_heads = all_heads;
        state.latent_rank = rank;
        state.is_aligned = merging::takes_vectors(rank, params.o_partial, params.o_latent);
    }
    merging::take_part<S, Team>(state);
}
