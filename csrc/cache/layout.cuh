// Where a cached token lies: pages, and rows of a page's tiles (`src/cache/layout.rs`).
#pragma once

#include "../params.h"

// A token's rows.
struct CachedToken {
    const unsigned char *page;  // null: no token
    unsigned slot;              // of the page's

    __device__ const unsigned char *latent(const CacheParams &cache) const {
        return page + slot * cache.latent_row_bytes;
    }

    __device__ const unsigned char *rope(const CacheParams &cache) const {
        return page + cache.rope_offset + slot * cache.rope_row_bytes;
    }

    // (scale, min) of each of the latent's groups, then of the rotated key's.
    __device__ const uint32_t *affine(const CacheParams &cache) const {
        return reinterpret_cast<const uint32_t *>(page + cache.affine_offset + slot * cache.affine_row_bytes);
    }
};

// Token `position` of a sequence, which must be below its length: the page table is read at its page.
__device__ inline CachedToken cached_token(const CacheParams &cache, const BatchParams &batch, unsigned sequence,
                                           unsigned position) {
    const int32_t *starts = reinterpret_cast<const int32_t *>(batch.page_starts);
    const size_t row = starts != nullptr ? __ldg(starts + sequence) : size_t(sequence) * batch.max_pages;
    const int32_t *table = reinterpret_cast<const int32_t *>(batch.page_table) + row;
    const int32_t page = __ldg(table + position / cache.page_size);
    return {reinterpret_cast<const unsigned char *>(cache.pages) + page * cache.page_bytes, position % cache.page_size};
}

// The token that stands in row `row` of tokens of which those of sequence b begin in row starts[b], with its token
// first_tokens[b] (null: with token 0). Whatever numbers these have, it is one that the batch has, or none.
__device__ inline CachedToken find_token(const CacheParams &cache, const BatchParams &batch, const int32_t *starts,
                                         const int32_t *first_tokens, unsigned row) {
    // The last sequence that begins at or before the row; empty ones before it begin there too.
    unsigned low = 0, high = batch.sequences;
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        if (unsigned(__ldg(starts + middle)) <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const unsigned first = first_tokens != nullptr ? __ldg(first_tokens + low) : 0;
    const unsigned position = row - __ldg(starts + low) + first;
    const unsigned length = __ldg(reinterpret_cast<const int32_t *>(batch.seq_lens) + low);
    return position < length ? cached_token(cache, batch, low, position) : CachedToken{};
}
