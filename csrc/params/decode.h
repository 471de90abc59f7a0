/* Launch parameters and limits of the kernels of `decode`: a part of ../params.h, which includes this, in plain C. */
#ifndef LATENT_ATTENTION_PARAMS_DECODE_H
#define LATENT_ATTENTION_PARAMS_DECODE_H

/* Threads in a block of `decode`. */
#define DECODE_THREADS 256

/* Latents per k-step of the scores, and of a slice of the output. */
#define DECODE_STEP 64

/* Values per k-step of the rotated key. */
#define DECODE_ROPE_STEP 32

/* Groups of latents whose mins one tensor-core product takes. */
#define DECODE_GROUP_BLOCK 16

/* The kernels of decode_sm80.cu: name, how latents lie in the cache, slices of DECODE_STEP latents that a warp
 * accumulates, n-tiles of 8 heads, tokens of a tile (16: or 8), and the blocks that a multiprocessor holds at once: those
 * that the compiler leaves registers for, in code for GPUs before Blackwell and from Blackwell on.
 * Where the accumulators leave room for it, two or three blocks share a multiprocessor, so that one computes scores while
 * another waits for its softmax. On Blackwell compilers, the pinned one or the newest, would spill a few bytes for
 * that with the largest ones. */
#define DECODE_SM80_KERNELS(KERNEL)                      \
    KERNEL(decode_whole_1x4_64, Whole, 1, 4, 64, 2, 1)   \
    KERNEL(decode_whole_1x4_32, Whole, 1, 4, 32, 2, 1)   \
    KERNEL(decode_whole_1x2_64, Whole, 1, 2, 64, 3, 3)   \
    KERNEL(decode_whole_1x2_32, Whole, 1, 2, 32, 2, 2)   \
    KERNEL(decode_whole_1x2_16, Whole, 1, 2, 16, 2, 2)   \
    KERNEL(decode_whole_2x4_64, Whole, 2, 4, 64, 1, 1)   \
    KERNEL(decode_whole_2x4_32, Whole, 2, 4, 32, 1, 1)   \
    KERNEL(decode_whole_2x2_64, Whole, 2, 2, 64, 2, 2)   \
    KERNEL(decode_whole_2x2_32, Whole, 2, 2, 32, 2, 2)   \
    KERNEL(decode_whole_5x2_32, Whole, 5, 2, 32, 1, 1)   \
    KERNEL(decode_whole_5x1_32, Whole, 5, 1, 32, 1, 1)   \
    KERNEL(decode_whole_5x1_16, Whole, 5, 1, 16, 1, 1)   \
    KERNEL(decode_groups_1x4_64, Groups, 1, 4, 64, 1, 1) \
    KERNEL(decode_groups_1x4_32, Groups, 1, 4, 32, 1, 1) \
    KERNEL(decode_groups_1x2_64, Groups, 1, 2, 64, 3, 2) \
    KERNEL(decode_groups_1x2_32, Groups, 1, 2, 32, 2, 2) \
    KERNEL(decode_groups_1x2_16, Groups, 1, 2, 16, 2, 2) \
    KERNEL(decode_groups_2x2_64, Groups, 2, 2, 64, 2, 2) \
    KERNEL(decode_groups_2x2_32, Groups, 2, 2, 32, 2, 2) \
    KERNEL(decode_groups_5x1_32, Groups, 5, 1, 32, 1, 1) \
    KERNEL(decode_groups_5x1_16, Groups, 5, 1, 16, 1, 1) \
    KERNEL(decode_bf16_1x4_64, Bf16, 1, 4, 64, 1, 1)     \
    KERNEL(decode_bf16_1x4_32, Bf16, 1, 4, 32, 1, 1)     \
    KERNEL(decode_bf16_1x2_64, Bf16, 1, 2, 64, 2, 3)     \
    KERNEL(decode_bf16_1x2_32, Bf16, 1, 2, 32, 2, 2)     \
    KERNEL(decode_bf16_1x2_16, Bf16, 1, 2, 16, 2, 2)     \
    KERNEL(decode_bf16_2x2_32, Bf16, 2, 2, 32, 2, 2)     \
    KERNEL(decode_bf16_5x1_32, Bf16, 5, 1, 32, 1, 1)     \
    KERNEL(decode_bf16_5x1_16, Bf16, 5, 1, 16, 1, 1)

/* Most bytes of static shared memory of these kernels. */
#define DECODE_SM80_STATIC_BYTES 3712

