// The dynamic shared memory of a block. Where things lie is the host's choice, `DecodeSm90Shared`, made by
// `src/ops/decode/sm90.rs`. It begins on a multiple of 1024 bytes, as swizzled blocks do: the kernel has no static
// shared memory before it.
#pragma once

#include "../../ptx/address.cuh"
#include "../../ptx/wgmma.cuh"
#include "block.cuh"

template <typename S>
class SharedMemory {
    unsigned char *begin_;
    const DecodeSm90Shared &map_;

public:
    __device__ SharedMemory(unsigned char *begin, const DecodeParams &params) : begin_(begin), map_(params.sm90) {}

    __device__ const DecodeSm90Shared &map() const { return map_; }

    // The query for the latents: [STEPS][heads][64], swizzled.
    __device__ unsigned char *q_latent() const { return begin_; }

    // The query for the rotated key, zeros but in the columns of a head's own rope head: [rope_blocks][heads][64],
    // swizzled.
    __device__ unsigned char *q_rope() const { return begin_ + map_.q_rope; }

    // The heads' sums of the query over the groups of a token's pairs, in two parts each, and zeros where no group is:
    // blocks of 64 k, swizzled. In k are four groups to 16, behind the first, which stands beside these (mins.cuh).
    __device__ unsigned char *q_sums() const { return begin_ + map_.q_sums; }
    __device__ uint32_t *q_sum(unsigned head, unsigned word) const {
        const unsigned i = word - 1, k = word == 0 ? 4 : i / 4 * 16 + i % 4 / 2 * 8 + i % 2 * 2;
        return reinterpret_cast<uint32_t *>(q_sums() + k / 64 * S::BLOCK_BYTES + swizzled(head, 2 * (k % 64)));
    }

    // A warpgroup's weights times scales, of every other one of its tiles, or of every one where the warpgroups work
    // together: [heads][64], swizzled.
    __device__ uint32_t weights(unsigned warpgroup, unsigned which) const {
        constexpr unsigned PLACES = S::SHARED ? 1 : 2;
        return shared_address(begin_) + map_.weights + (PLACES * warpgroup + which) * S::BLOCK_BYTES;
    }

    __device__ BlockState<S> &state() const { return *reinterpret_cast<BlockState<S> *>(begin_ + map_.state); }

    // What a thread keeps of two of its heads.
    __device__ float4 *state_of_thread(unsigned pair) const {
        return reinterpret_cast<float4 *>(begin_ + map_.states) + pair * CONSUMER_THREADS + threadIdx.x;
    }

    __device__ unsigned char *stage(unsigned slot) const { return begin_ + map_.stages + slot * map_.stage_bytes; }

    // In place of the stages, with latents of bf16: a head's output, in different banks for heads two apart.
    __device__ float *output_row(unsigned head) const {
        return reinterpret_cast<float *>(begin_ + map_.stages) + head * (S::STEPS * STEP + 4);
    }

    // In place of the stages, when nobody needs them any more: what warpgroups hand to each other.
    __device__ float4 *exchange(unsigned warpgroup) const {
        return reinterpret_cast<float4 *>(begin_ + map_.stages) + warpgroup * (S::STEPS * S::N_TILES / 2 * WARPGROUP);
    }
};

// Bytes of 64 values of bf16 of a tile's tokens: a block of them, [64 tokens][64], swizzled.
constexpr unsigned VALUE_BLOCK_BYTES = 128 * TILE;

// Where 16-byte unit `unit` of row `row` lies in such blocks, of which a row has eight units each.
__device__ inline unsigned place_of_unit(unsigned row, unsigned unit) {
    return unit / 8 * VALUE_BLOCK_BYTES + swizzled(row, unit % 8 * 16);
}

// A place in the ring of stages and the parity of its use, in one register.
class Slot {
    unsigned state_ = 0;

public:
    __device__ unsigned index() const { return state_ / 2; }
    __device__ unsigned parity() const { return state_ % 2; }

    // Goes on by `tiles`, at most as many as there are stages.
    __device__ void advance(unsigned tiles, unsigned stages) {
        state_ += 2 * tiles;
        if (state_ >= 2 * stages) {
            state_ = (state_ - 2 * stages) ^ 1;
        }
    }
};
