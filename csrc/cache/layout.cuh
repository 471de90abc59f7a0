// Where the bytes of a cached token lie: `src/cache/layout.rs` on the device. Every kernel computes addresses here.
//
// A slot is `page * page_size + offset`. A token's record is row `offset` of each of the page's three tiles: latents,
// rotated keys, and (scale, min) pairs of f16, those of the latent's groups first.
#pragma once

#include <stdint.h>

#include "../params.h"
#include "../ptx/convert.cuh"

// Page sizes are powers of two.
__device__ inline unsigned page_size_log2(const CacheParams &cache) { return __ffs(cache.page_size) - 1; }

// The row of a sequence's token, or of a slot, in the tiles of its page: a sequence begins with a page.
__device__ inline unsigned offset_in_page(const CacheParams &cache, unsigned token) {
    return token & (cache.page_size - 1);
}

// A page's first byte. (A pointer from here on: of integers the compiler does not see that they are global memory.)
__device__ inline unsigned char *page_address(const CacheParams &cache, uint64_t page) {
    return reinterpret_cast<unsigned char *>(cache.pages) + page * cache.page_bytes;
}

// The rows of one tile: bytes from the start of a page to the first, and from one row to the next.
struct CacheTile {
    unsigned start, row_bytes;

    // Bytes from the start of a page to a token's row.
    __device__ unsigned row(unsigned offset) const { return start + offset * row_bytes; }

    // The rows without their first `bytes`.
    __device__ CacheTile skip(unsigned bytes) const { return {start + bytes, row_bytes}; }
};

__device__ inline CacheTile latent_tile(const CacheParams &cache) { return {0, cache.latent_row_bytes}; }
__device__ inline CacheTile rope_tile(const CacheParams &cache) { return {cache.rope_offset, cache.rope_row_bytes}; }
__device__ inline CacheTile affine_tile(const CacheParams &cache) {
    return {cache.affine_offset, cache.affine_row_bytes};
}

// A token's place in the cache.
struct CachedToken {
    unsigned char *page;  // null: no token
    unsigned offset;      // row in the tiles of the page
};

// The token in a slot, which must be one of the cache's.
__device__ inline CachedToken token_in_slot(const CacheParams &cache, int64_t slot) {
    return {page_address(cache, slot >> page_size_log2(cache)), offset_in_page(cache, static_cast<unsigned>(slot))};
}

// A token's latent, or the rotated keys of all its rope heads, and how the values are stored.
struct CachedRow {
    unsigned char *bytes;  // 16-byte aligned
    uint32_t *affine;      // (scale, min) of each group of values
    unsigned row_bytes;    // with padding, a multiple of 16
    unsigned kind;         // ROW_BF16, ROW_INT4 or ROW_INT8
    unsigned group;        // values that share a scale: a power of two, and a multiple of 8; 0 in bf16
};

__device__ inline CachedRow latent_row(const CacheParams &cache, const CachedToken &token) {
    return {token.page + latent_tile(cache).row(token.offset),
            reinterpret_cast<uint32_t *>(token.page + affine_tile(cache).row(token.offset)), cache.latent_row_bytes,
            cache.latent_kind, cache.latent_group};
}

__device__ inline CachedRow rope_row(const CacheParams &cache, const CachedToken &token) {
    return {token.page + rope_tile(cache).row(token.offset),
            reinterpret_cast<uint32_t *>(token.page + affine_tile(cache).row(token.offset)) + cache.latent_groups,
            cache.rope_row_bytes, cache.rope_kind, cache.rope_group};
}

// Bytes from the start of a row of (scale, min) pairs to the factors of normalised keys, which are f16: words of two, the
// last of which may have a zero behind the last factor.
__device__ inline unsigned factor_offset(const CacheParams &cache) {
    return cache.affine_row_bytes - (cache.key_factors + 1) / 2 * 4;
}

// A token's factors.
__device__ inline uint16_t *key_factors(const CacheParams &cache, const CachedToken &token) {
    return reinterpret_cast<uint16_t *>(token.page + affine_tile(cache).row(token.offset) + factor_offset(cache));
}

// A (scale, min) pair as the cache has it, both f16: the scale in bits 15..0.
__device__ inline uint32_t affine_pair(uint16_t scale, uint16_t min) { return scale | uint32_t(min) << 16; }
__device__ inline float affine_scale(uint32_t affine) { return f32_from_f16(static_cast<uint16_t>(affine)); }
__device__ inline float affine_min(uint32_t affine) { return f32_from_f16(static_cast<uint16_t>(affine >> 16)); }
