// The dynamic shared memory of a block. Where things lie is the host's choice, `DecodeSm90Shared`, made by
// `src/ops/decode/sm90.rs`. It begins on a multiple of 1024 bytes, as swizzled blocks do: the kernel has no static
// shared memory before it.
#pragma once

#include "../../ptx/address.cuh"
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

    // The heads' sums of `q_rope` over a group of the rotated key.
    __device__ float *q_rope_sums(unsigned group) const {
        return reinterpret_cast<float *>(begin_ + map_.q_rope_sums) + group * S::HEADS;
    }

    // A warpgroup's weights times scales, of every other one of its tiles: [heads][64], swizzled.
    __device__ uint32_t weights(unsigned warpgroup, unsigned which) const {
        return shared_address(begin_) + map_.weights + (2 * warpgroup + which) * S::BLOCK_BYTES;
    }

    __device__ BlockState<S> &state() const { return *reinterpret_cast<BlockState<S> *>(begin_ + map_.state); }

    // What a thread keeps of two of its heads.
    __device__ float4 *state_of_thread(unsigned pair) const {
        return reinterpret_cast<float4 *>(begin_ + map_.states) + pair * CONSUMER_THREADS + threadIdx.x;
    }

    __device__ unsigned char *stage(unsigned slot) const { return begin_ + map_.stages + slot * map_.stage_bytes; }

    // In place of the stages, when nobody needs them any more: what warpgroups hand to each other.
    __device__ float4 *exchange(unsigned warpgroup) const {
        return reinterpret_cast<float4 *>(begin_ + map_.stages) + warpgroup * (S::STEPS * S::N_TILES / 2 * WARPGROUP);
    }
};

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
