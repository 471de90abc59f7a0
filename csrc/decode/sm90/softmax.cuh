// The softmax over a warpgroup's tiles: weights from scores, and what they add up to. A thread has two tokens of each
// 64 and keeps what they add to its heads' sums to the end.
//
// A weight is P = 2^(x - reference), x being the score as an exponent of 2, and what is multiplied with the codes is W
// = P times the token's scale, rounded to f16 once. The reference is the same for a long time: only if a W of any token
// of the tile is beyond f16, all heads get the one that makes their tile's largest W 2^6, unless theirs is higher
// already, and all sums are rescaled. So the largest W was at least 2^6 at its time: those down to 2^-20 of it keep all
// 11 bits, and all that are lost of 2^17 tokens are 2^-14 of it. Before the first tile the reference is minus infinity,
// which makes every W infinite.
//
// Where latents are in groups, W is P itself, and there are no sums of P min. With latents of bf16 W is P too, the sum of
// two bf16, 16 bits of it (bf16.cuh); its bound is where f16 ends nearly, 2^16.
//
// P, the sums of P and those of P min, are f32: with scales of at least f16's smallest number, 2^-24, a P is at most
// 2^40. The result differs from a weighted mean by what W's roundings change: up to 2^-11 of each value's distance from
// its token's min, independent from token to token.
#pragma once

#include <math_constants.h>

#include "../../ptx/barrier.cuh"
#include "../../ptx/convert.cuh"
#include "../../ptx/proxy.cuh"
#include "../../ptx/special.cuh"
#include "../../ptx/stmatrix.cuh"
#include "output.cuh"
#include "rope.cuh"

// The largest W's exponent behind a new reference.
constexpr float LARGEST_WEIGHT_LOG2 = 6.0f;

// Of those that work on a tile: whose references they use, and the threads that meet.
template <typename S>
struct Meeting {
    unsigned group, barrier;
    static constexpr unsigned THREADS = S::SHARED ? CONSUMER_THREADS : WARPGROUP;

    __device__ explicit Meeting(unsigned warpgroup)
        : group(S::SHARED && !S::BY_HEADS ? 0 : warpgroup), barrier(S::SHARED ? CONSUMER_BARRIER : GROUP_BARRIER + warpgroup) {}

    __device__ void sync() const { barrier_sync(barrier, THREADS); }
    __device__ bool any(bool condition) const { return barrier_any(barrier, THREADS, condition); }
};

// Of a thread's heads: its tokens' sums of P and of P min.
template <typename S>
struct SoftmaxState {
    float sum[S::COLUMNS], mins[S::COLUMNS];

    // In shared memory, between the tiles of a shape whose registers are all the output's.
    __device__ static SoftmaxState load(const SharedMemory<S> &memory) {
        SoftmaxState state;
#pragma unroll
        for (int i = 0; i < S::COLUMNS; i += 2) {
            const float4 kept = *memory.state_of_thread(i / 2);
            state.sum[i] = kept.x, state.sum[i + 1] = kept.y, state.mins[i] = kept.z, state.mins[i + 1] = kept.w;
        }
        return state;
    }

    __device__ void store(const SharedMemory<S> &memory) const {
#pragma unroll
        for (int i = 0; i < S::COLUMNS; i += 2) {
            *memory.state_of_thread(i / 2) = {sum[i], sum[i + 1], mins[i], mins[i + 1]};
        }
    }
};

// A thread's two tokens: the pairs of (scale, min) of their latents, and where they stand among the tokens of the tile
// that the split has, `count` of them from number `first` on.
struct TokenRows {
    LatentAffine low, high;
    unsigned low_token, high_token, first, count;

    // What weights are multiplied with for the output: that of latents with one scale.
    template <typename S>
    __device__ float2 weight_factors() const {
        return S::LATENTS == Latents::Whole ? float2{low.scale, high.scale} : float2{1.0f, 1.0f};
    }
};

