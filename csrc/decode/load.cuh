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

template <unsigned CHUNK>
__device__ void cp_async(uint32_t to, const void *from) {
    if constexpr (CHUNK == 16) {
        cp_async_16(to, from);
    } else {
        cp_async_4(to, from);
    }
}

template <unsigned CHUNK>
__device__ void cp_async_zero_filled(uint32_t to, const void *from, unsigned bytes) {
    if constexpr (CHUNK == 16) {
        cp_async_16_zero_filled(to, from, bytes);
    } else {
        cp_async_4_zero_filled(to, from, bytes);
    }
}

// Copies a row per token, of `row_bytes` at `offset` of the token's page, to `destination`, as chunks of `CHUNK` bytes.
// Neighbouring lanes take neighbouring chunks, 2^lanes_log2 to a row; several rows share a warp if they are short.
// COMPLETE: no chunk is past a row's end, and all tokens exist. Otherwise chunks past a row's end, and all of tokens
// past the item's end, become zeros.
template <unsigned CHUNK, bool COMPLETE>
__device__ void copy_rows(const DecodeParams &params, const uint64_t *pages, unsigned first, uint32_t destination,
                          unsigned stride, unsigned lanes_log2, unsigned chunks, unsigned offset, unsigned row_bytes) {
    const unsigned thread = thread_index(), lane = thread & ((1u << lanes_log2) - 1), step = 1u << lanes_log2;
    const unsigned mask = params.cache.page_size - 1, token_step = DECODE_THREADS >> lanes_log2;
#pragma unroll 1
    for (unsigned chunk = lane; chunk < chunks; chunk += step) {
        const unsigned from = offset + CHUNK * chunk;
        const bool inside = CHUNK * chunk < row_bytes;
        unsigned token = thread >> lanes_log2;
        uint32_t to = destination + token * stride + CHUNK * chunk;
        const uint64_t *page = pages + token;
#pragma unroll 1
        for (; token < params.tile_tokens; token += token_step, page += token_step, to += token_step * stride) {
            const uint64_t source = *page + (from + ((first + token) & mask) * row_bytes);
            if constexpr (COMPLETE) {
                cp_async<CHUNK>(to, reinterpret_cast<const void *>(source));
            } else {
                const bool exists = inside && *page != 0;
                const void *existing = reinterpret_cast<const void *>(exists ? source : params.cache.pages);
                cp_async_zero_filled<CHUNK>(to, existing, exists ? CHUNK : 0);
            }
        }
    }
}

// The same, whichever of both it is. All threads agree.
template <unsigned CHUNK>
__device__ void copy_rows(const DecodeParams &params, const uint64_t *pages, unsigned first, bool tokens_exist,
                          uint32_t destination, unsigned stride, unsigned chunks, unsigned offset, unsigned row_bytes) {
    chunks = anew(chunks);
    if (chunks == 0) {
        return;
    }
    const unsigned lanes_log2 = chunks >= WARP ? 5 : 32 - __clz(chunks - 1);
    if (tokens_exist && row_bytes == CHUNK * chunks) {
        copy_rows<CHUNK, true>(params, pages, first, destination, stride, lanes_log2, chunks, offset, row_bytes);
    } else {
        copy_rows<CHUNK, false>(params, pages, first, destination, stride, lanes_log2, chunks, offset, row_bytes);
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
__device__ void copy_tile(const DecodeParams &params, const uint64_t *pages, unsigned first, unsigned end,
                          const unsigned char *stage) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    const uint32_t base = shared_address(stage);
    const bool exist = first + params.tile_tokens <= end;
    copy_rows<16>(params, pages, first, exist, base, map.latent_stride, params.latent_steps * STEP_BYTES<S> / 16, 0,
                  cache.latent_row_bytes);
    copy_rows<16>(params, pages, first, exist, base + map.rope, map.rope_stride,
                  params.rope_steps * rope_step_bytes(params) / 16, cache.rope_offset, cache.rope_row_bytes);
    copy_rows<4>(params, pages, first, exist, base + map.affine, map.affine_stride, cache.affine_row_bytes / 4,
                 cache.affine_offset, cache.affine_row_bytes);
}
