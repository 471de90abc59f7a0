// From pages to shared memory: one tile of tokens, in the rows and bytes of the cache.
//
// A warp copies an eighth of a tile's tokens, a lane one column of each: 16 bytes of latent or rotated key. Where columns
// lie is the same for every tile, and waits in shared memory: what is left for a tile is a page's address, two
// multiplications, and three additions per copy. Pairs of scale and min are copied 16 bytes at a time, tokens and all,
// where their rows follow each other without a gap in shared memory too; else each by itself.
#pragma once

#include "../../cache/sequences.cuh"
#include "../../ptx/cp_async.cuh"
#include "../rope_values.cuh"
#include "shared.cuh"

// The tokens that a warp copies of a tile: 1, 2, 4 or 8, beginning with a multiple of their number, so that all of them
// are of one page.
template <typename S>
__device__ unsigned warp_tokens(const DecodeParams &params) {
    return (S::TOKENS == 16 ? params.tile_tokens : S::TOKENS) / WARPS;
}

// Thread w finds the address of the page of the tokens that warp w copies of the tile from `first` on, 0 if they are past
// the end: nothing of the page table is read there.
template <typename S>
__device__ uint64_t find_page(const DecodeParams &params, const DecodeSplit &split, unsigned first) {
    const unsigned token = first + thread_index() * warp_tokens<S>(params);
    if (thread_index() >= WARPS || token >= split.end) {
        return 0;
    }
    const int32_t *row = reinterpret_cast<const int32_t *>(params.page_table) + split.row;
    return reinterpret_cast<uint64_t>(page_address(params.cache, page_of_token(params.cache, row, token)));
}

// Bytes of 64 latents as they lie in the cache.
template <typename S>
constexpr unsigned STEP_BYTES = S::LATENTS == Latents::Bf16 ? 2 * STEP : STEP / 2;

// A column: bytes from the start of a page (x), and from the start of a stage (y), of the row of token 0. Those of the
// rotated key have a mark beside the latter.
constexpr unsigned ROPE_COLUMN = 1u << 31;

__device__ inline unsigned column_count(const CacheParams &cache) {
    return (cache.latent_row_bytes + cache.rope_row_bytes) / 16;
}

// Stores the columns, and zeros where k-steps reach beyond the rows of the cache: copies never come there.
template <typename S>
__device__ void prepare_copies(const DecodeParams &params, const SharedMemory<S> &memory) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const unsigned latent_columns = cache.latent_row_bytes / 16;
#pragma unroll 1
    for (unsigned index = threadIdx.x; index < column_count(cache); index += DECODE_THREADS) {
        const unsigned in_rope = 16 * (index - latent_columns);
        memory.columns()[index] = index < latent_columns
                                      ? uint2{latent_tile(cache).skip(16 * index).start, 16 * index}
                                      : uint2{rope_tile(cache).skip(in_rope).start, ROPE_COLUMN | map.rope + in_rope};
    }
    const unsigned latent_bytes = params.latent_steps * STEP_BYTES<S>;
    const unsigned rope_bytes = params.rope_steps * rope_step_bytes(params.cache.rope_kind);
    if (latent_bytes == cache.latent_row_bytes && rope_bytes == cache.rope_row_bytes) {
        return;
    }
#pragma unroll 1
    for (unsigned row = threadIdx.x; row < map.stage_count * memory.tile_tokens(); row += DECODE_THREADS) {
        const Stage stage = memory.stage(row / memory.tile_tokens());
        const unsigned token = row % memory.tile_tokens();
        unsigned char *latent = stage.row(map.latent_stride * token);
#pragma unroll 1
        for (unsigned offset = cache.latent_row_bytes; offset < latent_bytes; offset += 16) {
            *reinterpret_cast<uint4 *>(latent + offset) = {};
        }
        unsigned char *rope = stage.row(map.rope + map.rope_stride * token);
#pragma unroll 1
        for (unsigned offset = cache.rope_row_bytes; offset < rope_bytes; offset += 16) {
            *reinterpret_cast<uint4 *>(rope + offset) = {};
        }
    }
}

// Starts the copies of a column of `count` tokens, of which `existing` exist, if they do not all; others become zeros.
template <int COUNT, int BYTES>
__device__ void copy_rows(const CacheParams &cache, uint64_t from, unsigned row_bytes, uint32_t to, unsigned stride,
                          bool complete, unsigned count, unsigned existing) {
    if (complete) {
#pragma unroll
        for (unsigned i = 0; i < COUNT; ++i) {
            cp_async<BYTES>(to + i * stride, reinterpret_cast<const void *>(from));
            from += row_bytes;
        }
        return;
    }
#pragma unroll 1
    for (unsigned i = 0; i < count; ++i, from += row_bytes, to += stride) {
        const bool exists = i < existing;
        const void *any = reinterpret_cast<const void *>(exists ? from : cache.pages);
        cp_async_zero_filled<BYTES>(to, any, exists ? BYTES : 0);
    }
}

// Starts the copies of a tile's latents, rotated keys and scales. Tokens from `end` on become zeros.
template <typename S>
__device__ void copy_tile(const DecodeParams &params, const SharedMemory<S> &memory, const uint64_t *pages,
                          unsigned first, unsigned end) {
    constexpr unsigned COUNT = S::TOKENS / WARPS;
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const unsigned thread = thread_index(), lane = thread % WARP, warp = thread / WARP;
    const unsigned count = warp_tokens<S>(params), begin = warp * count, token = first + begin;
    const unsigned existing = token < end ? end - token : 0, offset = offset_in_page(cache, token);
    // All tokens of a warp are there, and as many as the loops are made for.
    const bool complete = first + S::TOKENS <= end && count == COUNT;
    const uint64_t page = pages[warp];
    const uint32_t stage = memory.stage_of(first).address();
#pragma unroll 1
    for (unsigned index = lane; index < column_count(cache); index += WARP) {
        const uint2 column = memory.columns()[index];
        const bool is_latent = column.y < ROPE_COLUMN;
        const unsigned row_bytes = is_latent ? cache.latent_row_bytes : cache.rope_row_bytes;
        const unsigned stride = is_latent ? map.latent_stride : map.rope_stride;
        copy_rows<COUNT, 16>(cache, page + (column.x + offset * row_bytes), row_bytes,
                             stage + (column.y & ~ROPE_COLUMN) + begin * stride, stride, complete,
                             count, existing);
    }
    const unsigned row_bytes = cache.affine_row_bytes, stride = map.affine_stride;
    const uint64_t affine = page + affine_tile(cache).row(offset);
    const uint32_t to = stage + map.affine + begin * stride;
    // Rows of 4 tokens are a multiple of 16 bytes.
    if (COUNT % 4 == 0 && stride == row_bytes && complete) {
#pragma unroll 1
        for (unsigned place = 16 * lane; place < COUNT * row_bytes; place += 16 * WARP) {
            cp_async<16>(to + place, reinterpret_cast<const void *>(affine + place));
        }
    } else {
#pragma unroll 1
        for (unsigned place = 4 * lane; place < row_bytes; place += 4 * WARP) {
            copy_rows<COUNT, 4>(cache, affine + place, row_bytes, to + place, stride, complete, count,
                                existing);
        }
    }
}
