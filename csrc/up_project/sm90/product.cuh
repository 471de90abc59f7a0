// The warpgroups that multiply: 64 tokens times 256 columns of keys or values at a time, and how these are stored.
#pragma once

#include "../../ptx/convert.cuh"
#include "block.cuh"

// Columns of which a thread has 8, neighbours (`row_of_column`), and its sums of them in its two rows.
constexpr unsigned BLOCK_COLUMNS = 32, BLOCK_SUMS = 16;

// Rounds the sums, with the bias, and stores them: of each 32 columns a thread has 8, of the rows g and g + 8 of its
// warp's 16.
__device__ inline void store_sums(const UpProjectParams &params, const ColumnTile &tile, Tokens tokens,
                                  const float *bias, const float (&sums)[128]) {
    const Projection projection = projection_of(params, tile.is_key);
    const unsigned width = projection.outputs.width;
    const unsigned lane = threadIdx.x % WARP, row = threadIdx.x / WARP * 16 + lane / 4;
    const unsigned count[2] = {row < tokens.count ? CHUNK : 0, row + 8 < tokens.count ? CHUNK : 0};
    const size_t next_row = size_t(8) * projection.token_stride;
    unsigned column = lane % 4 * CHUNK, own = (tile.first + column) % width;
    uint16_t *to = projection.output + size_t(tokens.first + row) * projection.token_stride +
                   projection.outputs.offset(tile.first + column);
#pragma unroll
    for (unsigned block = 0; block < TILE_COLUMNS; block += BLOCK_COLUMNS) {
        if (column >= tile.count) {
            break;
        }
        const float4 *from = reinterpret_cast<const float4 *>(bias + column);
        const float4 low = from[0], high = from[1];
        const float biases[CHUNK] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            Chunk chunk;
#pragma unroll
            for (unsigned pair = 0; pair < CHUNK / 2; ++pair) {
                const unsigned sum = block / BLOCK_COLUMNS * BLOCK_SUMS + 4 * pair + 2 * i;
                chunk.pair[pair] = bf16x2_from_f32(sums[sum] + biases[2 * pair], sums[sum + 1] + biases[2 * pair + 1]);
            }
            store_chunk(to + i * next_row, chunk, count[i], true);
        }
        column += BLOCK_COLUMNS;
        to = stepped(to + BLOCK_COLUMNS);
        for (own += BLOCK_COLUMNS; own >= width; own -= width) {
            to = stepped(to + projection.outputs.head_stride - width);
        }
    }
}

// Multiplies all of the block's tiles. A k-step's products are in flight while the next one's are issued.
__device__ inline void multiply_tiles(const UpProjectParams &params, Tokens tokens, SharedMemory &memory) {
    const unsigned steps = step_count(params), group = uniform(threadIdx.x / WARPGROUP);
    const bool keeps = keeps_latents(steps);
    const uint32_t full = shared_address(memory.full), empty = shared_address(memory.empty);
    const uint64_t a = swizzled_descriptor(shared_address(memory.a) + group * (A_BYTES / CONSUMERS));
    const uint64_t b = swizzled_descriptor(shared_address(memory.b));
    const auto free = [&](uint32_t barrier) {
        __syncwarp();
        mbarrier_arrive(barrier, threadIdx.x % WARP == 0);
    };
    float sums[128];
    Ring ring;
    for_each_tile(params, [&](const ColumnTile &tile) {
        unsigned before = 0;
#pragma unroll 1
        for (unsigned step = 0; step < steps; ++step) {
            mbarrier_wait(full + 8 * ring.index, ring.parity);
            const uint64_t own_a = a + (keeps ? step : ring.index) * descriptor_bytes(A_BYTES);
            const uint64_t own_b = b + ring.index * descriptor_bytes(B_BYTES);
            wgmma_fence();
#pragma unroll
            for (unsigned k = 0; k < STEP / 16; ++k) {
                wgmma_256(sums, own_a + k * DESCRIPTOR_STEP, own_b + k * DESCRIPTOR_STEP, k > 0 || step > 0);
            }
            wgmma_commit();
            if (step > 0) {
                wgmma_wait<1>();
                free(empty + 8 * before);
            }
            before = ring.index;
            ring.advance();
        }
        wgmma_wait<0>();
        settle(sums);
        free(empty + 8 * before);
        store_sums(params, tile, tokens, memory.bias, sums);
        free(shared_address(&memory.bias_free));
    });
}
