// From pages to shared memory: the warpgroup that copies, a quarter of each tile to a warp. Rows stay as they are in
// the cache; those of latents and of rotated keys get a stride without bank conflicts. Rows of bf16 that products read
// where they lie are spread over swizzled blocks (bf16.cuh).
//
// A half-warp has a run of eight tokens, which are of one page and lie there one after the other: three runs of bytes,
// whose 16-byte units its lanes take in turn.
#pragma once

#include "../../cache/sequences.cuh"
#include "../../ptx/cp_async.cuh"
#include "../../ptx/mbarrier.cuh"
#include "../../ptx/special.cuh"
#include "../split.cuh"
#include "shared.cuh"

// The lanes that copy a run, and its tokens.
constexpr unsigned RUN_LANES = WARP / 2, RUN_TOKENS = TILE / (PRODUCER_THREADS / RUN_LANES);
static_assert(RUN_TOKENS == 8, "pages are multiples of a run");

// A run: its page, its row in the tiles of the page, its number in the tile of tokens, and where that begins.
struct Run {
    const unsigned char *page;
    unsigned offset, index;
    uint32_t stage;

    __device__ const unsigned char *from(const CacheTile &tile) const { return page + tile.row(offset); }
    __device__ uint32_t to(unsigned start, unsigned stride) const {
        return stage + start + index * RUN_TOKENS * stride;
    }
};

// Copies the first `existing` of a run's rows of latents or rotated keys, and zeros for the others. `inverse` times the
// number of a 16-byte unit, over 65536, is its row.
__device__ inline void copy_rows(const unsigned char *from, unsigned row_bytes, unsigned inverse, unsigned existing,
                                 uint32_t to, unsigned stride) {
    const unsigned lane = thread_index() % RUN_LANES;
#pragma unroll 1
    for (unsigned i = lane; 2 * i < row_bytes; i += RUN_LANES) {
        // Of a row that does not exist no byte is read, whatever the address.
        const unsigned row = i * inverse >> 16;
        cp_async_16_zero_filled(to + 16 * i + row * (stride - row_bytes), from + 16 * i, row < existing ? 16 : 0);
    }
}

// Copies a run's rows into blocks of 64 values, in the order of the products; zeros for those that do not exist.
__device__ inline void copy_into_blocks(const unsigned char *from, unsigned row_bytes, unsigned existing, uint32_t to) {
#pragma unroll 1
    for (unsigned unit = thread_index() % RUN_LANES; 16 * unit < row_bytes; unit += RUN_LANES) {
#pragma unroll
        for (unsigned row = 0; row < RUN_TOKENS; ++row) {
            const unsigned token = token_in_row(row);
            cp_async_16_zero_filled(to + place_of_unit(row, unit), from + token * row_bytes + 16 * unit,
                                    token < existing ? 16 : 0);
        }
    }
}

// Copies any run, of which the first `existing` tokens exist.
template <typename S>
__device__ void copy_run(const DecodeParams &params, const Run &run, unsigned existing) {
    const CacheParams &cache = params.cache;
    const DecodeSm90Shared &map = params.sm90;
    if constexpr (S::LATENTS == Latents::Bf16) {
        copy_into_blocks(run.from(latent_tile(cache)), cache.latent_row_bytes, existing, run.to(0, 128));
    } else {
        copy_rows(run.from(latent_tile(cache)), cache.latent_row_bytes, map.latent_inverse, existing,
                  run.to(0, S::ROW_STRIDE), S::ROW_STRIDE);
    }
    if (S::LATENTS == Latents::Bf16 && cache.rope_kind == ROW_BF16) {
        copy_into_blocks(run.from(rope_tile(cache)), cache.rope_row_bytes, existing, run.to(map.rope, 128));
    } else {
        copy_rows(run.from(rope_tile(cache)), cache.rope_row_bytes, map.rope_inverse, existing,
                  run.to(map.rope, map.rope_stride), map.rope_stride);
    }
    const unsigned bytes = min(existing, RUN_TOKENS) * cache.affine_row_bytes;
    const unsigned char *from = run.from(affine_tile(cache));
    const uint32_t to = run.to(map.affine, cache.affine_row_bytes);
#pragma unroll 1
    for (unsigned i = thread_index() % RUN_LANES * 16; i < RUN_TOKENS * cache.affine_row_bytes; i += 16 * RUN_LANES) {
        cp_async_16_zero_filled(to + i, from + i, i < bytes ? min(bytes - i, 16u) : 0);
    }
}

