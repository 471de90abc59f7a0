// `gather`: cached tokens as the cache decodes them, for prefill over what is cached already; `src/reference/gather.rs`
// on the device, to the bit.
//
//     output[s] = (latent of token s, its rotated keys)
//
//     grid: x over tiles of 16 tokens
//     each block, unless its first token does not exist:
//         each of the first 16 threads: find its token's place in the cache (12 bytes of shared memory)
//         barrier
//         each thread, for its chunks of 8 numbers, in the order of the output:
//             load the codes and their (scale, min), dequantise, store
//
// The chunks of a token are its latent's and then its rotated keys', so that neighbouring threads read and write side
// by side. The tokens of all sequences stand one behind the other, so that only the last tile is not full. Only the
// device knows how many tokens there are: blocks past the last one exit.
// Per token, in bytes: reads its record, each code once, 4 (int4), 8 (int8) or 16 (bf16) for a chunk, and the chunk's
//     (scale, min), of which a warp has few, so that one access serves it; writes 2 (L + Gr R). With 3 FLOPs and at
//     most 5 instructions per number: memory-bound.
//
// A chunk is written in one access where its place is 16-byte aligned, else number by number: where latents are not a
// multiple of 8 numbers, rotated keys are not aligned. The cache's rows always are.

#include "cache/dequantize.cuh"
#include "cache/sequences.cuh"

namespace {

__device__ unsigned chunks(unsigned width) { return (width + CHUNK - 1) / CHUNK; }

}  // namespace

extern "C" __global__ void __launch_bounds__(GATHER_THREADS) gather(const __grid_constant__ GatherParams params) {
    __shared__ TileTokens<GATHER_TOKENS> tokens;
    const CacheParams &cache = params.cache;
    const int32_t *starts = reinterpret_cast<const int32_t *>(params.token_starts);
    const unsigned total = min(unsigned(__ldg(starts + params.batch.sequences)), params.token_capacity);
    const unsigned first = blockIdx.x * GATHER_TOKENS;
    if (first >= total) {
        return;
    }
    const unsigned count = min(GATHER_TOKENS, total - first);
    if (threadIdx.x < count) {
        const int32_t *first_tokens = reinterpret_cast<const int32_t *>(params.first_tokens);
        tokens.store(threadIdx.x, token_of_row(cache, params.batch, starts, first_tokens, first + threadIdx.x));
    }
    __syncthreads();

    uint16_t *output = reinterpret_cast<uint16_t *>(params.output) + size_t(first) * params.output_token_stride;
    const unsigned latent_chunks = chunks(params.latent_rank), row_chunks = latent_chunks + chunks(params.rope_width);
    unsigned token = threadIdx.x / row_chunks, chunk = threadIdx.x % row_chunks;
    while (token < count) {
        const bool is_latent = chunk < latent_chunks;
        const unsigned i = CHUNK * (is_latent ? chunk : chunk - latent_chunks);
        const unsigned width = is_latent ? params.latent_rank : params.rope_width;
        const CachedToken place = tokens.load(token);
        Chunk values{};
        if (place.page != nullptr) {
            values = dequantize_chunk(is_latent ? latent_row(cache, place) : rope_row(cache, place), i);
        }
        uint16_t *to = output + size_t(token) * params.output_token_stride + (is_latent ? 0 : params.latent_rank) + i;
        const unsigned numbers = chunk_count(i, width);
        store_chunk(to, values, numbers, numbers == CHUNK && reinterpret_cast<uint64_t>(to) % CHUNK_BYTES == 0);

        token += GATHER_THREADS / row_chunks;
        chunk += GATHER_THREADS % row_chunks;
        if (chunk >= row_chunks) {
            chunk -= row_chunks;
            ++token;
        }
    }
}
