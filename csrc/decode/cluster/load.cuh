// From pages to shared memory: what the block has of each token, by the warpgroup that copies, a quarter of each tile to a
// warp. Rows get a stride without bank conflicts; pairs of (scale, min) lie side by side, that of the latents first.
//
// As in ../sm90/load.cuh a half-warp has a run of eight tokens, which are of one page.
#pragma once

#include "../sm90/load.cuh"
#include "block.cuh"

// Copies the block's part of a run, of which the first `existing` tokens exist. What lies past the end of a row, or of the
// tokens, is zeros: of these no byte is read, whatever the address.
template <typename S>
__device__ void copy_part_of_run(const DecodeParams &params, const Run &run, unsigned existing, unsigned rank) {
    static_assert(S::ROW_BYTES == 16 * RUN_LANES, "a half-warp copies a row of latents at a time");
    const CacheParams &cache = params.cache;
    const DecodeSm90Shared &map = params.sm90;
    const unsigned lane = thread_index() % RUN_LANES;
    {
        const unsigned column = rank * S::ROW_BYTES + 16 * lane;
        const unsigned rows = column < cache.latent_row_bytes ? existing : 0;
        const unsigned char *from = run.from(latent_tile(cache)) + column;
        const uint32_t to = run.to(0, S::ROW_STRIDE) + 16 * lane;
#pragma unroll
        for (unsigned row = 0; row < RUN_TOKENS; ++row) {
            cp_async_16_zero_filled(to + row * S::ROW_STRIDE, from + row * cache.latent_row_bytes, row < rows ? 16 : 0);
        }
    }
    const unsigned row_bytes = 8 * map.rope_lane_bytes * map.rope_blocks, skipped = rank * row_bytes;
    const unsigned char *keys = run.from(rope_tile(cache)) + skipped;
    const uint32_t to_keys = run.to(map.rope, map.rope_stride);
#pragma unroll 1
    for (unsigned i = lane; 2 * i < row_bytes; i += RUN_LANES) {
        const unsigned row = i * map.rope_inverse >> 16, column = 16 * i - row * row_bytes;
        const bool exists = row < existing && skipped + column < cache.rope_row_bytes;
        cp_async_16_zero_filled(to_keys + row * map.rope_stride + column, keys + row * cache.rope_row_bytes + column,
                                exists ? 16 : 0);
    }
    const unsigned words = S::pair_bytes(params) / 4, row = lane % RUN_TOKENS;
    const unsigned first_rope = cache.latent_groups + own_rope_group(params, rank);
    const unsigned char *pairs = run.from(affine_tile(cache)) + row * cache.affine_row_bytes;
    const uint32_t to_pairs = run.to(map.affine, 4 * words) + row * 4 * words;
#pragma unroll 1
    for (unsigned word = lane / RUN_TOKENS; word < words; word += RUN_LANES / RUN_TOKENS) {
        const unsigned column = 4 * (word == 0 ? rank : first_rope + word - 1);
        cp_async_4_zero_filled(to_pairs + 4 * word, pairs + column,
                               row < existing && column < cache.affine_row_bytes ? 4 : 0);
    }
}

// Tells who does the softmax of a warp's unit of a tile that the block has done with all tiles up to SCORES_BEHIND before.
template <typename S>
__device__ void tell_done(const SharedMemory<S> &memory, unsigned tile) {
    const unsigned thread = thread_index() - CONSUMER_THREADS, unit = TILE_UNITS * tile + thread / WARP;
    if (thread % WARP == 0) {
        const uint32_t barrier = shared_address(&cluster_state(memory).scored[slot_of_unit<S>(unit)]);
        cluster_arrive(in_block(barrier, owner_of_unit<S>(unit)));
    }
}

// Copies the block's part of all tiles of the split, and tells the other blocks how far the products are.
template <typename S>
__device__ void copy_part_of_tiles(const DecodeParams &params, const SharedMemory<S> &memory) {
    const CacheParams &cache = params.cache;
    const DecodeSplit &split = memory.state().split;
    const auto index = [] { return (thread_index() - CONSUMER_THREADS) / RUN_LANES; };
    const unsigned begin = uniform(tiles_begin(split)), end = uniform(split.end), rank = cluster_rank();
    const uint32_t full = shared_address(memory.state().full), empty = shared_address(memory.state().empty);
    const unsigned tiles = uniform(tile_count(split)), stages = params.sm90.stage_count;
    unsigned next_page = page_of(params, split.row, begin + index() * RUN_TOKENS, end);
    Slot slot;
#pragma unroll 1
    for (unsigned tile = 0; tile < min(tiles, SCORES_BEHIND); ++tile) {
        tell_done(memory, tile);
    }
    for (unsigned tile = 0; tile < tiles + stages - SCORES_BEHIND; ++tile) {
        mbarrier_wait(empty + 8 * slot.index(), slot.parity() ^ 1);
        // All have done with what was in the stage.
        if (tile >= stages) {
            tell_done(memory, tile - stages + SCORES_BEHIND);
        }
        if (tile >= tiles) {
            slot.advance(1, stages);
            continue;
        }
        const unsigned own = index(), token = begin + tile * TILE + own * RUN_TOKENS;
        const Run run = {page_address(cache, next_page), offset_in_page(cache, token), own,
                         shared_address(memory.stage(slot.index()))};
        // The next tile's, while this one is copied.
        next_page = page_of(params, split.row, token + TILE, end);
        copy_part_of_run<S>(params, run, token < end ? end - token : 0, rank);
        mbarrier_arrive_after_copies(full + 8 * slot.index());
        slot.advance(1, stages);
    }
    cp_async_wait_all();
}
