// `rope_append`: turns, normalises, quantises and stores a step's new tokens, `src/reference/rope_append.rs` on the
// device, to the bit.
//
// Tile: a warp does one part of one token: up to 512 values of the latent, of the rotated key or of the queries; with a
//     norm, the whole latent. The warps of a block do the same part of 4 tokens, and blocks are spread over tokens
//     (x) and parts (y): one token already keeps as many multiprocessors busy as it has parts, and thousands all.
// Accumulators: lane l owns values 8 l .. 8 l + 7 of each half of a run of 512, as f32. Warps share nothing.
// Shared memory: none.
// Per token, in bytes: reads 2 L + 2 Gr R + 2 H R, and position and slot in each part; each number once, but twice the
//     latents behind the first 512 if there is a norm, and key dimensions whose heads are turned, but not in units (see
//     rope_append/rotate.cuh). Writes the cache's record once, 2 L + 2 Gr R in bf16 and about a quarter of that in int4, and
//     2 H R. Tables, gain and bias are many tokens' and come from L1 and L2: 12 bytes of index, cosine and sine for a
//     dimension of a unit, once where both halves of a run have one rope head.
// FLOPs: 3 per rotated value, 3 and 6 comparisons per quantised one, less than 3 per byte. Memory decides for many
//     tokens, with 32 to 54 PTX instructions per value (ptx-sim) not far behind; for few, the latency of a chain of three
//     loads.
//
// `rope_append_mse` is for caches of `RangeSetting::Mse`. It reads and writes as much, but tries four ranges for int4
// groups of at least 96 values, with some 300 PTX instructions of a warp for each range of 512 values: 144 for the
// values' errors, the rest for scales, sums over lanes and the choice. A kernel of its own leaves the other its
// registers and instructions.
//
// Queries, and the rotation, which engines may have done before, are left out where the parameters have none.
//
// Values are accessed 16 bytes at a time where addresses and strides allow it, else one by one. A token's record is
// written without touching its neighbours'.

#include <stdint.h>

#include "cache/quantize.cuh"
#include "common/reduce.cuh"
#include "params.h"
#include "ptx/convert.cuh"
#include "rope_append/rotate.cuh"

namespace {

using Params = RopeAppendParams;

constexpr unsigned WARPS = ROPE_APPEND_THREADS / WARP;

__device__ unsigned runs(unsigned width) { return (width + RUN - 1) / RUN; }

// Where a token stands and goes.
struct Token {
    unsigned index;
    int32_t position;
    int64_t slot;

    __device__ Token(const Params &params, unsigned index)
        : index(index),
          position(params.positions != 0 ? __ldg(reinterpret_cast<const int32_t *>(params.positions) + index) : 0),
          slot(__ldg(reinterpret_cast<const long long *>(params.slots) + index)) {}