// Copies a run of eight tokens where rows are regular (params.h): a lane's units are a number of whole rows apart,
// which are additions only. What all layers have is one block of code.
template <typename S>
__device__ void copy_regular_run(const DecodeParams &params, const Run &run) {
    constexpr unsigned UNITS = S::ROW_BYTES / 16, ROWS = RUN_LANES / UNITS, PART = 16 * RUN_LANES;
    static_assert(RUN_LANES % UNITS == 0, "a half-warp copies whole rows");
    const CacheParams &cache = params.cache;
    const DecodeSm90Shared &map = params.sm90;
    const unsigned lane = thread_index() % RUN_LANES;
    const unsigned char *latents = run.from(latent_tile(cache)) + 16 * lane;
    const uint32_t to_latents = run.to(0, S::ROW_STRIDE) + 16 * (lane % UNITS) + lane / UNITS * S::ROW_STRIDE;
#pragma unroll
    for (unsigned i = 0; i < RUN_TOKENS; i += ROWS) {
        cp_async_16(to_latents + i * S::ROW_STRIDE, latents + i * S::ROW_BYTES);
    }
    const unsigned affine_bytes = RUN_TOKENS * cache.affine_row_bytes;
    const unsigned char *affine = run.from(affine_tile(cache)) + 16 * lane;
    const uint32_t to_affine = run.to(map.affine, cache.affine_row_bytes) + 16 * lane;
    cp_async_16_if(16 * lane < affine_bytes, to_affine, affine);
    const unsigned rope_bytes = RUN_TOKENS * cache.rope_row_bytes, row = lane * map.rope_inverse >> 16;
    const unsigned char *ropes = run.from(rope_tile(cache)) + 16 * lane;
    uint32_t to_ropes = run.to(map.rope, map.rope_stride) + 16 * lane + row * (map.rope_stride - cache.rope_row_bytes);
    cp_async_16_if(16 * lane < rope_bytes, to_ropes, ropes);
    // The others of the parts of 256 bytes, of as many rows each.
    cp_async_16_if(PART < rope_bytes, to_ropes + map.rope_part_stride, ropes + PART);
#pragma unroll 1
    for (unsigned part = 2 * PART; part < rope_bytes; part += PART) {
        cp_async_16(to_ropes + part / PART * map.rope_part_stride, ropes + part);
    }
#pragma unroll 1
    for (unsigned part = PART; part < affine_bytes; part += PART) {
        cp_async_16_if(part + 16 * lane < affine_bytes, to_affine + part, affine + part);
    }
}

// The page of the token, which is in the page table if it is before the end; otherwise any page, as nothing of it is
// read.
__device__ inline unsigned page_of(const DecodeParams &params, unsigned row, unsigned token, unsigned end) {
    const int32_t *pages = reinterpret_cast<const int32_t *>(params.page_table) + row;
    return token < end ? page_of_token(params.cache, pages, token) : 0;
}

// Copies all tiles of the split.
template <typename S>
__device__ void copy_tiles(const DecodeParams &params, const SharedMemory<S> &memory) {
    const CacheParams &cache = params.cache;
    const DecodeSm90Shared &map = params.sm90;
    // Of the thread's run, computed where it is needed: registers are few.
    const auto index = [] { return (thread_index() - CONSUMER_THREADS) / RUN_LANES; };
    const unsigned begin = uniform(tiles_begin(memory.state().split)), end = uniform(memory.state().split.end);
    const uint32_t full = shared_address(memory.state().full), empty = shared_address(memory.state().empty);
    unsigned next_page = page_of(params, memory.state().split.row, begin + index() * RUN_TOKENS, end);
    Slot slot;
    for (unsigned first = begin; first < end; first += TILE) {
        mbarrier_wait(empty + 8 * slot.index(), slot.parity() ^ 1);
        const unsigned own = index(), token = first + own * RUN_TOKENS;
        const Run run = {page_address(cache, next_page), offset_in_page(cache, token), own,
                         shared_address(memory.stage(slot.index()))};
        // The next tile's, while this one is copied.
        next_page = page_of(params, memory.state().split.row, token + TILE, end);
        const unsigned existing = token < end ? end - token : 0;
        if constexpr (S::LATENTS == Latents::Bf16) {
            copy_run<S>(params, run, existing);
        } else if (map.is_regular != 0 && first + TILE <= end) {
            copy_regular_run<S>(params, run);
        } else {
            copy_run<S>(params, run, existing);
        }
        mbarrier_arrive_after_copies(full + 8 * slot.index());
        slot.advance(1, map.stage_count);
    }
    cp_async_wait_all();
}
