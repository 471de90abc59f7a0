// A token's latent or rotated key as the cache decodes it, in bf16: `Affine::value` of `src/cache/codec.rs`, rounded to
// f32 and then to bf16, each time to nearest even; what the cache holds in bf16 as it is.
#pragma once

#include "dequantize.cuh"
#include "layout.cuh"

struct CachedRow {
    const unsigned char *bytes;  // 16-byte aligned, and padded to as many
    const uint32_t *affine;      // (scale, min) of its groups
    unsigned kind, group;
};

__device__ inline CachedRow latent_row(const CacheParams &cache, const CachedToken &token) {
    return {token.latent(cache), token.affine(cache), cache.latent_kind, cache.latent_group};
}

__device__ inline CachedRow rope_row(const CacheParams &cache, const CachedToken &token) {
    return {token.rope(cache), token.affine(cache) + cache.latent_groups, cache.rope_kind, cache.rope_group};
}

// Numbers `i` to `i + 7`, `i` being a multiple of 8; what is behind the end of the row is padding.
__device__ inline Chunk load_row_chunk(const CachedRow &row, unsigned i) {
    if (row.kind == ROW_BF16) {
        return load_chunk<true>(reinterpret_cast<const uint16_t *>(row.bytes) + i, CHUNK);
    }
    // Groups are powers of two and multiples of 8.
    const uint32_t affine = __ldg(row.affine + (i >> (__ffs(row.group) - 1)));
    if (row.kind == ROW_INT4) {
        return dequantise_int4_exactly(__ldg(reinterpret_cast<const uint32_t *>(row.bytes) + i / CHUNK), affine);
    }
    const uint2 codes = __ldg(reinterpret_cast<const uint2 *>(row.bytes + i));
    Chunk chunk;
#pragma unroll
    for (unsigned j = 0; j < CHUNK; j += 2) {
        const uint32_t pair = (j < 4 ? codes.x : codes.y) >> (8 * (j % 4));
        chunk.pair[j / 2] = dequantise(pair & 255, affine) | uint32_t(dequantise(pair >> 8 & 255, affine)) << 16;
    }
    return chunk;
}