// The exponents x in the order of the sums, minus the references if they are RELATIVE; minus infinity of tokens that do
// not exist.
template <typename S, bool RELATIVE>
__device__ void exponents(const TokenRows &rows, const Sums<S> &scores, const BlockState<S> &block, unsigned group,
                          Sums<S> &x) {
    const float factor = block.factor, low = rows.low.scale * factor, high = rows.high.scale * factor;
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        const float2 reference =
            RELATIVE ? *reinterpret_cast<const float2 *>(&block.references[group][8 * n + threadIdx.x % 4 * 2])
                     : float2{0.0f, 0.0f};
        x[4 * n] = fmaf(scores[4 * n], low, -reference.x);
        x[4 * n + 1] = fmaf(scores[4 * n + 1], low, -reference.y);
        x[4 * n + 2] = fmaf(scores[4 * n + 2], high, -reference.x);
        x[4 * n + 3] = fmaf(scores[4 * n + 3], high, -reference.y);
    }
    if (rows.count < TILE) {
        const bool low_exists = rows.low_token - rows.first < rows.count;
        const bool high_exists = rows.high_token - rows.first < rows.count;
#pragma unroll
        for (int i = 0; i < S::SUMS; ++i) {
            x[i] = (i % 4 < 2 ? low_exists : high_exists) ? x[i] : -CUDART_INF_F;
        }
    }
}

// Where in a tile's weights the thread's row is, `lane % 8` of four matrices: two of 8 tokens each of two n-tiles.
__device__ inline unsigned place_of_weights() {
    const unsigned thread = thread_index() % WARPGROUP, lane = thread % WARP;
    return swizzled(lane % 8, 16 * (thread / WARP * 2 + lane / 8 % 2)) + lane / 16 * 1024;
}

// Stores weights of a thread's two tokens as pairs of heads, one of either token in each n-tile, from its place in a tile's
// on.
template <typename S>
__device__ void store_weights(uint32_t weights, const uint32_t (&packed)[2 * S::N_TILES]) {
    if constexpr (S::N_TILES == 1) {
        stmatrix_x2_transposed(weights, packed[0], packed[1]);
    } else {
#pragma unroll
        for (int n = 0; n < S::N_TILES; n += 2) {
            stmatrix_x4_transposed(weights + 1024 * n, packed[2 * n], packed[2 * n + 1], packed[2 * n + 2],
                                   packed[2 * n + 3]);
        }
    }
}

// A tile's P, and its weights in shared memory, of which every warp of the group stores its 16 tokens, from the thread's
// place in them on; returns whether any of the thread's is beyond f16.
template <typename S>
__device__ bool weigh(const TokenRows &rows, const Sums<S> &scores, const BlockState<S> &block, unsigned group,
                      uint32_t weights, Sums<S> &p) {
    uint32_t packed[2 * S::N_TILES], largest = 0;
    const float2 factors = rows.template weight_factors<S>();
    exponents<S, true>(rows, scores, block, group, p);
#pragma unroll
    for (int i = 0; i < S::SUMS; ++i) {
        p[i] = exp2_approximate(p[i]);
    }
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        packed[2 * n] = f16x2_from_f32(p[4 * n] * factors.x, p[4 * n + 1] * factors.x);
        packed[2 * n + 1] = f16x2_from_f32(p[4 * n + 2] * factors.y, p[4 * n + 3] * factors.y);
        // Weights are not negative: their bits have their order, infinity above all numbers and NaN above that.
        largest = __vmaxu2(largest, __vmaxu2(packed[2 * n], packed[2 * n + 1]));
    }
    store_weights<S>(weights, packed);
    fence_proxy_async();
    // 0x7C00 is infinity.
    return ((largest + 0x04000400) & 0x80008000) != 0;
}