    __device__ bool is_refused(const Params &params) const {
        const int64_t slots = int64_t(params.cache.page_count) * params.cache.page_size;
        const bool is_outside = position < 0 || position >= int64_t(params.table_positions);
        return (params.positions != 0 && is_outside) || slot < -1 || slot >= slots;
    }
};

__device__ void count(const Params &params, unsigned which, unsigned number) {
    if (params.counters != 0 && number > 0) {
        atomicAdd(reinterpret_cast<unsigned long long *>(params.counters) + which, number);
    }
}

// Adds up all lanes' numbers.
__device__ void count_saturated(const Params &params, unsigned of_this_lane) {
    const unsigned number = __reduce_add_sync(ALL_LANES, of_this_lane);
    if (threadIdx.x % WARP == 0) {
        count(params, 0, number);
    }
}

// A slot's row of the latent tile or the rope tile.
__device__ StoredRow stored_row(const Params &params, int64_t slot, bool is_key) {
    const CacheParams &cache = params.cache;
    const GeometryParams &g = params.geometry;
    // Page sizes are powers of two.
    const unsigned shift = __ffs(cache.page_size) - 1;
    uint8_t *page = reinterpret_cast<uint8_t *>(cache.pages) + (slot >> shift) * cache.page_bytes;
    const unsigned row = slot & (cache.page_size - 1);
    uint32_t *affine = reinterpret_cast<uint32_t *>(page + cache.affine_offset + row * cache.affine_row_bytes);
    if (is_key) {
        return {page + cache.rope_offset + row * cache.rope_row_bytes, affine + cache.latent_groups,
                cache.rope_row_bytes, g.rope_heads * g.rope_dim, cache.rope_kind, cache.rope_group};
    }
    return {page + row * cache.latent_row_bytes, affine, cache.latent_row_bytes, g.latent_rank, cache.latent_kind,
            cache.latent_group};
}

template <typename Element>
__device__ bool is_aligned(const Element *address) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

// A lane's unit of a row of bf16; zeros behind the end of the row.
__device__ uint4 load_unit(const uint16_t *row, unsigned start, unsigned width) {
    const unsigned left = values_left(start, width);
    if (left == UNIT && is_aligned(row)) {
        return __ldg(reinterpret_cast<const uint4 *>(row + start));
    }
    uint32_t values[UNIT];
#pragma unroll
    for (unsigned j = 0; j < UNIT; ++j) {
        values[j] = j < left ? __ldg(row + start + j) : 0;
    }
    return {values[0] | values[1] << 16, values[2] | values[3] << 16, values[4] | values[5] << 16,
            values[6] | values[7] << 16};
}

// The same of a row of f32.
__device__ void load_unit(const float *row, unsigned start, unsigned width, float (&unit)[UNIT]) {
    const unsigned left = values_left(start, width);
    if (left == UNIT && is_aligned(row)) {
        const float4 low = __ldg(reinterpret_cast<const float4 *>(row + start));
        const float4 high = __ldg(reinterpret_cast<const float4 *>(row + start + 4));
        const float values[] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            unit[j] = values[j];
        }
    } else {
#pragma unroll
        for (unsigned j = 0; j < UNIT; ++j) {
            unit[j] = j < left ? __ldg(row + start + j) : 0.0f;
        }
    }
}

__device__ void load_run(const uint16_t *row, unsigned run_start, unsigned width, LaneUnits &units) {
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        units[half] = load_unit(row, unit_start(run_start, half), width);
    }
}

__device__ void widen(const LaneUnits &units, LaneValues &values) {
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const uint32_t pairs[] = {units[half].x, units[half].y, units[half].z, units[half].w};
#pragma unroll
        for (unsigned j = 0; j < UNIT; j += 2) {
            values[half][j] = f32_from_bf16_low(pairs[j / 2]);
            values[half][j + 1] = f32_from_bf16_high(pairs[j / 2]);
        }
    }
}

// One over the root of the latent's mean square, the additions in the order that `reference::rms_norm` states: a lane
// adds its own squares, then a butterfly the lanes. `units` are the first run.
__device__ float inverse_rms(const uint16_t *row, unsigned width, float epsilon, const LaneUnits &units) {
    float sum = 0.0f;
    const auto add_squares = [&sum](const LaneUnits &units) {
        LaneValues values;
        widen(units, values);
#pragma unroll
        for (const auto &unit : values) {
#pragma unroll
            for (float value : unit) {
                sum = __fadd_rn(sum, __fmul_rn(value, value));
            }
        }
    };
    add_squares(units);
    for (unsigned start = RUN; start < width; start += RUN) {
        LaneUnits further;
        load_run(row, start, width, further);
        add_squares(further);
    }
    sum = reduce_warp(sum, Sum());
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(width)), epsilon)));
}

