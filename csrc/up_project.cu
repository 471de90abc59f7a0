// `up_project`: keys and values of cached tokens, for prefill; `src/reference/up_project.rs` on the device.
//
//     keys[s, g]   = (f[s, g] W_UK[g] c[s], rotated key of g's rope head)       f: factors of normalised keys, else 1
//     values[s, g] = W_UV[g] c[s] + bias[g]
//
//     grid: x over tiles of 128 tokens, y over tiles of 128 columns: those of keys, of values, and of rotated keys
//     each block, unless its first token does not exist:
//         if keys or values: a product by common/gemm.cuh, A being the latents and B rows of weights
//             each thread, for its half of a token's latents in a k-step (two threads to a token):
//                 begin:   bf16: copy asynchronously;  int4: load codes and (scale, min) into registers
//                 finish:  int4: dequantise 16 values and store them in the stage
//         if rotated keys:
//             each of the first 128 threads: find its token's place in the cache; barrier
//             each thread: dequantise and store 8 values at a time
//
// The tokens of all sequences stand one behind the other, so that only the last tile is not full; the columns of all
// heads likewise. blockIdx.x is the tile of tokens, so that the blocks that run at a time share weights. Only the
// device knows how many tokens there are: blocks past the last one exit.
// Shared memory: that of common/gemm.cuh; for rotated keys, the places of the tile's tokens instead.
// Per tile of latents of L: 256 L bytes of weights and 256 L (bf16) or about 70 L (int4) of cache, from L2 mostly;
//     32768 L FLOPs; writes 32 KiB. 64 to 100 FLOPs per byte: compute-bound. The 16 values that a thread dequantises in
//     a k-step, at 3 instructions each, stand against 32 MMAs of its warp.

#include "cache/dequantize.cuh"
#include "common/gemm.cuh"
#include "up_project/columns.cuh"
#include "up_project/rope.cuh"

