// The output: O^T += C^T P^T, latents on m, heads on n, tokens in k. A are codes as they are, as subnormal f16, and B
// are weights times scales; or, with latents in groups, A are values, dequantised in registers, and B weights.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/wgmma.cuh"
#include "shared.cuh"

// A warpgroup's sums: 64 latents in each m-tile, of which a warp has 16. A transposed matrix of half
// words, as `ldmatrix` loads it, has for lane g of the tokens 2 t and 2 t + 1 half word g: four values, of which value
// j goes to m-tile 4 * block + j. Rows g and g + 8 are half words g and g + 8 of 32 bytes, a block of 64 latents; so
// they are the latents 8 (g / 2) + 2 j + g % 2 of the block, and 32 further. Codes of odd m-tiles are 16 times what
// they stand for.
template <typename S>
using Output = float[S::M_TILES][4 * S::BLOCK_TILES];

// What the sums are multiplied with to be latents, and those of odd m-tiles beside that: codes are subnormal f16, or in
// groups values.
template <typename S>
constexpr float OUTPUT_UNIT = S::GROUPED ? 1.0f : SUBNORMAL;
template <typename S>
constexpr float ODD_TILE = S::GROUPED ? 1.0f : ODD_PAIR;

// Blocks of 64 latents that a warp accumulates.
template <typename S>
constexpr unsigned BLOCKS = S::M_TILES / 4;

// Where a thread's rows of half words begin in a stage: of 8 and 8 tokens, 16 and 16 bytes of the warp's first block.
template <typename S>
__device__ unsigned place_of_half_words() {
    const unsigned thread = S::SHARED ? threadIdx.x : threadIdx.x % WARPGROUP, lane = thread % WARP;
    const unsigned token = lane / 16 * 8 + token_in_row(lane % 8);
    return token * S::ROW_STRIDE + thread / WARP * (32 * BLOCKS<S>) + lane / 8 % 2 * 16;
}

// A of four m-tiles: values 0 to 3 of the half words.
__device__ inline void spread_half_words(FragmentA (&a)[4], const uint32_t (&half_words)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        a[0][i] = subnormal_pair<0>(half_words[i]);
        a[1][i] = subnormal_pair<1>(half_words[i]);
        a[2][i] = subnormal_pair<2>(half_words[i]);
        a[3][i] = subnormal_pair<3>(half_words[i]);
    }
}

// Groups: where the pairs of (scale, min) of the tokens lie that a thread has in k, 2 t and 2 t + 1 of eight and of the next
// eight, for the warp's first latents.
struct TokenPairs {
    const unsigned char *tokens[4];

    // Scales and mins of the first or second two, `bytes` further.
    __device__ uint2 of_two(unsigned second, unsigned bytes) const {
        const uint32_t x = at<uint32_t>(tokens[2 * second], bytes), y = at<uint32_t>(tokens[2 * second + 1], bytes);
        return {__byte_perm(x, y, 0x5410), __byte_perm(x, y, 0x7632)};
    }
};

template <typename S>
__device__ TokenPairs token_pairs(const DecodeParams &params, const unsigned char *stage) {
    const unsigned thread = S::SHARED ? thread_index() : thread_index() % WARPGROUP;
    const unsigned token = token_in_row(thread % 4 * 2), bytes = params.cache.affine_row_bytes;
    const unsigned word = thread / WARP * (STEP * BLOCKS<S>) >> params.latent_group_log2;
    const unsigned char *first = stage + params.sm90.affine + token * bytes + 4 * word;
    return {first, first + 2 * bytes, first + 8 * bytes, first + 10 * bytes};
}

// A of four m-tiles: the values that codes 0 to 3 of the half words stand for, as f16, rounded once. `affine` are scales
// and mins of the first and second two tokens, for each group of the block.
template <int GROUPS>
__device__ void dequantize_half_words(FragmentA (&a)[4], const uint32_t (&half_words)[4],
                                      const uint2 (&affine)[GROUPS][2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint2 own = affine[i % GROUPS][i / 2];
        a[0][i] = fma_f16x2(f16_pair<0>(half_words[i]), own.x, own.y);
        a[1][i] = fma_f16x2(f16_pair<1>(half_words[i]), own.x, own.y);
        a[2][i] = fma_f16x2(f16_pair<2>(half_words[i]), own.x, own.y);
        a[3][i] = fma_f16x2(f16_pair<3>(half_words[i]), own.x, own.y);
    }
}

// output += the tile's latents * weights. `codes` is where the thread's half words lie. All products are done in the
// end.
template <typename S>
__device__ void accumulate(const DecodeParams &params, uint32_t codes, const TokenPairs &tokens, uint64_t weights,
                           Output<S> &output) {
    FragmentA a[2][4];
#pragma unroll
    for (unsigned k = 0; k < TILE / 16; ++k) {
#pragma unroll
        for (unsigned block = 0; block < BLOCKS<S>; ++block) {
            uint32_t half_words[4];
            ldmatrix_x4_transposed(half_words, codes + 16 * k * S::ROW_STRIDE + 32 * block);
            const unsigned round = BLOCKS<S> * k + block;
            if (round >= 2) {
                wgmma_wait<1>();
            }
            if constexpr (S::GROUPED) {
                uint2 affine[S::STEP_GROUPS][2];
#pragma unroll
                for (unsigned i = 0; i < S::STEP_GROUPS; ++i) {
                    const unsigned word = (STEP * block + STEP / 2 * i) >> params.latent_group_log2;
                    const unsigned bytes = 16 * k * params.cache.affine_row_bytes + 4 * word;
                    affine[i][0] = tokens.of_two(0, bytes), affine[i][1] = tokens.of_two(1, bytes);
                }
                dequantize_half_words(a[round % 2], half_words, affine);
            } else {
                spread_half_words(a[round % 2], half_words);
            }
            settle(a[round % 2]);
            wgmma_fence();
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                wgmma<false, S::N_TILES>(output[4 * block + j], a[round % 2][j], weights + k * DESCRIPTOR_STEP);
            }
            wgmma_commit();
        }
    }
    wgmma_wait<0>();
}