// Norm and bias of one run, where there are any.
__device__ void transform(const Params &params, float inverse, unsigned run_start, LaneValues &values) {
    const unsigned width = params.geometry.latent_rank;
    const float *gain = reinterpret_cast<const float *>(params.norm_gain);
    const float *bias = reinterpret_cast<const float *>(params.bias);
#pragma unroll
    for (unsigned half = 0; half < UNITS; ++half) {
        const unsigned start = unit_start(run_start, half);
        float factor[UNIT], summand[UNIT];
        if (gain != nullptr) {
            load_unit(gain, start, width, factor);
#pragma unroll
            for (unsigned j = 0; j < UNIT; ++j) {
                values[half][j] = __fmul_rn(__fmul_rn(values[half][j], inverse), factor[j]);
            }
        }
        if (bias != nullptr) {
            load_unit(bias, start, width, summand);
#pragma unroll
            for (unsigned j = 0; j < UNIT; ++j) {
                values[half][j] = __fadd_rn(values[half][j], summand[j]);
            }
        }
    }
}

// Of no use without rotation; otherwise only for a position inside of the tables.
__device__ Rotation rotation(const Params &params, int32_t position) {
    const size_t table_row = size_t(position) * params.table_frequencies;
    return {reinterpret_cast<const float *>(params.cos) + table_row,
            reinterpret_cast<const float *>(params.sin) + table_row,
            reinterpret_cast<const uint32_t *>(params.frequency_index),
            params.geometry.rope_dim,
            params.pairing == PAIRING_INTERLEAVED};
}

// The parts of a token.
enum class Part { Latent, Key, Query };

// Turns the pairs of one run of heads one by one. Each is read and written by the same lane, so that both may be in the
// same place.
__device__ void turn_pairs(const Heads &heads, const Rotation &turn, unsigned run, uint16_t *target_row,
                           size_t target_stride) {
    const unsigned pairs = turn.rope_dim / 2, end = min(heads.width / 2, (run + 1) * (RUN / 2));
    for (unsigned i = run * (RUN / 2) + threadIdx.x % WARP; i < end; i += WARP) {
        const unsigned head = i / pairs, pair = i % pairs;
        const unsigned a = turn.interleaved ? 2 * pair : pair, b = turn.interleaved ? a + 1 : a + pairs;
        const size_t rope_head = head / heads.heads_per_rope_head;
        const uint32_t frequency = __ldg(turn.frequency + rope_head * pairs + pair);
        const float cos = __ldg(turn.cos + frequency), sin = __ldg(turn.sin + frequency);
        const uint16_t *source = heads.row + head * heads.stride;
        uint16_t *target = target_row + head * target_stride;
        const float x = f32_from_bf16(source[a]), y = f32_from_bf16(source[b]);
        target[a] = bf16_from_f32(turned(x, y, cos, -sin));
        target[b] = bf16_from_f32(turned(y, x, cos, sin));
    }
}

// A token's row of bf16.
__device__ uint16_t *token_row(uint64_t tensor, const Token &token, uint32_t stride) {
    return reinterpret_cast<uint16_t *>(tensor) + size_t(token.index) * stride;
}

