// The output: O^T += C^T P^T, latents on m, heads on n, tokens in k. A are codes as they are, as subnormal f16, and B
// are weights times scales.
#pragma once

#include "../../cache/int4.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/wgmma.cuh"
#include "shared.cuh"

// A warpgroup's sums: 64 latents in each m-tile, of which a warp has 16. A transposed matrix of half
// words, as `ldmatrix` loads it, has for lane g of the tokens 2 t and 2 t + 1 half word g: four values, of which value
// j goes to m-tile 4 * block + j. Rows g and g + 8 are half words g and g + 8 of 32 bytes, a block of 64 latents; so
// they are the latents 8 (g / 2) + 2 j + g % 2 of the block, and 32 further. Those of odd m-tiles are 16 times what
// they stand for.
template <typename S>
using Output = Sums<S>[S::M_TILES];

// Blocks of 64 latents that a warp accumulates.
template <typename S>
constexpr unsigned BLOCKS = S::M_TILES / 4;

// Where a thread's rows of half words begin in a stage: of 8 and 8 tokens, 16 and 16 bytes of the warp's first block.
template <typename S>
__device__ unsigned half_words() {
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

// output += the tile's latents * weights. `codes` is where the thread's half words lie. All products are done in the
// end.
template <typename S>
__device__ void accumulate(uint32_t codes, uint64_t weights, Output<S> &output) {
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
            spread_half_words(a[round % 2], half_words);
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
