// The softmax over a block's tokens, tile by tile. The warp that a fragment of scores belongs to (fragments.cuh) makes
// weights of it in its registers, and keeps what they add to its heads' sums there to the end.
//
//     weight = exp2(score * factor + offset)
//
// The offset brings the largest weight to WEIGHT_OF_LARGEST when it is set, and stays as it is until a tile has a weight
// (times its scale) of LIMIT or more, which an f16 could not hold much longer: then it is set again, and what there is is
// multiplied with the difference. Between 2^9 and 2^15 scores can grow by 6 exponents before that happens, so that few
// tiles but the first pay for it, and others have no maximum to find. Weights keep all 11 bits down to 2^-23 of the
// largest. The lse is of exact weights, but what the output is divided by is the sum of the rounded ones, so that it is a
// weighted mean, only with weights that are off by up to 2^-11 (Bf16: 2^-17).
//
// Whole: what is stored is a weight times its token's scale of each run, divided by the run's unit, the largest power of
// two not above the largest scale when the offset was last set; rounded once. The rounded weight is the quotient again.
// Groups: weights alone; scales are multiplied where they meet codes. Bf16: a weight is the sum of two.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/convert.cuh"
#include "../../ptx/half.cuh"
#include "../../ptx/movmatrix.cuh"
#include "../../ptx/special.cuh"
#include "../results.cuh"
#include "logits.cuh"
#include "output.cuh"
#include "scales.cuh"
#include "shared.cuh"

constexpr float LARGEST_EXPONENT = 9.0f;

// Weights of this much are too large: 2^15, of which an f16 has these bits of the exponent.
constexpr float LIMIT = 32768.0f;
constexpr uint32_t LIMIT_BITS = 0x78007800, LOWEST_LIMIT_BITS = 0x08000800, CARRIES = 0x80008000;

// Scales are taken to be no less than this part of the unit, but 0: then what they multiply is small beside the rest, and
// weights keep bits enough.
constexpr float LEAST_SCALE = 1.0f / 1048576.0f;

// What a weight of a token is multiplied with for a run, its scale in units, and what the rounded product is multiplied
// with to have the rounded weight, and that times the token's min.
struct RowFactors {
    float scale, inverse, min;

    __device__ RowFactors() {}

    __device__ RowFactors(float token_scale, float token_min, float inverse_unit) {
        // Where a scale is 0 all codes are: any factor does.
        scale = token_scale > 0.0f ? fmaxf(token_scale * inverse_unit, LEAST_SCALE) : 1.0f;
        inverse = reciprocal_approximate(scale);
        min = token_min * inverse;
    }
};

// The tokens of the tile from token `first` on that its split has.
struct TileRange {
    unsigned tile_tokens, first, split_first, split_end;

    __device__ TileRange(unsigned tile_tokens, const DecodeSplit &split, unsigned first)
        : tile_tokens(tile_tokens), first(first), split_first(split.first), split_end(split.end) {}

    __device__ unsigned skipped() const { return max(split_first, first) - first; }
    __device__ unsigned count() const { return min(tile_tokens, split_end - first); }
    // Whether it has all of so many positions. (Asked of every tile: skipped and count would take more instructions.)
    __device__ bool is_whole(unsigned positions) const {
        return tile_tokens >= positions && split_first <= first && split_end - first >= positions;
    }
    __device__ bool has(unsigned position) const {
        const unsigned token = token_at(position);
        return token >= skipped() && token < count();
    }
};

// Makes B fragments of a plane of C fragments, rows g (x) and g + 8 (y) of an m-tile, columns 2 t and 2 t + 1: stores those
// of all of the warp's own n-tiles once it has the last one.
template <typename S>
struct PlaneWriter {
    unsigned char *to;
    uint2 first;

    __device__ void add(int i, uint32_t x, uint32_t y) {
        const uint2 fragment = {transposed_matrix(x), transposed_matrix(y)};
        if (S::OWN == 1) {
            reinterpret_cast<uint2 *>(to)[thread_index() % WARP] = fragment;
        } else if (i == 0) {
            first = fragment;
        } else {
            reinterpret_cast<uint4 *>(to)[thread_index() % WARP] = {first.x, first.y, fragment.x, fragment.y};
        }
    }
};