// Does one run of a part, or with a norm all of the latent's, beginning with 0. Kinds of parts share what code they
// can: a part alone on its multiprocessor waits for its instructions, too.
template <RangeSetting RANGE>
__device__ void append(const Params &params, const Token &token, Part part, unsigned first) {
    const GeometryParams &g = params.geometry;
    const bool is_latent = part == Part::Latent, is_query = part == Part::Query;
    const bool has_norm = is_latent && params.norm_gain != 0;
    const uint16_t *latent = token_row(params.c_kv, token, params.c_kv_token_stride);
    uint16_t *rotated = token_row(params.q_rotated, token, params.q_rotated_token_stride);
    const size_t rotated_stride = params.q_rotated_head_stride;
    const Heads heads = is_query ? Heads{token_row(params.q_rope, token, params.q_rope_token_stride),
                                         params.q_rope_head_stride, g.query_heads * g.rope_dim,
                                         g.query_heads / g.rope_heads}
                                 : Heads{token_row(params.k_rope, token, params.k_rope_token_stride),
                                         params.k_rope_head_stride, g.rope_heads * g.rope_dim, 1};
    // The frequency index is read 4 at a time where heads are turned in units.
    const bool in_units = turns_in_units(g.rope_dim) && is_aligned(heads.row) && heads.stride % UNIT == 0 &&
                          params.frequency_index % 16 == 0 &&
                          (!is_query || (is_aligned(rotated) && rotated_stride % UNIT == 0));
    LaneUnits units{};
    if (is_latent) {
        load_run(latent, first * RUN, g.latent_rank, units);
    } else if (in_units) {
        load_units(heads, g.rope_dim, first * RUN, units);
    }
    if (token.is_refused(params) || (!is_query && token.slot < 0)) {
        return;
    }
    const bool is_turned = params.positions != 0;
    const Rotation turn = rotation(params, token.position);
    if (is_query && !in_units) {
        turn_pairs(heads, turn, first, rotated, rotated_stride);
        return;
    }
    const float inverse = has_norm ? inverse_rms(latent, g.latent_rank, params.norm_epsilon, units) : 1.0f;
    const unsigned end = has_norm ? runs(g.latent_rank) : first + 1;
    unsigned saturated = 0;
    for (unsigned run = first; run < end; ++run) {
        LaneValues values;
        if (is_latent) {
            if (run > first) {
                load_run(latent, run * RUN, g.latent_rank, units);
            }
            widen(units, values);
            transform(params, inverse, run * RUN, values);
        } else if (in_units) {
            if (is_turned) {
                turn_units(heads, turn, run * RUN, units, values);
            } else {
                widen(units, values);
            }
        } else {
#pragma unroll
            for (unsigned half = 0; half < UNITS; ++half) {
                const unsigned start = unit_start(run * RUN, half);
                if (is_turned) {
                    turn_any_unit(heads, turn, start, values[half]);
                } else {
                    load_any_unit(heads, g.rope_dim, start, values[half]);
                }
            }
        }
        if (is_query) {
#pragma unroll
            for (unsigned half = 0; half < UNITS; ++half) {
                const unsigned start = unit_start(run * RUN, half);
                const UnitPlace place(start, g.rope_dim);
                if (start < heads.width) {
                    *reinterpret_cast<uint4 *>(rotated + place.head * rotated_stride + place.dim) =
                        bf16_from_unit(values[half]);
                }
            }
            return;
        }
        const StoredRow row = stored_row(params, token.slot, part == Part::Key);
        saturated += store_run<RANGE>(row, run * RUN, values);
    }
    count_saturated(params, saturated);
}

// A warp's part of a token.
template <RangeSetting RANGE>
__device__ void rope_append_part(const Params &params) {
    const GeometryParams &g = params.geometry;
    const unsigned index = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (index >= params.tokens) {
        return;
    }
    const Token token(params, index);
    if (blockIdx.y == 0 && threadIdx.x % WARP == 0) {
        count(params, 1, token.is_refused(params));
    }
    const unsigned latent_parts = params.norm_gain == 0 ? runs(g.latent_rank) : 1;
    const unsigned key_parts = runs(g.rope_heads * g.rope_dim);
    unsigned run = blockIdx.y;
    Part part = Part::Latent;
    if (run >= latent_parts) {
        run -= latent_parts;
        part = run < key_parts ? Part::Key : Part::Query;
        run -= run < key_parts ? 0 : key_parts;
    }
    append<RANGE>(params, token, part, run);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(ROPE_APPEND_THREADS)
    rope_append(const __grid_constant__ RopeAppendParams params) {
    rope_append_part<RangeSetting::MinMax>(params);
}

extern "C" __global__ void __launch_bounds__(ROPE_APPEND_THREADS)
    rope_append_mse(const __grid_constant__ RopeAppendParams params) {
    rope_append_part<RangeSetting::Mse>(params);
}
