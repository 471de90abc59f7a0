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

// Copies a row per token, of `row_bytes` at `offset` of the token's page, to `destination`, as `chunks` chunks of
// `CHUNK` bytes. Chunks past a row's end, and all of tokens past the item's end, become zeros.
template <unsigned CHUNK>
__device__ void copy_rows(const DecodeParams &params, const uint64_t *pages, unsigned first, uint32_t destination,
                          unsigned stride, unsigned chunks, unsigned offset, unsigned row_bytes) {
    chunks = anew(chunks);
    // Neighbouring lanes take neighbouring chunks; several rows share a warp if they are short.
    const unsigned lanes_log2 = chunks >= WARP ? 5 : 32 - __clz(max(chunks, 1u) - 1);
    const unsigned thread = thread_index(), lane = thread & ((1u << lanes_log2) - 1);
#pragma unroll 1
    for (unsigned token = thread >> lanes_log2; token < params.tile_tokens; token += DECODE_THREADS >> lanes_log2) {
        const uint64_t page = pages[token];
        const unsigned row = (first + token) & (params.cache.page_size - 1);
        const uint64_t source = page + offset + row * row_bytes;
#pragma unroll 1
        for (unsigned chunk = lane; chunk < chunks; chunk += 1u << lanes_log2) {
            const bool exists = page != 0 && CHUNK * chunk < row_bytes;
            const void *from = reinterpret_cast<const void *>(exists ? source + CHUNK * chunk : params.cache.pages);
            const uint32_t to = destination + token * stride + CHUNK * chunk;
            if (CHUNK == 16) {
                cp_async_16_zero_filled(to, from, exists ? CHUNK : 0);
            } else {
                cp_async_4_zero_filled(to, from, exists ? CHUNK : 0);
            }
        }
    }
}

// Bytes of 64 latents, and of a step of the rotated key, as they lie in the cache.
template <typename S>
constexpr unsigned STEP_BYTES = S::LATENTS == Latents::Bf16 ? 2 * STEP : STEP / 2;

__device__ inline unsigned rope_step_bytes(const DecodeParams &params) {
    return params.cache.rope_kind == ROW_BF16 ? 64 : params.cache.rope_kind == ROW_INT8 ? 32 : 16;
}

// Starts the copies of a tile's latents, rotated keys and scales.
template <typename S>
__device__ void copy_tile(const DecodeParams &params, const uint64_t *pages, unsigned first, const unsigned char *stage) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const uint32_t base = shared_address(stage);
    copy_rows<16>(params, pages, first, base, map.latent_stride, params.latent_steps * STEP_BYTES<S> / 16, 0,
                  cache.latent_row_bytes);
    copy_rows<16>(params, pages, first, base + map.rope, map.rope_stride, params.rope_steps * rope_step_bytes(params) / 16,
                  cache.rope_offset, cache.rope_row_bytes);
    copy_rows<4>(params, pages, first, base + map.affine, map.affine_stride, cache.affine_row_bytes / 4,
                 cache.affine_offset, cache.affine_row_bytes);
}