// Makes weights of the warp's own fragments of scores, and adds them to `sums`. Whether one of them is too large.
// `only_run` is what the lane has of the pairs of a single run.
template <typename S>
__device__ bool make_weights(const DecodeParams &params, const RowPair &affine, const PairWords &only_run,
                             const TileRange &range, const SharedMemory<S> &memory, const BlockState<S> &block,
                             const FragmentC (&scores)[S::OWN], Sums<S> &sums) {
    const unsigned lane = thread_index() % WARP;
    const OwnPlaces place = block.own[thread_index() / WARP];
    if (!OwnFragment<S>(0).exists) {
        return false;
    }
    uint32_t largest = 0;
    PlaneWriter<S> weights[S::PLANES];
#pragma unroll
    for (int plane = 0; plane < S::PLANES; ++plane) {
        weights[plane].to = memory.weights(plane, place.fragment);
    }
    RowFactors low, high;
    const auto set_factors = [&](int run) {
        const RowScales rows(S::RUNS == 1 ? only_run : PairWords(affine, run));
        const float inverse_unit = block.inverse_units[run];
        low = RowFactors(rows.scale_low, rows.min_low, inverse_unit);
        high = RowFactors(rows.scale_high, rows.min_high, inverse_unit);
    };
    // A single run's are the same for all fragments.
    if constexpr (S::LATENTS == Latents::Whole && S::RUNS == 1) {
        set_factors(0);
    }
    const HeadExponent *exponent = block.exponents + 8 * place.n_tile + 2 * (lane % 4);
    float weight[S::OWN][4];
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const float4 exponents = *reinterpret_cast<const float4 *>(exponent + 8 * i);
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            weight[i][x] = exp2_approximate(x % 2 == 0 ? fmaf(scores[i][x], exponents.x, exponents.y)
                                                       : fmaf(scores[i][x], exponents.z, exponents.w));
        }
    }
    if (!range.is_whole(S::TOKENS)) {
        const unsigned position = 16 * OwnFragment<S>(0).m_tile + lane / 4;
        const bool low = range.has(position), high = range.has(position + 8);
#pragma unroll
        for (float (&p)[4] : weight) {
            p[0] = low ? p[0] : 0.0f, p[1] = low ? p[1] : 0.0f;
            p[2] = high ? p[2] : 0.0f, p[3] = high ? p[3] : 0.0f;
        }
    }
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const float (&p)[4] = weight[i];
        float2 &sum = sums.of[i][0];
        sum = {sum.x + (p[0] + p[2]), sum.y + (p[1] + p[3])};
        if constexpr (S::LATENTS == Latents::Whole) {
#pragma unroll
            for (int run = 0; run < S::RUNS; ++run) {
                if (run > 0 && run >= params.cache.latent_groups) {
                    break;
                }
                if constexpr (S::RUNS > 1) {
                    set_factors(run);
                }
                const uint32_t x = f16x2_from_f32(p[0] * low.scale, p[1] * low.scale);
                const uint32_t y = f16x2_from_f32(p[2] * high.scale, p[3] * high.scale);
                const float2 a = f32x2_from_f16x2(x), b = f32x2_from_f16x2(y);
                float2 &rounded = sums.of[i][1 + 2 * run], &mins = sums.of[i][2 + 2 * run];
                rounded = {fmaf(a.x, low.inverse, fmaf(b.x, high.inverse, rounded.x)),
                           fmaf(a.y, low.inverse, fmaf(b.y, high.inverse, rounded.y))};
                mins = {fmaf(a.x, low.min, fmaf(b.x, high.min, mins.x)),
                        fmaf(a.y, low.min, fmaf(b.y, high.min, mins.y))};
                largest = max_f16x2(largest, max_f16x2(x, y));
                weights[run].add(i, x, y);
            }
        } else if constexpr (S::LATENTS == Latents::Groups) {
            const uint32_t x = f16x2_from_f32(p[0], p[1]), y = f16x2_from_f32(p[2], p[3]);
            const float2 a = f32x2_from_f16x2(x), b = f32x2_from_f16x2(y);
            float2 &rounded = sums.of[i][1];
            rounded = {rounded.x + (a.x + b.x), rounded.y + (a.y + b.y)};
            largest = max_f16x2(largest, max_f16x2(x, y));
            weights[0].add(i, x, y);
        } else {
            const uint32_t x = bf16x2_from_f32(p[0], p[1]), y = bf16x2_from_f32(p[2], p[3]);
            weights[0].add(i, x, y);
            weights[1].add(i, bf16x2_from_f32(p[0] - f32_from_bf16_low(x), p[1] - f32_from_bf16_high(x)),
                           bf16x2_from_f32(p[2] - f32_from_bf16_low(y), p[3] - f32_from_bf16_high(y)));
            const bool too_large = fmaxf(fmaxf(p[0], p[1]), fmaxf(p[2], p[3])) >= LIMIT;
            largest = too_large ? LIMIT_BITS : largest;
        }
    }
    return ((largest & LIMIT_BITS) + LOWEST_LIMIT_BITS & CARRIES) != 0;
}