/* Most tokens in a tile of `decode`. */
#define DECODE_MAX_TILE 64

/* Dynamic shared memory that a block of `decode` needs where it merges the partials of split query tokens, beside 4 bytes for
 * each partial of one, rounded up to COMBINE_BATCH. */
#define DECODE_MERGE_BYTES 4320

/* Threads in a block of decode_sm90.cu: two warpgroups that multiply, and one that copies. */
#define DECODE_SM90_THREADS 384

/* Most tiles in its shared memory, of DECODE_MAX_TILE tokens each, and those of the kernels of 64 heads. */
#define DECODE_SM90_MAX_STAGES 6
#define DECODE_SM90_TOGETHER_STAGES 4

/* Most bytes that its warpgroups share beside queries, weights and tiles, and of these for each head whose scores a
 * warpgroup has: `BlockState`. */
#define DECODE_SM90_STATE_BYTES 256
#define DECODE_SM90_STATE_HEAD_BYTES 88

/* The kernels of decode_sm90.cu: name, how latents lie in the cache, most k-steps of DECODE_STEP latents, and n-tiles of 8
 * heads of a block, of which with bf16 a warpgroup has the scores of half. A block has a multiprocessor for itself. */
#define DECODE_SM90_KERNELS(KERNEL)                  \
    KERNEL(decode_sm90_whole_8x8, Whole, 8, 8)       \
    KERNEL(decode_sm90_whole_8x4, Whole, 8, 4)       \
    KERNEL(decode_sm90_whole_8x2, Whole, 8, 2)       \
    KERNEL(decode_sm90_whole_8x1, Whole, 8, 1)       \
    KERNEL(decode_sm90_whole_4x4, Whole, 4, 4)       \
    KERNEL(decode_sm90_whole_4x2, Whole, 4, 2)       \
    KERNEL(decode_sm90_whole_4x1, Whole, 4, 1)       \
    KERNEL(decode_sm90_groups_8x8, Groups, 8, 8)     \
    KERNEL(decode_sm90_groups_8x4, Groups, 8, 4)     \
    KERNEL(decode_sm90_groups_8x2, Groups, 8, 2)     \
    KERNEL(decode_sm90_groups_4x4, Groups, 4, 4)     \
    KERNEL(decode_sm90_groups_4x2, Groups, 4, 2)     \
    KERNEL(decode_sm90_groups32_8x8, Groups32, 8, 8) \
    KERNEL(decode_sm90_groups32_8x4, Groups32, 8, 4) \
    KERNEL(decode_sm90_groups32_8x2, Groups32, 8, 2) \
    KERNEL(decode_sm90_groups32_4x4, Groups32, 4, 4) \
    KERNEL(decode_sm90_groups32_4x2, Groups32, 4, 2) \
    KERNEL(decode_sm90_bf16_8x8, Bf16, 8, 8)         \
    KERNEL(decode_sm90_bf16_8x4, Bf16, 8, 4)         \
    KERNEL(decode_sm90_bf16_8x2, Bf16, 8, 2)         \
    KERNEL(decode_sm90_bf16_4x8, Bf16, 4, 8)         \
    KERNEL(decode_sm90_bf16_4x4, Bf16, 4, 4)         \
    KERNEL(decode_sm90_bf16_4x2, Bf16, 4, 2)

/* Threads in a block of decode_cluster_sm90.cu: two warpgroups that multiply, one that copies, and one that makes weights
 * of scores. */
#define DECODE_CLUSTER_SM90_THREADS 512

/* Numbers of a latent that a block of a cluster has. */
#define DECODE_CLUSTER_SM90_RUN 512

/* Tiles whose weights a block holds, and by how many scores are ahead of weights that meet the latents. */
#define DECODE_CLUSTER_SM90_WEIGHT_TILES 6
#define DECODE_CLUSTER_SM90_TILES_AHEAD 2

/* Most bytes that a block's warps share beside queries, weights and tiles: of these for each 8 heads, for each 8 heads and
 * block of the cluster, and for each 8 heads and partial score of 16 tokens: `ClusterState`. */
#define DECODE_CLUSTER_SM90_STATE_BYTES 1664
#define DECODE_CLUSTER_SM90_STATE_HEADS_BYTES 1920
#define DECODE_CLUSTER_SM90_STATE_BLOCK_BYTES 384
#define DECODE_CLUSTER_SM90_STATE_PARTIAL_BYTES 512

