// The dynamic shared memory of a block, by rows. Where things lie is the host's choice, `DecodeShared`, made by
// `src/ops/decode/sm80.rs`; beside this file only the copies of load.cuh know its offsets.
//
// Rows that the loops over tokens walk through are of bytes, read with `at` as what they hold: behind pointers of another
// type the compiler scales each index within the loop, which costs instructions and registers.
#pragma once

#include "block.cuh"

// The T that is `bytes` behind `base`.
template <typename T>
__device__ const T &at(const void *base, unsigned bytes) {
    return *reinterpret_cast<const T *>(static_cast<const unsigned char *>(base) + bytes);
}

// Rows `stride` bytes apart. The stride is read from the parameters where it is needed.
struct Rows {
    const unsigned char *first;
    const uint32_t &stride;

    __device__ const unsigned char *operator[](unsigned row) const { return first + row * stride; }
};

// A stage: one buffer of the copy pipeline, with the tokens of a tile in the rows and bytes of the cache.
class Stage {
    const unsigned char *begin_;
    const DecodeShared &map_;

public:
    __device__ Stage(const unsigned char *begin, const DecodeShared &map) : begin_(begin), map_(map) {}

    // Its address within shared memory, as copies take it.
    __device__ uint32_t address() const { return shared_address(begin_); }

    // A token's latent.
    __device__ const unsigned char *latent(unsigned token) const { return begin_ + token * map_.latent_stride; }

    // Word `word` of the codes of a token's 64 latents `slice`.
    __device__ const unsigned char *codes(unsigned token, unsigned slice, unsigned word) const {
        return begin_ + token * map_.latent_stride + slice * STEP / 2 + 4 * word;
    }

    // A token's latent, as an address within shared memory, which `ldmatrix` takes.
    __device__ uint32_t latent_address(unsigned token) const { return address() + token * map_.latent_stride; }

    // The tokens' rotated keys.
    __device__ Rows rope() const { return {begin_ + map_.rope, map_.rope_stride}; }

    // The tokens' pairs of (scale, min), from pair `first` on.
    __device__ Rows affine(unsigned first = 0) const { return {begin_ + map_.affine + 4 * first, map_.affine_stride}; }

    // One of a token's pairs of (scale, min).
    __device__ uint32_t affine_pair(unsigned token, unsigned pair) const {
        return at<uint32_t>(begin_, map_.affine + 4 * pair + token * map_.affine_stride);
    }
};

// Strides can be handed in where the caller goes on from row to row with an opaque one.
template <typename S>
class SharedMemory {
    unsigned char *begin_;
    const DecodeParams &params_;

    __device__ const DecodeShared &map() const { return params_.shared; }

public:
    // Tokens of a tile.
    const unsigned tile_tokens;
    // Whether there are two stages, so that copies of the next tile overlap with the work on this one.
    const bool overlapped;

    __device__ SharedMemory(unsigned char *begin, const DecodeParams &params)
        : begin_(begin), params_(params), tile_tokens(params.tile_tokens), overlapped(params.shared.stage_count > 1) {}

    // The stage of the tile from token `first` on: tiles alternate between two, if there are. It is computed from an
    // opaque value, so that it is not kept from phase to phase: registers are the output's.
    __device__ Stage stage_of(unsigned first) const {
        return {begin_ + map().stages + (overlapped && (opaque(first) & tile_tokens) != 0 ? map().stage_bytes : 0),
                map()};
    }

    // A head's query for the latents: pairs of 16-bit numbers, in the order of queries.cuh.
    __device__ uint32_t *q_latent(unsigned head) const {
        return reinterpret_cast<uint32_t *>(begin_ + map().q_latent + head * map().q_latent_stride);
    }

    // A head's query for the rotated key, of the k-steps that its n-tile multiplies.
    __device__ uint32_t *q_rope(unsigned head) const {
        return reinterpret_cast<uint32_t *>(begin_ + map().q_rope + head * map().q_rope_stride);
    }

    // The sums of `q_rope` over each k-step, f32, and where a head's begin: rows of `rope_span | 1`.
    __device__ unsigned char *q_rope_sums() const { return begin_ + map().q_rope_sums; }
    __device__ float *q_rope_sums(unsigned head) const {
        return reinterpret_cast<float *>(q_rope_sums()) + head * (params_.rope_span | 1);
    }

    // Groups: the heads' sums of the query over groups, [block of 16 groups][head][lane % 4], each two B fragments: the
    // first has the groups t, t + 4, t + 8 and t + 12 in f16, the second what f16 rounds off.
    __device__ unsigned char *q_sums() const { return begin_ + map().q_sums; }

    // Scales of a group, f16, in the order of positions.
    __device__ unsigned char *scales(unsigned group) const {
        return begin_ + map().scales + group * map().weight_stride;
    }

    // Mins of a group, f16, in the order of positions.
    __device__ unsigned char *mins(unsigned group) const { return scales(params_.cache.latent_groups + group); }

    // Of 16 groups' sums of P min over the heads of an n-tile, a lane's C fragment: groups g and g + 8, heads 2 t and
    // 2 t + 1. Warps have one fragment of it each; they are few, and stay in shared memory.
    __device__ float4 &output_mins(unsigned group_block, unsigned n_tile, unsigned lane) const {
        return reinterpret_cast<float4 *>(begin_ + map().mins)[(group_block * S::N_TILES + n_tile) * WARP + lane];
    }

    // What a k-slice of the contraction adds to a head's scores: f32, in the order of positions.
    __device__ unsigned char *scores(unsigned k_slice, unsigned head, unsigned stride) const {
        return begin_ + map().scores + (k_slice * S::HEADS + head) * stride;
    }
    __device__ unsigned char *scores(unsigned k_slice, unsigned head) const {
        return begin_ + map().scores + (k_slice * S::HEADS + head) * map().score_stride;
    }

    // The heads' weights, 16-bit, in the order of positions. Bf16: of two planes, as many rows apart as there are heads.
    __device__ unsigned char *weights(unsigned head) const {
        return begin_ + map().weights + head * map().weight_stride;
    }
    __device__ unsigned char *weights(unsigned head, unsigned stride) const {
        return begin_ + map().weights + head * stride;
    }
};