// Before the first tile: nothing is added up, and every score is more than what offsets are set for.
template <typename S>
__device__ void begin_softmax(const DecodeParams &params, const SharedMemory<S> &memory, BlockState<S> &block) {
    if (threadIdx.x < S::HEADS) {
        block.exponents[threadIdx.x].offset = CUDART_INF_F;
    }
    if (threadIdx.x == 0) {
        block.overflowed = ~0u;
    }
    if (S::CODED && threadIdx.x < S::GROUPS) {
        // f16's smallest number: no scale but 0 is below it.
        block.units[threadIdx.x] = 1.0f / SUBNORMAL;
        block.renormalise[threadIdx.x] = 1.0f;
    }
    if (threadIdx.x < S::RUNS) {
        block.inverse_units[threadIdx.x] = SUBNORMAL;
    }
    if constexpr (S::LATENTS == Latents::Groups) {
        if (threadIdx.x < output_min_warps<S>(params) * WARP) {
            memory.output_mins(0, 0, threadIdx.x) = {};
        }
    }
}

// Whole: warp w finds the unit of run w with this tile's scales.
template <typename S>
__device__ void raise_units(const DecodeParams &params, const Stage &stage, unsigned count, BlockState<S> &block) {
    const unsigned warp = thread_index() / WARP, lane = thread_index() % WARP;
    if (warp >= S::RUNS || warp >= params.cache.latent_groups) {
        return;
    }
    uint32_t largest = 0;
#pragma unroll 1
    // Eight tokens at a time, whose pairs are in different banks.
    for (unsigned token = lane % 8; token < count; token += 8) {
        // Scales are not negative: their bits have their order.
        largest = max(largest, stage.affine_pair(token, warp) & 0xFFFF);
    }
    largest = __reduce_max_sync(ALL_LANES, largest);
    const float before = block.units[warp];
    const float unit = raised_unit(before, largest);
    __syncwarp();
    if (lane == 0) {
        block.units[warp] = unit;
        block.inverse_units[warp] = 1.0f / unit;
        block.renormalise[warp] = before / unit;
    }
}

// Sets offsets and units for what there was and for this tile, of which weights are to be made anew, and brings the sums to
// them. The output is left to `rescale_output`.
template <typename S>
__device__ void raise_offsets(const DecodeParams &params, const Stage &stage, const TileRange &range,
                              BlockState<S> &block, const FragmentC (&scores)[S::OWN], Sums<S> &sums) {
    const unsigned thread = thread_index(), lane = thread % WARP;
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const OwnFragment<S> fragment(i);
        if (!fragment.exists) {
            continue;
        }
        const float4 exponents = *reinterpret_cast<const float4 *>(&block.exponents[fragment.head()]);
        const unsigned position = 16 * fragment.m_tile + lane / 4;
        const bool low = range.has(position), high = range.has(position + 8);
        float2 x = {-CUDART_INF_F, -CUDART_INF_F};
        x = low ? float2{fmaxf(x.x, scores[i][0] * exponents.x), fmaxf(x.y, scores[i][1] * exponents.z)} : x;
        x = high ? float2{fmaxf(x.x, scores[i][2] * exponents.x), fmaxf(x.y, scores[i][3] * exponents.z)} : x;
        x = {reduce_rows(x.x, Maximum()), reduce_rows(x.y, Maximum())};
        if (lane < 4) {
            *reinterpret_cast<float2 *>(&block.largest[fragment.m_tile][fragment.head()]) = x;
        }
    }
    if constexpr (S::LATENTS == Latents::Whole) {
        raise_units<S>(params, stage, range.count(), block);
    }
    __syncthreads();
    if (thread < S::HEADS) {
        float largest = -CUDART_INF_F;
#pragma unroll 1
        for (unsigned m_tile = 0; m_tile < S::M_TILES; ++m_tile) {
            largest = fmaxf(largest, block.largest[m_tile][thread]);
        }
        // Without a maximum (all are NaN, or minus infinity) any offset does.
        const HeadExponent exponent = block.exponents[thread];
        const float before = exponent.offset;
        const float offset = fminf(before, largest == -CUDART_INF_F ? 0.0f : LARGEST_EXPONENT - largest);
        block.exponents[thread] = {exponent.factor, offset};
        block.rescale[thread] = before == CUDART_INF_F ? 1.0f : exp2_approximate(offset - before);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const float2 factor =
            *reinterpret_cast<const float2 *>(&block.rescale[OwnFragment<S>(i).head()]);
#pragma unroll
        for (float2 &sum : sums.of[i]) {
            sum = {sum.x * factor.x, sum.y * factor.y};
        }
    }
}