/* The kernels of decode_cluster_sm90.cu: name, how latents lie in the cache, blocks of a cluster, and n-tiles of 8 heads. */
#define DECODE_CLUSTER_SM90_KERNELS(KERNEL)            \
    KERNEL(decode_cluster_sm90_whole_2x4, Whole, 2, 4) \
    KERNEL(decode_cluster_sm90_whole_2x2, Whole, 2, 2) \
    KERNEL(decode_cluster_sm90_whole_2x1, Whole, 2, 1) \
    KERNEL(decode_cluster_sm90_whole_3x4, Whole, 3, 4) \
    KERNEL(decode_cluster_sm90_whole_3x2, Whole, 3, 2) \
    KERNEL(decode_cluster_sm90_whole_3x1, Whole, 3, 1) \
    KERNEL(decode_cluster_sm90_whole_4x4, Whole, 4, 4) \
    KERNEL(decode_cluster_sm90_whole_4x2, Whole, 4, 2) \
    KERNEL(decode_cluster_sm90_whole_4x1, Whole, 4, 1) \
    KERNEL(decode_cluster_sm90_whole_5x4, Whole, 5, 4) \
    KERNEL(decode_cluster_sm90_whole_5x2, Whole, 5, 2) \
    KERNEL(decode_cluster_sm90_whole_5x1, Whole, 5, 1)

/* Where things lie in the dynamic shared memory of `decode`: bytes from its start, and bytes from row to row. */
struct DecodeShared {
    uint32_t q_latent;        /* 16-bit [heads of a block] rows */
    uint32_t q_latent_stride; /* an odd multiple of 16 */
    uint32_t q_rope;          /* 16-bit [heads of a block] rows */
    uint32_t q_rope_stride;   /* an odd multiple of 16 */
    uint32_t q_rope_sums;     /* f16 [8-head tiles of a block][rope_span][8][8] */
    uint32_t stages;          /* the first stage; the next follows tile_tokens * stage_step bytes later */
    uint32_t stage_count;     /* 1 or 2 */
    uint32_t stage_step;      /* 0 if there is one */
    uint32_t latent_stride;   /* a stage begins with [tile_tokens] rows of latents as they are in the cache */
    uint32_t rope;            /* from the start of a stage: [tile_tokens] rotated keys as they are in the cache */
    uint32_t rope_stride;
    uint32_t affine;          /* from the start of a stage: [tile_tokens] rows of (scale, min) pairs */
    uint32_t affine_stride;   /* no multiple of 32; with latents in groups an odd multiple of 16 */
    uint32_t latent_pieces;   /* u32 [pieces of a warp's rows / 4][32 lanes][4] */
    uint32_t rope_pieces;     /* u32 [pieces of a warp's rotated keys / 2][32 lanes][2] */
    uint32_t q_sums;          /* f16 [runs][heads of a block][8], or in groups [ceil(latent_groups / 16)][heads][16][2] */
    uint32_t scales;          /* f16 [2][latent_groups] rows of a tile's scales and mins; int4 in groups only */
    uint32_t scale_stride;    /* an odd multiple of 32 */
    uint32_t mins;            /* f32 [8-head tiles of a block * ceil(latent_groups / 16)][128]; int4 in groups only */
    uint32_t scores;          /* f32 [k_slices][m_tiles][8-head tiles of a block][128]: what k-slices add to the scores */
    uint32_t weights;         /* 16-bit [planes][m_tiles][8-head tiles of a block][128] */
};
LATENT_ATTENTION_SIZE(struct DecodeShared, 84);

/* The same for the kernels of decode_sm90.cu, whose query for the latents lies at 0, and whose rows of latents are as far
 * apart as a kernel's most k-steps need. In decode_cluster_sm90.cu, too, where rows, blocks, groups and k-steps are those
 * that a block of a cluster has: 512 latents, `rope_blocks` blocks of the rotated key, and the pairs of both. Weights are
 * [DECODE_CLUSTER_SM90_WEIGHT_TILES][heads of a block][64] there, the state is `ClusterState`. With latents of bf16 a stage
 * begins with blocks of 64 values, [64 tokens][64], swizzled, and its last bytes are the lower parts of a tile's weights,
 * [heads of a block][64], swizzled; it begins at a multiple of 1024 bytes. */
