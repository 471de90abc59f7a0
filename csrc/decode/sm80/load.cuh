// From pages to shared memory: one tile of tokens, in the rows and bytes of the cache.
//
// A warp copies an eighth of a tile's tokens. Their rows of latents, and of rotated keys, follow each other in the cache,
// so that the warp copies them by pieces of 512 bytes, 16 to a lane, whatever rows these belong to: no lane is idle, and
// pieces have one address and constant distances. Where they belong in shared memory, whose rows are further apart, is the
// same for every tile, and waits there. Pairs of scale and min are copied the same way where their rows follow each other
// without a gap in shared memory too; else each by itself.
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

// Thread w finds the rows of the tokens that warp w copies of the tile from `first` on: nothing of the page table is read
// past the end.
template <typename S>
__device__ CopiedRows find_rows(const DecodeParams &params, const DecodeSplit &split, unsigned first) {
    const CacheParams &cache = params.cache;
    const unsigned token = first + thread_index() * warp_tokens<S>(params);
    if (thread_index() >= WARPS || token >= split.end) {
        return {};
    }
    const int32_t *row = reinterpret_cast<const int32_t *>(params.page_table) + split.row;
    const uint64_t page = reinterpret_cast<uint64_t>(page_address(cache, page_of_token(cache, row, token)));
    const unsigned offset = offset_in_page(cache, token);
    return {page + latent_tile(cache).row(offset), page + rope_tile(cache).row(offset),
            page + affine_tile(cache).row(offset)};
}

// Bytes of 64 latents as they lie in the cache.
template <typename S>
constexpr unsigned STEP_BYTES = S::LATENTS == Latents::Bf16 ? 2 * STEP : STEP / 2;

// Pieces that a lane copies with one address, of latents and of rotated keys.
constexpr unsigned LATENT_PIECES = 4, ROPE_PIECES = 2;
constexpr unsigned PIECE_BYTES = 16 * WARP;

// A lane's places of as many pieces as it copies at a time.
template <unsigned PIECES>
struct alignas(4 * PIECES) PiecePlaces {
    uint32_t of[PIECES];
};

// Stores where a lane's pieces of a warp's rows belong, `stride` bytes apart, from the first row on.
template <typename S, unsigned PIECES>
__device__ void prepare_pieces(const DecodeParams &params, unsigned row_bytes, unsigned stride, void *to) {
    constexpr unsigned BYTES = PIECES * PIECE_BYTES;
    const unsigned count = (warp_tokens<S>(params) * row_bytes + BYTES - 1) / BYTES * WARP;
#pragma unroll 1
    for (unsigned index = threadIdx.x; index < count; index += DECODE_THREADS) {
        PiecePlaces<PIECES> places;
#pragma unroll
        for (unsigned i = 0; i < PIECES; ++i) {
            const unsigned bytes = index / WARP * BYTES + i * PIECE_BYTES + 16 * (index % WARP);
            places.of[i] = bytes / row_bytes * stride + bytes % row_bytes;
        }
        static_cast<PiecePlaces<PIECES> *>(to)[index] = places;
    }
}

