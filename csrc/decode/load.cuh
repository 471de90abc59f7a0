// From pages to shared memory: one tile of tokens, in the rows and bytes of the cache.
#pragma once

#include "../ptx/cp_async.cuh"
#include "block.cuh"

// The address of the page of token `first` plus the thread's index, 0 past the end: nothing of the page table is read
// there.
__device__ inline uint64_t find_page(const DecodeParams &params, const DecodeItem &item, unsigned first) {
    const unsigned thread = thread_index(), token = first + thread;
    if (thread >= params.tile_tokens || token >= item.end) {
        return 0;
    }
    const int32_t *row = reinterpret_cast<const int32_t *>(params.page_table) + item.row;
    const unsigned page = static_cast<unsigned>(__ldg(row + token / params.cache.page_size));
    return params.cache.pages + page * params.cache.page_bytes;
}

// Bytes of 64 latents, and of a step of the rotated key, as they lie in the cache.
template <typename S>
constexpr unsigned STEP_BYTES = S::LATENTS == Latents::Bf16 ? 2 * STEP : STEP / 2;

__device__ inline unsigned rope_step_bytes(const DecodeParams &params) {
    return params.cache.rope_kind == ROW_BF16 ? 64 : params.cache.rope_kind == ROW_INT8 ? 32 : 16;
}

// A piece of each token: of its latent or rotated key 16 bytes, of its pairs of scale and min 4, or what is past a row's
// end, which becomes zeros.
struct Piece {
    unsigned from, row_bytes;  // in a page, and from row to row there
    unsigned to, stride;       // in a stage
    bool is_long, exists;

    // Piece `index` of so many of a latent and of a rotated key.
    __device__ Piece(const DecodeParams &params, unsigned index, unsigned latent_pieces, unsigned rope_pieces) {
        const CacheParams &cache = params.cache;
        const DecodeShared &map = params.shared;
        const unsigned pieces = latent_pieces + rope_pieces;
        is_long = index < pieces;
        if (index < latent_pieces) {
            from = to = 16 * index;
            exists = from < cache.latent_row_bytes;
            row_bytes = cache.latent_row_bytes, stride = map.latent_stride;
        } else if (is_long) {
            const unsigned offset = 16 * (index - latent_pieces);
            exists = offset < cache.rope_row_bytes;
            from = cache.rope_offset + offset, row_bytes = cache.rope_row_bytes;
            to = map.rope + offset, stride = map.rope_stride;
        } else {
            const unsigned offset = 4 * (index - pieces);
            exists = true;
            from = cache.affine_offset + offset, row_bytes = cache.affine_row_bytes;
            to = map.affine + offset, stride = map.affine_stride;
        }
    }
};

// Starts the copies of a lane's piece of the warp's tokens, an eighth of the tile. COMPLETE: all of it is there.
// Otherwise pieces past a row's end, and all of tokens past the item's end, become zeros.
template <bool COMPLETE>
__device__ void copy_pieces(const DecodeParams &params, const Piece &piece, const uint64_t *pages, unsigned first,
                            uint32_t stage) {
    const unsigned count = params.tile_tokens / WARPS, begin = thread_index() / WARP * count;
    const unsigned mask = params.cache.page_size - 1;
    uint32_t to = stage + piece.to + begin * piece.stride;
#pragma unroll 2
    for (unsigned token = begin; token < begin + count; ++token, to += piece.stride) {
        const uint64_t page = pages[token];
        const void *from =
            reinterpret_cast<const void *>(page + (piece.from + ((first + token) & mask) * piece.row_bytes));
        if constexpr (COMPLETE) {
            if (piece.is_long) {
                cp_async_16(to, from);
            } else {
                cp_async_4(to, from);
            }
        } else {
            const bool exists = piece.exists && page != 0;
            const void *existing = exists ? from : reinterpret_cast<const void *>(params.cache.pages);
            if (piece.is_long) {
                cp_async_16_zero_filled(to, existing, exists ? 16 : 0);
            } else {
                cp_async_4_zero_filled(to, existing, exists ? 4 : 0);
            }
        }
    }
}

// Starts the copies of a tile's latents, rotated keys and scales: a warp has an eighth of the tokens, its lanes the
// pieces of one at a time.
template <typename S>
__device__ void copy_tile(const DecodeParams &params, const uint64_t *pages, unsigned first, unsigned end,
                          const unsigned char *stage) {
    const CacheParams &cache = params.cache;
    const unsigned latent_bytes = params.latent_steps * STEP_BYTES<S>;
    const unsigned rope_bytes = params.rope_steps * rope_step_bytes(params);
    const unsigned pieces = (latent_bytes + rope_bytes) / 16 + cache.affine_row_bytes / 4;
    const bool complete = first + params.tile_tokens <= end && latent_bytes == cache.latent_row_bytes &&
                          rope_bytes == cache.rope_row_bytes;
#pragma unroll 1
    for (unsigned index = thread_index() % WARP; index < pieces; index += WARP) {
        const Piece piece(params, index, latent_bytes / 16, rope_bytes / 16);
        if (complete) {
            copy_pieces<true>(params, piece, pages, first, shared_address(stage));
        } else {
            copy_pieces<false>(params, piece, pages, first, shared_address(stage));
        }
    }
}
