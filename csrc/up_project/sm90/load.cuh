// The warps that load: weights by asynchronous copies, latents likewise if the cache has them in bf16, or dequantised.
//
// Eight threads copy 128 bytes of a row; or, of int4, a thread has the rows of two tokens. What does not exist, of
// tokens, columns or k, is zero.
#pragma once

#include "../../cache/dequantize.cuh"
#include "../../ptx/cp_async.cuh"
#include "../../ptx/proxy.cuh"
#include "block.cuh"

__device__ inline unsigned loader_thread() { return threadIdx.x - CONSUMER_THREADS; }

// A thread's four runs of eight columns of a tile of weights. A run is of one head.
class WeightRuns {
    static constexpr unsigned RUNS = TILE_COLUMNS / (LOADERS / STEP_CHUNKS * CHUNK);
    static_assert(RUNS == 4, "32 columns, of which row_of_column tells the places");
    const uint16_t *from_[RUNS];  // the run's first row, from the thread's chunk of the first k-step on
    uint32_t to_;                 // of the first run's first column, from the beginning of B
    unsigned row_stride_, left_;  // columns that exist, from the first run on

public:
    __device__ WeightRuns(const UpProjectParams &params, const ColumnTile &tile) {
        const Projection projection = projection_of(params, tile.is_key);
        const unsigned column = loader_thread() / STEP_CHUNKS * (RUNS * CHUNK), chunk = loader_thread() % STEP_CHUNKS;
        left_ = tile.count - min(tile.count, column);
        row_stride_ = projection.weight_rows.row_stride;
#pragma unroll
        for (unsigned run = 0; run < RUNS; ++run) {
            const unsigned own = run * CHUNK < left_ ? tile.first + column + run * CHUNK : 0;
            from_[run] = projection.weights + projection.weight_rows.offset(own) + chunk * CHUNK;
        }
        to_ = 128 * row_of_column(column);
    }

    // Starts the copies of a k-step to `b`.
    __device__ void copy(unsigned step, unsigned width, uint32_t b) const {
        const unsigned chunk = loader_thread() % STEP_CHUNKS;
        const unsigned has_k = step * STEP + chunk * CHUNK < width ? CHUNK_BYTES : 0;
#pragma unroll
        for (unsigned run = 0; run < RUNS; ++run) {
            const uint16_t *from = from_[run] + step * STEP;
            const unsigned bytes = run * CHUNK < left_ ? has_k : 0;
#pragma unroll
            for (unsigned i = 0; i < CHUNK; ++i) {
                const unsigned to = swizzled(row_of_column(run * CHUNK + i), chunk * CHUNK_BYTES);
                cp_async_16_zero_filled(b + to_ + to, from, bytes);
                from = stepped(from + row_stride_);
            }
        }
    }
};

// A token's codes and (scale, min) of a k-step, on their way from the cache to shared memory: loaded long before they
// are stored.
class Int4Latent {
    CachedRow row_;
    bool exists_;
    uint4 codes_[2];
    uint32_t affine_[STEP_CHUNKS];

public:
    __device__ Int4Latent(const UpProjectParams &params, const CachedToken &token)
        : row_(latent_row(params.cache, token)), exists_(token.page != nullptr) {}

    __device__ void load(unsigned step, unsigned width) {
        const unsigned group_log2 = __ffs(row_.group) - 1;
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned byte = step * (STEP / 2) + i * 16;
            const auto *from = reinterpret_cast<const uint4 *>(row_.bytes + byte);
            codes_[i] = exists_ && byte < row_.row_bytes ? __ldg(from) : uint4{};
        }
#pragma unroll
        for (unsigned i = 0; i < STEP_CHUNKS; ++i) {
            const unsigned k = step * STEP + i * CHUNK;
            affine_[i] = exists_ && k < width ? __ldg(row_.affine + (k >> group_log2)) : 0;
        }
    }

    // As the tile's token `i`.
    __device__ void store(unsigned char *a, unsigned i) const {
        const uint32_t words[STEP_CHUNKS] = {codes_[0].x, codes_[0].y, codes_[0].z, codes_[0].w,
                                             codes_[1].x, codes_[1].y, codes_[1].z, codes_[1].w};
#pragma unroll
        for (unsigned chunk = 0; chunk < STEP_CHUNKS; ++chunk) {
            unsigned char *to = a + swizzled(i, chunk * CHUNK_BYTES);
            *reinterpret_cast<Chunk *>(to) = dequantize_int4(words[chunk], affine_[chunk]);
        }
    }
};

