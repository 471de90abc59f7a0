// The dynamic shared memory of a block, by rows. Where things lie is the host's choice, `DecodeShared`, made by
// `src/ops/decode/sm80.rs`; beside this file only load.cuh and places.cuh know its offsets.
//
// Rows that the loops over tokens walk through are of bytes, read with `at` as what they hold: behind pointers of another
// type the compiler scales each index within the loop, which costs instructions and registers.
#pragma once

#include "block.cuh"

// For 10.x ptxas needs more registers for the same code: what trades them for instructions is left out there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1100
constexpr bool SPARE_REGISTERS = false;
#else
constexpr bool SPARE_REGISTERS = true;
#endif

// Rows `stride` bytes apart. The stride is read from the parameters where it is needed.
struct Rows {
    const unsigned char *first;
    const uint32_t &stride;

    __device__ const unsigned char *operator[](unsigned row) const { return first + row * stride; }
};

// A stage: one buffer of the copy pipeline, with the tokens of a tile in the rows and bytes of the cache.
class Stage {
    unsigned char *begin_;
    const DecodeShared &map_;

public:
    __device__ Stage(unsigned char *begin, const DecodeShared &map) : begin_(begin), map_(map) {}

    // What is so many bytes behind its beginning.
    __device__ unsigned char *row(unsigned bytes) const { return begin_ + bytes; }

    // Its address within shared memory, as copies take it.
    __device__ uint32_t address() const { return shared_address(begin_); }

    // The tokens' pairs of (scale, min).
    __device__ Rows affine() const { return {begin_ + map_.affine, map_.affine_stride}; }

    // One of a token's pairs of (scale, min).
    __device__ uint32_t affine_pair(unsigned token, unsigned pair) const {
        return at<uint32_t>(begin_, map_.affine + 4 * pair + token * map_.affine_stride);
    }
};

template <typename S>
class SharedMemory {
    unsigned char *begin_;
    const DecodeParams &params_;

    __device__ const DecodeShared &map() const { return params_.shared; }

public:
    // Whether there are two stages, so that copies of the next tile overlap with the work on this one.
    const bool overlapped;

    __device__ SharedMemory(unsigned char *begin, const DecodeParams &params)
        : begin_(begin), params_(params), overlapped(params.shared.stage_count > 1) {}

    // Tokens of a tile.
    __device__ unsigned tile_tokens() const { return S::TOKENS == 16 ? params_.tile_tokens : S::TOKENS; }

    // Its first byte.
    __device__ unsigned char *begin() const { return begin_; }

    // The stage of the tile from token `first` on: tiles alternate between two, if there are. It is computed from an
    // opaque value, so that it is not kept from phase to phase: registers are the output's.
    __device__ Stage stage_of(unsigned first) const {
        return {begin_ + map().stages + (opaque(first) & tile_tokens()) * map().stage_step, map()};
    }

    // Stage 0 or 1.
    __device__ Stage stage(unsigned index) const { return stage_of(index * tile_tokens()); }

    // A head's query for the latents: pairs of 16-bit numbers, in the order of queries.cuh.
    __device__ uint32_t *q_latent(unsigned head) const {
        return reinterpret_cast<uint32_t *>(begin_ + map().q_latent + head * q_latent_stride());
    }
    __device__ unsigned q_latent_stride() const {
        return S::QUERY_STRIDE != 0 ? S::QUERY_STRIDE : map().q_latent_stride;
    }

    // A head's query for the rotated key, of the k-steps that its n-tile multiplies.
    __device__ uint32_t *q_rope(unsigned head) const {
        return reinterpret_cast<uint32_t *>(begin_ + map().q_rope + head * map().q_rope_stride);
    }

    // Sums of the query, which tensor cores multiply with mins: of `q_rope` over each k-step, and of `q_latent` over each
    // run (Whole): a column of B for each head (queries.cuh), of 8 heads after another, 4 bytes a lane. Groups: over
    // groups, [block of 16 groups][head][lane % 4], each two B fragments: the first has the groups t, t + 4, t + 8 and
    // t + 12 in f16, the second what f16 rounds off.
    __device__ unsigned char *q_rope_sums() const { return begin_ + map().q_rope_sums; }
    __device__ unsigned char *q_sums() const { return begin_ + map().q_sums; }

    // Groups: scales of a group, f16, in the order of place_in_row.
    __device__ unsigned char *scales(unsigned group) const {
        return begin_ + map().scales + group * map().scale_stride;
    }

    // Groups: mins of a group, f16, in the order of place_in_row.
    __device__ unsigned char *mins(unsigned group) const { return scales(params_.cache.latent_groups + group); }

    // Of 16 groups' sums of P min over the heads of an n-tile, a lane's C fragment: groups g and g + 8, heads 2 t and
    // 2 t + 1. Warps have one fragment of it each; they are few, and stay in shared memory.
    __device__ float4 &output_mins(unsigned group_block, unsigned n_tile, unsigned lane) const {
        return reinterpret_cast<float4 *>(begin_ + map().mins)[(group_block * S::N_TILES + n_tile) * WARP + lane];
    }

    // Where the pieces of rows that lanes copy belong (load.cuh).
    __device__ unsigned char *latent_pieces() const { return begin_ + map().latent_pieces; }
    __device__ unsigned char *rope_pieces() const { return begin_ + map().rope_pieces; }

    // C fragments of what the first k-slice of the contraction adds to the scores, 16 bytes a lane, by [m-tile][n-tile]: the
    // one of this number. The next k-slice's follows after PART_STRIDE bytes.
    __device__ unsigned char *part(unsigned fragment) const { return begin_ + map().scores + fragment * 16 * WARP; }
    static constexpr unsigned PART_STRIDE = S::M_TILES * S::N_TILES * 16 * WARP;

    // In the same place, when there are no more scores: the numbers of `Sums` of a head, over an m-tile.
    __device__ float &sum(unsigned number, unsigned m_tile, unsigned head) const {
        return reinterpret_cast<float *>(begin_ + map().scores)[(number * S::M_TILES + m_tile) * S::HEADS + head];
    }

    // A plane's weights by [m-tile][n-tile], from fragment number `fragment` on, a multiple of OWN: a lane's B fragments of
    // OWN n-tiles side by side, and behind those of a warp the next ones.
    __device__ unsigned char *weights(unsigned plane, unsigned fragment) const {
        return begin_ + map().weights + plane * PLANE_STRIDE + fragment * 8 * WARP;
    }
    static constexpr unsigned PLANE_STRIDE = S::M_TILES * S::N_TILES * 8 * WARP;
};
