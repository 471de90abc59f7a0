// In which pages the tokens of a batch lie: `src/cache/sequences.rs` on the device.
#pragma once

#include <stdint.h>

#include "../params.h"
#include "layout.cuh"

// The id of the page in which a token of a sequence lies. `page_ids` are those of the sequence; only this one is read.
__device__ inline unsigned page_of_token(const CacheParams &cache, const int32_t *page_ids, unsigned token) {
    return static_cast<unsigned>(__ldg(page_ids + (token >> page_size_log2(cache))));
}

// A token of a sequence, which must be below the sequence's length: the page table may hold anything beyond.
__device__ inline CachedToken token_of_sequence(const CacheParams &cache, const BatchParams &batch, unsigned sequence,
                                                unsigned token) {
    const int32_t *starts = reinterpret_cast<const int32_t *>(batch.page_starts);
    const size_t row = starts != nullptr ? __ldg(starts + sequence) : size_t(sequence) * batch.max_pages;
    const int32_t *page_ids = reinterpret_cast<const int32_t *>(batch.page_table) + row;
    return {page_address(cache, page_of_token(cache, page_ids, token)), offset_in_page(cache, token)};
}

// The token that stands in row `row` of an output in which the tokens of sequence b begin in row starts[b], with its
// token first_tokens[b] (null: with token 0). Whatever these numbers are, it is a token that the batch has, or none.
__device__ inline CachedToken token_of_row(const CacheParams &cache, const BatchParams &batch, const int32_t *starts,
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
    const unsigned token = row - __ldg(starts + low) + first;
    const unsigned length = __ldg(reinterpret_cast<const int32_t *>(batch.seq_lens) + low);
    return token < length ? token_of_sequence(cache, batch, low, token) : CachedToken{};
}

// The tokens of a block's tile of output rows, in shared memory: found once by one thread each, used by many.
template <unsigned TOKENS>
struct TileTokens {
    unsigned char *page[TOKENS];
    unsigned offset[TOKENS];

    __device__ void store(unsigned i, const CachedToken &token) {
        page[i] = token.page;
        offset[i] = token.offset;
    }

    __device__ CachedToken load(unsigned i) const { return {page[i], offset[i]}; }
};
