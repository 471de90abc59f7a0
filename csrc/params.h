/* Launch parameters and limits of the kernels, in plain C so that the host side can be generated from this file.
 *
 * Device pointers are integers, as the driver API has them. Tensors are dense and row-major; `rows` of an operation on
 * attention outputs are query tokens times heads. Structs end without padding, so that each byte of a parameter block
 * is a field's. */
#ifndef LATENT_ATTENTION_PARAMS_H
#define LATENT_ATTENTION_PARAMS_H

#include <stdint.h>

#ifdef __cplusplus
#define LATENT_ATTENTION_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")
#else
#define LATENT_ATTENTION_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")
#endif

/* Most threads in a block of `combine`. */
#define COMBINE_MAX_THREADS 512

/* Most parts that `combine` merges: their weights fill 32 KiB of shared memory, which every device grants unasked. */
#define COMBINE_MAX_SPLITS 8192

/* `combine` runs on `rows` blocks of 32, 64, ... COMBINE_MAX_THREADS threads (latent_rank / 4 of them have work in the
 * vectorised path), with 4 * splits bytes of dynamic shared memory. */
struct CombineParams {
    uint64_t o_partial;   /* f32 [splits, rows, latent_rank]: each part's weighted mean of the latents */
    uint64_t lse_partial; /* f32 [splits, rows]: natural logarithm of each part's sum of exp(score); -inf: saw nothing */
    uint64_t o_latent;    /* out, bf16 [rows, latent_rank] */
    uint64_t lse;         /* out, f32 [rows] */
    uint32_t rows;        /* query tokens * heads */
    uint32_t splits;      /* 1..=COMBINE_MAX_SPLITS */
    uint32_t latent_rank; /* numbers in a latent, at least 1 */
    uint32_t reserved;    /* 0 */
};
LATENT_ATTENTION_SIZE(struct CombineParams, 48);

#endif