// Stores places, and zeros where k-steps reach beyond the rows of the cache: copies never come there.
template <typename S>
__device__ void prepare_copies(const DecodeParams &params, const SharedMemory<S> &memory) {
    const CacheParams &cache = params.cache;
    const DecodeShared &map = params.shared;
    prepare_pieces<S, LATENT_PIECES>(params, cache.latent_row_bytes, map.latent_stride, memory.latent_pieces());
    if (cache.rope_row_bytes > 0) {
        prepare_pieces<S, ROPE_PIECES>(params, cache.rope_row_bytes, map.rope_stride, memory.rope_pieces());
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

// Starts the copies of a lane's pieces whose places are given, of which those exist that begin before the rows end: `left`
// bytes from the first one on, and at most MOST.
template <unsigned MOST, unsigned PIECES>
__device__ void copy_pieces(uint64_t from, int left, uint32_t to, const PiecePlaces<PIECES> &place) {
#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
        if (i * PIECE_BYTES < MOST) {
            cp_async_16_if(left > int(i * PIECE_BYTES), to + place.of[i],
                           reinterpret_cast<const void *>(from + i * PIECE_BYTES));
        }
    }
}

// The same of all of the lane's pieces.
template <unsigned PIECES, unsigned MOST>
__device__ void copy_all_pieces(uint64_t from, unsigned bytes, uint32_t to, const unsigned char *places) {
    constexpr unsigned BYTES = PIECES * PIECE_BYTES;
    const unsigned lane = thread_index() % WARP;
    from += 16 * lane;
    places += sizeof(PiecePlaces<PIECES>) * lane;
#pragma unroll 1
    for (int left = bytes; left > 0; left -= BYTES) {
        // By value: the compiler would read each place again behind the copy before it.
        const PiecePlaces<PIECES> place = at<PiecePlaces<PIECES>>(places, 0);
        copy_pieces<MOST>(from, left - int(16 * lane), to, place);
        if (MOST <= BYTES) {
            return;
        }
        from += BYTES;
        places += sizeof(PiecePlaces<PIECES>) * WARP;
    }
}

// The same where not all rows exist: those below `existing` bytes from `to` on do, and others become zeros.
template <unsigned PIECES>
__device__ void copy_existing(const CacheParams &cache, uint64_t from, unsigned bytes, uint32_t to,
                              const unsigned char *places, unsigned existing) {
#pragma unroll 1
    for (unsigned piece = thread_index() % WARP; 16 * piece < bytes; piece += WARP) {
        // Places lie by [pieces / PIECES][lane][PIECES].
        const unsigned index = piece / WARP, lane = piece % WARP;
        const uint32_t place = at<uint32_t>(places, 4 * ((index / PIECES * WARP + lane) * PIECES + index % PIECES));
        const bool exists = place < existing;
        cp_async_16_zero_filled(to + place, reinterpret_cast<const void *>(exists ? from + 16 * piece : cache.pages),
                                exists ? 16 : 0);
    }
}

// Starts the copies of `count` tokens' rows of pairs by words, of which `existing` exist; others become zeros.
__device__ inline void copy_words(const CacheParams &cache, uint64_t from, uint32_t to, unsigned stride, unsigned count,
                                  unsigned existing) {
    const unsigned row_bytes = cache.affine_row_bytes;
#pragma unroll 1
    for (unsigned place = 4 * (thread_index() % WARP); place < row_bytes; place += 4 * WARP) {
#pragma unroll 1
        for (unsigned i = 0; i < count; ++i) {
            const bool exists = i < existing;
            const void *any = reinterpret_cast<const void *>(exists ? from + i * row_bytes + place : cache.pages);
            cp_async_4_zero_filled(to + i * stride + place, any, exists ? 4 : 0);
        }
    }
}

// Starts the copies of a tile's latents, rotated keys and scales. Tokens from `end` on become zeros.
template <typename S>
__device__ void copy_tile(const DecodeParams &params, const SharedMemory<S> &memory, const CopiedRows (&rows)[WARPS],
                          unsigned first, unsigned end, const WarpPlaces (&warps)[WARPS]) {
    constexpr unsigned COUNT = S::TOKENS / WARPS, MOST = COUNT * S::SLICES * WARPS * STEP_BYTES<S>;
    const CacheParams &cache = params.cache;
    const unsigned thread = thread_index(), lane = thread % WARP, warp = thread / WARP;
    const unsigned count = warp_tokens<S>(params);
    const CopiedRows from = rows[warp];
    const WarpPlaces &to = warps[warp];
    const uint32_t stage = memory.stage_of(first).address();
    const unsigned latent_bytes = count * cache.latent_row_bytes, rope_bytes = count * cache.rope_row_bytes;
    const unsigned affine_bytes = count * cache.affine_row_bytes, stride = params.shared.affine_stride;
    const uint32_t to_latents = stage + to.to_latents, to_rope = stage + to.to_rope, to_affine = stage + to.to_affine;
    // All tokens of the tile are there.
    if (first + memory.tile_tokens() <= end) {
        // Pairs can be copied as pieces if their rows follow each other in both places. Rows of 4 tokens are a multiple
        // of 16 bytes.
        const bool affine_pieces = COUNT % 4 == 0 && stride == cache.affine_row_bytes;
        // Few bytes of each are copied without loops and loads between them: in front of copies behind any of these ptxas
        // reads nothing three times. (Without a rotated key nobody has stored where its pieces belong.)
        if (MOST <= LATENT_PIECES * PIECE_BYTES && affine_pieces && rope_bytes - 1 < ROPE_PIECES * PIECE_BYTES &&
            affine_bytes <= PIECE_BYTES) {
            const unsigned own = 16 * lane;
            const auto latents = at<PiecePlaces<LATENT_PIECES>>(memory.latent_pieces(), LATENT_PIECES * 4 * lane);
            const auto rope = at<PiecePlaces<ROPE_PIECES>>(memory.rope_pieces(), ROPE_PIECES * 4 * lane);
            cp_async_16_if(own < affine_bytes, to_affine + own, reinterpret_cast<const void *>(from.affine + own));
            copy_pieces<MOST>(from.latents + own, latent_bytes - own, to_latents, latents);
            copy_pieces<~0u>(from.rope + own, rope_bytes - own, to_rope, rope);
            return;
        }
        copy_all_pieces<LATENT_PIECES, MOST>(from.latents, latent_bytes, to_latents, memory.latent_pieces());
        copy_all_pieces<ROPE_PIECES, ~0u>(from.rope, rope_bytes, to_rope, memory.rope_pieces());
        if (affine_pieces) {
#pragma unroll 1
            for (unsigned place = 16 * lane; place < affine_bytes; place += PIECE_BYTES) {
                cp_async_16(to_affine + place, reinterpret_cast<const void *>(from.affine + place));
            }
        } else {
            copy_words(cache, from.affine, to_affine, stride, count, count);
        }
        return;
    }
    const unsigned token = first + warp * count, existing = token < end ? end - token : 0;
    copy_existing<LATENT_PIECES>(cache, from.latents, latent_bytes, to_latents, memory.latent_pieces(),
                                 existing * params.shared.latent_stride);
    copy_existing<ROPE_PIECES>(cache, from.rope, rope_bytes, to_rope, memory.rope_pieces(),
                               existing * params.shared.rope_stride);
    copy_words(cache, from.affine, to_affine, stride, count, existing);
}