namespace {

// Normalised keys: multiplies each token's sums by its factors of the columns' heads, head by head. Shared memory is free,
// before and after.
__device__ void scale_by_key_factors(const UpProjectParams &params, Tokens tokens, unsigned first_column,
                                     TileSums<LargeTile> &sums, unsigned char *shared) {
    const unsigned width = params.geometry.nope_dim, lane = threadIdx.x % WARP;
    // Of the head at hand, of each token.
    float *factors = reinterpret_cast<float *>(shared);
    const uint16_t **stored = reinterpret_cast<const uint16_t **>(shared + 4 * GEMM_TILE) + threadIdx.x;
    if (threadIdx.x < GEMM_TILE) {
        const bool exists = threadIdx.x < tokens.count;
        const CachedToken token = exists ? token_of_row(params, tokens.first + threadIdx.x) : CachedToken{};
        *stored = token.page != nullptr ? key_factors(params.cache, token) : nullptr;
    }
    const unsigned end = min(first_column + GEMM_TILE, params.geometry.kv_heads * width);
#pragma unroll 1
    for (unsigned head = first_column / width; head * width < end; ++head) {
        __syncthreads();
        if (threadIdx.x < GEMM_TILE) {
            factors[threadIdx.x] = *stored != nullptr ? f32_from_f16(__ldg(*stored + head)) : 0.0f;
        }
        __syncthreads();
        // The thread's columns, counted from the head's first.
        const unsigned column = first_column + LargeTile::first_column() + 2 * (lane % 4) - head * width;
#pragma unroll
        for (unsigned i = 0; i < LargeTile::ROW_FRAGMENTS; ++i) {
            const float *own = factors + LargeTile::first_row() + 16 * i + lane / 4;
            const float low = own[0], high = own[8];
#pragma unroll
            for (unsigned j = 0; j < LargeTile::COLUMN_FRAGMENTS; ++j) {
#pragma unroll
                for (unsigned x = 0; x < 2; ++x) {
                    if (column + 8 * j + x < width) {
                        sums.fragment[i][j][x] *= low;
                        sums.fragment[i][j][x + 2] *= high;
                    }
                }
            }
        }
    }
    __syncthreads();
}

// The product of the tile's tokens with 128 rows of weights, which begin with `first_column`. `Int4`: the latents'
// kind; `Aligned`: whether weights may be copied 16 bytes at a time.
template <bool Int4, bool Aligned>
__device__ void project(const UpProjectParams &params, Tokens tokens, unsigned first_column,
                        const Projection &projection, unsigned char *shared) {
    const Columns outputs = projection.outputs;
    const float *bias = projection.bias;
    uint16_t *output = projection.output;
    const unsigned token_stride = projection.token_stride;
    const CacheParams &cache = params.cache;
    const unsigned width = params.geometry.latent_rank;
    const unsigned columns = min(GEMM_TILE, params.geometry.kv_heads * outputs.width - first_column);

    // Rows and columns that do not exist are filled with zeros.
    const unsigned token_row = tokens.first + step_row();
    const CachedToken token = step_row() < tokens.count ? token_of_row(params, token_row) : CachedToken{};
    const bool has_token = token.page != nullptr, has_column = step_row() < columns;
    const CachedRow latent = latent_row(cache, token);
    const unsigned group_log2 = __ffs(latent.group) - 1;
    const size_t skipped = projection.weight_rows.offset(first_column + (has_column ? step_row() : 0));
    const uint16_t *row = projection.weights + skipped;

    // Codes and (scale, min) of a k-step, kept from `begin` to `finish`.
    uint32_t codes[2]{}, scale_and_min = 0;
    const auto begin = [&](unsigned step, unsigned char *stage) {
        const unsigned k = step * K_STEP;
        if (Int4 && has_token) {
            scale_and_min = __ldg(latent.affine + (k >> group_log2));
        }
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned chunk = step_chunk(i), own_k = k + chunk * CHUNK, count = chunk_count(own_k, width);
            unsigned char *to = stage + tile_offset(step_row(), chunk);
            copy_chunk(to + LargeTile::A_BYTES, row + own_k, has_column ? count : 0, Aligned);
            if (!Int4) {
                const auto *values = reinterpret_cast<const uint16_t *>(latent.bytes) + own_k;
                cp_async_16_zero_filled(shared_address(to), values, has_token ? 2 * count : 0);
            } else if (has_token) {
                // Rows are padded to 16 bytes, which are the codes of a k-step: no load is past the end.
                codes[i] = __ldg(reinterpret_cast<const uint32_t *>(latent.bytes) + own_k / CHUNK);
            }
        }
    };
    const auto finish = [&](unsigned char *stage) {
        if (Int4) {
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                auto *to = reinterpret_cast<Chunk *>(stage + tile_offset(step_row(), step_chunk(i)));
                *to = dequantize_int4(codes[i], scale_and_min);
            }
        }
    };
    TileSums<LargeTile> sums{};
    multiply_tile<LargeTile, false>(sums, (width + K_STEP - 1) / K_STEP, tokens.count, shared, begin, finish);
    if (projection.factors) {
        scale_by_key_factors(params, tokens, first_column, sums, shared);
    }
    round_tile(sums, bias != nullptr ? bias + first_column : nullptr, columns, shared);
    const bool aligned_output = (reinterpret_cast<uint64_t>(output) % CHUNK_BYTES |
                                 (outputs.width | outputs.head_stride | token_stride) % CHUNK) == 0;
    store_tile<LargeTile>(
        shared, tokens.count, columns, aligned_output,
        [&](unsigned token) { return output + size_t(tokens.first + token) * token_stride; },
        [&](unsigned column) { return outputs.offset(first_column + column); });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
    up_project(const __grid_constant__ UpProjectParams params) {
    extern __shared__ __align__(128) unsigned char shared[];
    const GeometryParams &geometry = params.geometry;
    const Tokens tokens = tokens_of_block(params);
    if (tokens.count == 0) {
        return;
    }
    const unsigned key_tiles = column_tiles(geometry, geometry.nope_dim, GEMM_TILE);
    const unsigned value_tiles = column_tiles(geometry, geometry.value_dim, GEMM_TILE);
    unsigned tile = blockIdx.y;
    if (tile >= key_tiles + value_tiles) {
        auto &found = *reinterpret_cast<TileTokens<GEMM_TILE> *>(shared);
        if (threadIdx.x < tokens.count) {
            found.store(threadIdx.x, token_of_row(params, tokens.first + threadIdx.x));
        }
        __syncthreads();
        copy_rope<GEMM_THREADS>(params, tokens, found, (tile - key_tiles - value_tiles) * GEMM_TILE, threadIdx.x);
        return;
    }
    const bool is_key = tile < key_tiles, is_int4 = params.cache.latent_kind == ROW_INT4;
    if (!is_key) {
        tile -= key_tiles;
    }
    const Projection projection = projection_of(params, is_key);
    const Columns rows = projection.weight_rows;
    const bool aligned = (reinterpret_cast<uint64_t>(projection.weights) % CHUNK_BYTES |
                          (geometry.latent_rank | rows.head_stride | rows.row_stride) % CHUNK) == 0;
    if (!aligned) {
        is_int4 ? project<true, false>(params, tokens, tile * GEMM_TILE, projection, shared)
                : project<false, false>(params, tokens, tile * GEMM_TILE, projection, shared);
    } else {
        is_int4 ? project<true, true>(params, tokens, tile * GEMM_TILE, projection, shared)
                : project<false, true>(params, tokens, tile * GEMM_TILE, projection, shared);
    }
}