// Leaves for the others what new references the warp's tokens of a tile ask for. `x` may be the scores themselves.
template <typename S>
__device__ void find_largest(const TokenRows &rows, const Sums<S> &scores, BlockState<S> &block, unsigned group,
                             Sums<S> &x) {
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const float2 factors = rows.template weight_factors<S>();
    const float low = log2_approximate(factors.x), high = log2_approximate(factors.y);
    exponents<S, false>(rows, scores, block, group, x);
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        float2 largest = {fmaxf(x[4 * n] + low, x[4 * n + 2] + high), fmaxf(x[4 * n + 1] + low, x[4 * n + 3] + high)};
        largest = {reduce_rows(largest.x, Maximum()), reduce_rows(largest.y, Maximum())};
        if (lane < 4) {
            *reinterpret_cast<float2 *>(&block.of_warp[warp].largest[8 * n + 2 * lane]) = largest;
        }
    }
}

// The same of a warp without tokens.
template <typename S>
__device__ void find_nothing(BlockState<S> &block) {
    for (unsigned head = threadIdx.x % WARP; head < S::HEADS; head += WARP) {
        block.of_warp[threadIdx.x / WARP].largest[head] = -CUDART_INF_F;
    }
}

// New references, and all sums in their terms.
template <typename S>
__device__ void raise_references(BlockState<S> &block, const Meeting<S> &meeting, SoftmaxState<S> &state,
                                 Output<S> &output) {
    // Of both warpgroups' heads where each has half of them: the outputs are of all.
    constexpr unsigned GROUPS = S::BY_HEADS ? CONSUMERS : 1, WARPS = Meeting<S>::THREADS / WARP / GROUPS;
    const unsigned lane = threadIdx.x % WARP;
    meeting.sync();
    float2 after[S::BLOCK_TILES];
#pragma unroll
    for (int tile = 0; tile < S::BLOCK_TILES; ++tile) {
        const unsigned n = tile % S::N_TILES, group = S::BY_HEADS ? tile / S::N_TILES : meeting.group;
        float2 largest = {-CUDART_INF_F, -CUDART_INF_F};
#pragma unroll
        for (unsigned warp = 0; warp < WARPS; ++warp) {
            const float2 found =
                *reinterpret_cast<const float2 *>(&block.of_warp[WARPS * group + warp].largest[8 * n + lane % 4 * 2]);
            largest = {fmaxf(largest.x, found.x), fmaxf(largest.y, found.y)};
        }
        const float2 before = *reinterpret_cast<const float2 *>(&block.references[group][8 * n + lane % 4 * 2]);
        after[tile] = {fmaxf(before.x, largest.x - LARGEST_WEIGHT_LOG2),
                       fmaxf(before.y, largest.y - LARGEST_WEIGHT_LOG2)};
#pragma unroll
        for (int column = 0; column < 2; ++column) {
            const int i = 2 * n + column;
            const float shrink = exp2_approximate(column == 0 ? before.x - after[tile].x : before.y - after[tile].y);
            if (!S::BY_HEADS || group == meeting.group) {
                state.sum[i] *= shrink;
                state.mins[i] *= shrink;
            }
#pragma unroll
            for (int j = 0; j < S::M_TILES; ++j) {
                output[j][4 * tile + column] *= shrink;
                output[j][4 * tile + column + 2] *= shrink;
            }
        }
    }
    // Everybody has read those before.
    meeting.sync();
#pragma unroll
    for (int tile = 0; tile < S::BLOCK_TILES; ++tile) {
        const unsigned n = tile % S::N_TILES, group = S::BY_HEADS ? tile / S::N_TILES : meeting.group;
        if (threadIdx.x / WARP == WARPS * group && lane < 4) {
            *reinterpret_cast<float2 *>(&block.references[group][8 * n + 2 * lane]) = after[tile];
        }
    }
    meeting.sync();
}

// Adds a tile's P to the sums.
template <typename S>
__device__ void add_sums(const TokenRows &rows, const Sums<S> &p, SoftmaxState<S> &state) {
#pragma unroll
    for (int i = 0; i < S::COLUMNS; ++i) {
        const float low = p[i / 2 * 4 + i % 2], high = p[i / 2 * 4 + i % 2 + 2];
        state.sum[i] += low;
        state.sum[i] += high;
        if constexpr (S::LATENTS == Latents::Whole) {
            state.mins[i] = fmaf(low, rows.low.min(), fmaf(high, rows.high.min(), state.mins[i]));
        }
    }
}