struct DecodeSm90Shared {
    uint32_t q_rope;      /* 16-bit [rope_blocks][heads of a block][64], swizzled */
    uint32_t q_sums;      /* f16 [a block for 17 groups of a token, one for each 16 more][heads of a block][64], swizzled */
    uint32_t weights;     /* f16 [warpgroups][2, with 64 heads 1][heads of a block][64], swizzled; with latents of bf16 the
                             higher parts of a tile's, bf16 [heads of a block][64] */
    uint32_t state;       /* BlockState */
    uint32_t stages;      /* the first stage; the next follows stage_bytes later */
    uint32_t stage_bytes;
    uint32_t stage_count; /* 2 to DECODE_SM90_MAX_STAGES */
    uint32_t rope;        /* from the start of a stage: rotated keys as they are in the cache; bf16 beside latents of bf16
                             in blocks as these are */
    uint32_t rope_stride; /* an odd multiple of 16; with bf16 of 32 */
    uint32_t affine;      /* from the start of a stage: rows of (scale, min) pairs as they are in the cache */
    uint32_t rope_blocks; /* of 64 values of the rotated key */
    uint32_t rope_way;    /* how it is multiplied: 0: there is none, or as latents of bf16 are; 1, 2: so many k-steps
                             at a time, group by group; 3: int4 of at least two blocks, of which each pair of heads has one group */
    uint32_t rope_part_stride; /* from 256 bytes of a row of rotated keys, or of several, to the next */
    uint32_t is_regular;  /* 1: rows of latents are as long as the kernel's, those of rotated keys a power of two up to 256 */
    uint32_t latent_inverse; /* 65536 over the 16-byte units of a row of latents, rounded up */
    uint32_t rope_inverse;   /* the same of a row of rotated keys, of which there are at most 64 */
    uint32_t rope_lane_bytes; /* a lane's part of 32 values of a rotated key as it is in the cache */
    uint32_t states;          /* f32 [heads of a block / 8][256 threads][4], where there are no registers for them */
};
LATENT_ATTENTION_SIZE(struct DecodeSm90Shared, 72);

/* `decode` runs on blocks of DECODE_THREADS, DECODE_SM90_THREADS or DECODE_CLUSTER_SM90_THREADS threads, as many as there is
 * room for splits along x, along y one for each tile of heads, and along z those of a cluster. Blocks without a split end at
 * once. */
struct DecodeParams {
    struct GeometryParams geometry;
    struct CacheParams cache;
    uint64_t page_table;  /* i32, as in BatchParams */
    uint64_t splits;      /* DecodeSplit [..] */
    uint64_t split_count; /* u32 */
    uint64_t q_latent;    /* bf16 [query tokens, query_heads, latent_rank] */
    uint64_t q_rope;      /* bf16 [query tokens, query_heads, rope_dim] */
    uint64_t o_latent;    /* out, bf16 [query tokens, query_heads, latent_rank], dense */
    uint64_t lse;         /* out, f32 [query tokens, query_heads], dense */
    uint64_t o_partial;   /* out, f32 [partials, query_heads, latent_rank] */
    uint64_t lse_partial; /* out, f32 [partials, query_heads] */
    uint64_t split_starts; /* i32 [query tokens + 1], as in ScheduleParams; read with `merges` only */
    uint64_t merges; /* in and out, u64 [query tokens, tiles of heads], zeros before and after: the blocks merge partials
                        themselves, to o_latent and lse; 0: `combine` does it */
    uint32_t q_latent_token_stride; /* elements from one query token to the next */
    uint32_t q_latent_head_stride;  /* elements from one head to the next */
    uint32_t q_rope_token_stride;
    uint32_t q_rope_head_stride;
    float scale;           /* factor on every score */
    uint32_t tile_tokens;  /* 8, 16, 32 or 64 */
    uint32_t latent_group_log2; /* of the values per scale of a latent; 0 in bf16 */
    uint32_t rope_group_log2;   /* of the k-steps of a rotated key per scale; 0 in bf16 */
    uint32_t latent_steps; /* k-steps of 64 latents */
    uint32_t rope_steps;   /* k-steps of 32 values of a rotated key */
    uint32_t rope_span;    /* most k-steps of the rotated key that the rope heads of 8 neighbouring heads lie in */
    struct DecodeShared shared;
    struct DecodeSm90Shared sm90; /* of decode_sm90.cu instead of `shared`; all 0 for other kernels */
};
LATENT_ATTENTION_SIZE(struct DecodeParams, 392);

#endif