// Starts the copies of a k-step of bf16 latents to `a`. Where they are is read of several at a time, as each read takes
// a while.
__device__ inline void copy_latents(const UpProjectParams &params, const TileTokens<GEMM_TILE> &tokens, unsigned step,
                                    uint32_t a) {
    constexpr unsigned ROWS = LOADERS / STEP_CHUNKS, AT_A_TIME = 8;
    const unsigned row = loader_thread() / STEP_CHUNKS, chunk = loader_thread() % STEP_CHUNKS;
    const unsigned k = step * STEP + chunk * CHUNK;
    const bool has_k = k < params.geometry.latent_rank;
#pragma unroll
    for (unsigned first = row; first < row + GEMM_TILE; first += AT_A_TIME * ROWS) {
        CachedToken own[AT_A_TIME];
#pragma unroll
        for (unsigned i = 0; i < AT_A_TIME; ++i) {
            own[i] = tokens.load(first + i * ROWS);
        }
#pragma unroll
        for (unsigned i = 0; i < AT_A_TIME; ++i) {
            const uint32_t to = a + swizzled(first + i * ROWS, chunk * CHUNK_BYTES);
            cp_async_16_zero_filled(to, latent_row(params.cache, own[i]).bytes + 2 * k,
                                    own[i].page != nullptr && has_k ? CHUNK_BYTES : 0);
        }
    }
}

// Starts the copy of the biases of a tile's columns, of zeros where there is none: four to a thread.
__device__ inline void copy_bias(const UpProjectParams &params, const ColumnTile &tile, uint32_t to) {
    static_assert(4 * LOADERS == TILE_COLUMNS, "four to a thread");
    const float *bias = projection_of(params, tile.is_key).bias;
    const unsigned own = 4 * loader_thread();
    cp_async_16_zero_filled(to + 4 * own, bias + tile.first + own, bias != nullptr && own < tile.count ? 16 : 0);
}

// Loads all k-steps of the block's tiles, and with the last of a tile its biases. What a thread has stored or copied
// for a stage, it tells of when the copies of the next are on their way.
__device__ inline void load_tiles(const UpProjectParams &params, SharedMemory &memory) {
    const unsigned width = params.geometry.latent_rank, steps = step_count(params);
    const bool is_int4 = params.cache.latent_kind == ROW_INT4, keeps = keeps_latents(steps);
    const uint32_t full = shared_address(memory.full), empty = shared_address(memory.empty);
    const unsigned low = loader_thread(), high = low + LOADERS;
    Int4Latent low_latent(params, memory.tokens.load(low)), high_latent(params, memory.tokens.load(high));
    if (is_int4) {
        low_latent.load(0, width);
        high_latent.load(0, width);
    }
    const auto tell = [&](unsigned stage) {
        fence_proxy_async();
        mbarrier_arrive(full + 8 * stage, true);
    };
    bool is_first = true, loads = true;
    unsigned before = 0, bias_parity = 1;
    Ring ring;
    for_each_tile(params, [&](const ColumnTile &tile) {
        const WeightRuns weights(params, tile);
#pragma unroll 1
        for (unsigned step = 0; step < steps; ++step) {
            mbarrier_wait(empty + 8 * ring.index, ring.parity ^ 1);
            weights.copy(step, width, shared_address(memory.b[ring.index]));
            unsigned char *a = memory.a[keeps ? step : ring.index];
            if (loads && !is_int4) {
                copy_latents(params, memory.tokens, step, shared_address(a));
            }
            cp_async_commit();
            if (loads && is_int4) {
                low_latent.store(a, low);
                high_latent.store(a, high);
                const unsigned next = step + 1 < steps ? step + 1 : 0;
                low_latent.load(next, width);
                high_latent.load(next, width);
            }
            if (!is_first) {
                cp_async_wait<1>();
                tell(before);
            }
            is_first = false;
            // Only now: the biases of the tile before are added behind its last k-step, which may be the one just told of.
            if (step + 1 == steps) {
                mbarrier_wait(shared_address(&memory.bias_free), bias_parity);
                bias_parity ^= 1;
                copy_bias(params, tile, shared_address(memory.bias));
                cp_async_commit();
            }
            before = ring.index;
            ring.advance();
        }
        loads = !keeps;
    });
    cp_async_wait<0>();
    tell(before);
}
