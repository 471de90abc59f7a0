// From pages to shared memory: one tile of tokens, in the rows and bytes of the cache.
#pragma once

#include "../../cache/sequences.cuh"
#include "../../ptx/cp_async.cuh"
#include "shared.cuh"

// The tokens that a warp copies of a tile: 1, 2, 4 or 8, beginning with a multiple of their number, so that all of them
// are of one page.
__device__ inline unsigned warp_tokens(const DecodeParams &params) { return params.tile_tokens / WARPS; }

// Thread w finds the address of the page of the tokens that warp w copies of the tile from `first` on, 0 if they are past
// the end: nothing of the page table is read there.
__device__ inline uint64_t find_page(const DecodeParams &params, const DecodeSplit &split, unsigned first) {
    const unsigned token = first + thread_index() * warp_tokens(params);
    if (thread_index() >= WARPS || token >= split.end) {
        return 0;
    }
    const int32_t *row = reinterpret_cast<const int32_t *>(params.page_table) + split.row;
    return reinterpret_cast<uint64_t>(page_address(params.cache, page_of_token(params.cache, row, token)));
}

// Bytes of 64 latents, and of a k-step of the rotated key, as they lie in the cache.
template <typename S>
constexpr unsigned STEP_BYTES = S::LATENTS == Latents::Bf16 ? 2 * STEP : STEP / 2;

__device__ inline unsigned rope_step_bytes(const DecodeParams &params) {
    return params.cache.rope_kind == ROW_BF16 ? 64 : params.cache.rope_kind == ROW_INT8 ? 32 : 16;
}

// What a lane copies of each token: of its latent or rotated key 16 bytes, of its pairs of scale and min 4, or what is
// past a row's end, which becomes zeros.
struct Column {
    CacheTile from;       // in a page
    unsigned to, stride;  // in a stage
    bool is_long, exists;

    // Column `index` of so many of a latent and of a rotated key.
    __device__ Column(const DecodeParams &params, unsigned index, unsigned latent_columns, unsigned rope_columns) {
        const CacheParams &cache = params.cache;
        const DecodeShared &map = params.shared;
        const unsigned long_columns = latent_columns + rope_columns;
        is_long = index < long_columns;
        if (index < latent_columns) {
            to = 16 * index;
            exists = to < cache.latent_row_bytes;
            from = latent_tile(cache).skip(to);
            stride = map.latent_stride;
        } else if (is_long) {
            const unsigned offset = 16 * (index - latent_columns);
            exists = offset < cache.rope_row_bytes;
            from = rope_tile(cache).skip(offset);
            to = map.rope + offset, stride = map.rope_stride;
        } else {
            const unsigned offset = 4 * (index - long_columns);
            exists = true;
            from = affine_tile(cache).skip(offset);
            to = map.affine + offset, stride = map.affine_stride;
        }
    }
};

// Starts the copies of a lane's column of the warp's tokens, of which the first `existing` exist. COMPLETE: all of them,
// and all of the column. Otherwise what is missing becomes zeros.
template <bool COMPLETE>
__device__ void copy_column(const DecodeParams &params, const Column &column, uint64_t from, unsigned existing,
                            uint32_t to) {
#pragma unroll 4
    for (unsigned i = 0; i < warp_tokens(params); ++i, from += column.from.row_bytes, to += column.stride) {
        if constexpr (COMPLETE) {
            if (column.is_long) {
                cp_async_16(to, reinterpret_cast<const void *>(from));
            } else {
                cp_async_4(to, reinterpret_cast<const void *>(from));
            }
        } else {
            const bool exists = column.exists && i < existing;
            const void *any = reinterpret_cast<const void *>(exists ? from : params.cache.pages);
            if (column.is_long) {
                cp_async_16_zero_filled(to, any, exists ? 16 : 0);
            } else {
                cp_async_4_zero_filled(to, any, exists ? 4 : 0);
            }
        }
    }
}

// Starts the copies of a tile's latents, rotated keys and scales: a warp has an eighth of the tokens, its lanes the
// columns of one at a time.
template <typename S>
__device__ void copy_tile(const DecodeParams &params, const uint64_t *pages, unsigned first, unsigned end,
                          const Stage &stage) {
    const CacheParams &cache = params.cache;
    const unsigned thread = thread_index(), begin = thread / WARP * warp_tokens(params);
    const unsigned token = first + begin, existing = token < end ? end - token : 0;
    const uint64_t page = pages[thread / WARP];
    const unsigned latent_bytes = params.latent_steps * STEP_BYTES<S>;
    const unsigned rope_bytes = params.rope_steps * rope_step_bytes(params);
    const unsigned columns = (latent_bytes + rope_bytes) / 16 + cache.affine_row_bytes / 4;
    const bool complete = first + params.tile_tokens <= end && latent_bytes == cache.latent_row_bytes &&
                          rope_bytes == cache.rope_row_bytes;
#pragma unroll 1
    for (unsigned index = thread % WARP; index < columns; index += WARP) {
        const Column column(params, index, latent_bytes / 16, rope_bytes / 16);
        const uint64_t from = page + column.from.row(offset_in_page(cache, token));
        const uint32_t to = stage.address() + column.to + begin * column.stride;
        if (complete) {
            copy_column<true>(params, column, from, existing, to);
        } else {
            copy_column<false>(params, column, from, existing, to);
        }
    }
}