// Brings the output to the offsets and units that `raise_offsets` has set.
template <typename S>
__device__ void rescale_output(const DecodeParams &params, const SharedMemory<S> &memory, const BlockState<S> &block,
                               Output<S> &output) {
    const unsigned thread = thread_index(), warp = thread / WARP, t = thread % 4;
    float2 rescale[S::N_TILES];
#pragma unroll
    for (int n = 0; n < S::N_TILES; ++n) {
        rescale[n] = *reinterpret_cast<const float2 *>(&block.rescale[8 * n + 2 * t]);
    }
#pragma unroll
    for (int i = 0; i < S::SLICES; ++i) {
        const float unit = S::LATENTS == Latents::Whole ? block.renormalise[i] : 1.0f;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            rescale_tile<S::N_TILES>(output[i][j], rescale, unit);
        }
    }
    if (S::LATENTS == Latents::Groups && warp < output_min_warps<S>(params)) {
        float4 &kept = memory.output_mins(0, 0, thread);
        const float2 factor = *reinterpret_cast<const float2 *>(&block.rescale[8 * (warp % S::N_TILES) + 2 * t]);
        kept = {kept.x * factor.x, kept.y * factor.y, kept.z * factor.x, kept.w * factor.y};
    }
}

// Adds up the sums of the block, and leaves them in those of m-tile 0: instead of divisors their inverses. Writes the lse
// of each head.
template <typename S>
__device__ void finish_softmax(const DecodeParams &params, const DecodeSplit &split, unsigned first_head,
                               const SharedMemory<S> &memory, BlockState<S> &block, const Sums<S> &sums) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) {
        const OwnFragment<S> fragment(i);
        if (!fragment.exists) {
            continue;
        }
#pragma unroll
        for (int number = 0; number < Sums<S>::COUNT; ++number) {
            const float2 own = sums.of[i][number], x = {reduce_rows(own.x, Sum()), reduce_rows(own.y, Sum())};
            if (lane < 4) {
                *reinterpret_cast<float2 *>(&memory.sum(number, fragment.m_tile, fragment.head())) = x;
            }
        }
    }
    __syncthreads();
#pragma unroll 1
    for (unsigned index = threadIdx.x; index < Sums<S>::COUNT * S::HEADS; index += DECODE_THREADS) {
        const unsigned number = index / S::HEADS, head = index % S::HEADS;
        float sum = memory.sum(number, 0, head);
#pragma unroll 1
        for (unsigned m_tile = 1; m_tile < S::M_TILES; ++m_tile) {
            sum += memory.sum(number, m_tile, head);
        }
        if (number == 0) {
            write_lse(params, split, first_head + head, (log2f(sum) - block.exponents[head].offset) * CUDART_LN2_F);
        }
        const bool divides = S::LATENTS == Latents::Whole ? number % 2 == 1 : number == Sums<S>::COUNT - 1;
        memory.sum(number, 0, head) = divides ? 1.0f / sum : sum;
    }
    __syncthreads();
}
