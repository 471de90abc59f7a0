/* Launch parameters and limits of the kernels, in plain C so that the host side can be generated from this file.
 *
 * Device pointers are integers, as the driver API has them. Tensors are dense and row-major; `rows` of an operation on
 * attention outputs are query tokens times heads. Structs have no padding, so that each byte of a parameter block is a
 * field's: `cargo xtask bindings` refuses any. */
#ifndef LATENT_ATTENTION_PARAMS_H
#define LATENT_ATTENTION_PARAMS_H

#include <stdint.h>

#ifdef __cplusplus
#define LATENT_ATTENTION_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")
#else
#define LATENT_ATTENTION_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")
#endif

/* How a row of values is stored: `cache::LatentFormat` and `cache::RopeFormat`. */
#define ROW_BF16 0
#define ROW_INT4 1
#define ROW_INT8 2

/* The sizes of a layer: `Geometry`. Letters are those of its documentation. */
struct GeometryParams {
    uint32_t query_heads; /* H */
    uint32_t kv_heads;    /* G */
    uint32_t latent_rank; /* L */
    uint32_t rope_heads;  /* Gr */
    uint32_t rope_dim;    /* R */
    uint32_t nope_dim;    /* Dn */
    uint32_t value_dim;   /* Dv */
    uint32_t reserved;    /* 0 */
};
LATENT_ATTENTION_SIZE(struct GeometryParams, 32);

/* One layer's paged cache: `cache::CacheLayout`. A page has three tiles of `page_size` rows: latents at offset 0, rotated
 * keys, and (scale, min) pairs of f16, the latent's groups first. */
struct CacheParams {
    uint64_t pages;            /* u8 [page_count, page_bytes], 16-byte aligned */
    uint64_t page_bytes;       /* a multiple of 16 */
    uint32_t page_count;
    uint32_t page_size;        /* tokens: 8, 16, 32 or 64 */
    uint32_t latent_row_bytes; /* a multiple of 16, as are the next two */
    uint32_t rope_offset;      /* bytes from the start of a page to its rotated keys */
    uint32_t rope_row_bytes;
    uint32_t affine_offset;    /* bytes from the start of a page to its scales */
    uint32_t affine_row_bytes; /* a multiple of 4; 0 if nothing is quantised */
    uint32_t latent_groups;    /* (scale, min) pairs of a latent; the rotated key's follow */
    uint32_t latent_kind;      /* ROW_BF16 or ROW_INT4 */
    uint32_t latent_group;     /* values per scale: 32, 64, 128 or 512; 0 in bf16 */
    uint32_t rope_kind;        /* ROW_BF16, ROW_INT4 or ROW_INT8 */
    uint32_t rope_group;       /* values per scale: 32, 64, 128 or 512; 0 in bf16 */
};
LATENT_ATTENTION_SIZE(struct CacheParams, 64);

/* A batch: `cache::Sequences`. Sequence b has the query tokens query_starts[b] .. query_starts[b + 1] - 1 and seq_lens[b]
 * tokens in the cache, the query tokens last; of n query tokens in a sequence of length s, number j sees tokens
 * 0 ..= s - n + j. Its token t lies in page row[t / page_size], where row is page_table + b * max_pages (dense) or
 * page_table + page_starts[b] (CSR). Entries of a row past the sequence's end may hold anything. */
struct BatchParams {
    uint64_t query_starts; /* i32 [sequences + 1], ascending from 0 */
    uint64_t seq_lens;     /* i32 [sequences] */
    uint64_t page_table;   /* i32 [sequences, max_pages] or [page_starts[sequences]] */
    uint64_t page_starts;  /* i32 [sequences + 1]; 0: the table is dense */
    uint32_t sequences;
    uint32_t max_pages;    /* of a dense table's row, else 0 */
};
LATENT_ATTENTION_SIZE(struct BatchParams, 40);

/* Most threads in a block of `combine`. */
#define COMBINE_THREADS 256

/* Latents that a warp merges at a time. */
#define COMBINE_CHUNK 128

/* Partials up to which `combine` sums in ascending order, and that a block of COMBINE_THREADS loads at a time. */
#define COMBINE_FEW 16
#define COMBINE_BATCH 64

/* Most partials of a row that `combine` merges: their weights fill 32 KiB of shared memory, which every device grants
 * unasked. */
#define COMBINE_MAX_SPLITS 8192

/* `combine` runs on a grid of [rows, y] blocks of whole warps, up to COMBINE_THREADS threads, with 4 bytes of dynamic shared
 * memory for each of `splits` partials rounded up to COMBINE_BATCH. The y blocks of a row divide its chunks of latents
 * among each other; results are the same to the bit whatever y and the number of threads. Without split_starts, every
 * row has `splits` partials and the tensors of partials are [splits, rows, ..]. With it, they are [partials, heads, ..],
 * and head h of query token q has the partials split_starts[q] .. split_starts[q + 1] - 1, at most `splits` of them; a
 * row without any is left alone. */
struct CombineParams {
    uint64_t o_partial;    /* f32 [.., latent_rank]: each partial's weighted mean of the latents */
    uint64_t lse_partial;  /* f32 [..]: natural logarithm of each partial's sum of exp(score); infinite: saw nothing */
    uint64_t o_latent;     /* out, bf16 [rows, latent_rank] */
    uint64_t lse;          /* out, f32 [rows] */
    uint64_t split_starts; /* i32 [query tokens + 1], ascending; 0: every row has all partials */
    uint32_t rows;         /* query tokens * heads */
    uint32_t splits;       /* 1..=COMBINE_MAX_SPLITS */
    uint32_t latent_rank;  /* numbers in a latent, at least 1 */
    uint32_t heads;        /* H; read with split_starts only */
};
LATENT_ATTENTION_SIZE(struct CombineParams, 56);

/* A split: the tokens first .. end - 1 of a sequence, for one query token. It is what one block of `decode` takes. */
struct DecodeSplit {
    uint32_t query;  /* query token of the batch */
    uint32_t row;    /* where the sequence's page ids begin in the page table */
    uint32_t first;  /* token of the sequence */
    uint32_t end;    /* one past the last token; equal to `first`: the query sees nothing */
    int32_t partial; /* row of the partials; -1: the split has all tokens, and writes the results themselves */
    uint32_t reserved[3];
};
LATENT_ATTENTION_SIZE(struct DecodeSplit, 32);

/* Threads of `schedule`'s one block. */
#define SCHEDULE_THREADS 512

/* What a tile costs, in the units of SplitCosts. */
#define SCHEDULE_TILE 65536

/* A batch whose query tokens are more than half of the splits that run at once is cut into so many times as many, at most;
 * another one into as many. */
#define SCHEDULE_WAVES 4

/* What splits cost beside their tiles, as a part of the time that a tile takes on a full machine, times SCHEDULE_TILE. */
struct SplitCosts {
    uint32_t block;         /* a block beside its tiles */
    uint32_t merge;         /* merging, if anything is cut */
    uint32_t merge_partial; /* and for each partial of the batch */
    uint32_t merge_batch;   /* and for each COMBINE_BATCH partials of the query token that has most */
};
LATENT_ATTENTION_SIZE(struct SplitCosts, 16);

/* `schedule` cuts every query token's visible tokens into splits of equal length, in ascending order: multiples of
 * fixed_tokens, or, if that is 0, of the multiple of tile_tokens with which the batch is predicted to take least, by
 * `costs`; the smallest of several. Query tokens past the end of the batch get a split that sees nothing. */
struct ScheduleParams {
    struct BatchParams batch;
    uint64_t splits;       /* out, DecodeSplit [..]; room for query_tokens * ceil(max_tokens / fixed_tokens), or for
                              max(query_tokens, SCHEDULE_WAVES * target_splits) */
    uint64_t split_count;  /* out, u32: how many there are */
    uint64_t split_starts; /* out, i32 [query_tokens + 1]: partials of query token q's splits; none if it has one split */
    uint64_t merges;       /* out, u64 [query_tokens, merge_tiles]: zeros, for `decode` */
    uint32_t query_tokens;  /* rows of the outputs, at least query_starts[sequences] */
    uint32_t max_tokens;    /* longer sequences are cut off here */
    uint32_t page_size;     /* tokens */
    uint32_t tile_tokens;   /* tokens */
    uint32_t target_splits; /* that run at once, at least 1 */
    uint32_t fixed_tokens;  /* tokens, or 0 */
    uint32_t merge_tiles;   /* tiles of heads whose partials the blocks of `decode` merge; 0: none */
    uint32_t reserved;      /* 0 */
    struct SplitCosts costs;
};
LATENT_ATTENTION_SIZE(struct ScheduleParams, 120);

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
    KERNEL(decode_bf16_1x2_64, Bf16, 1, 2, 64, 2, 2)     \
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

/* Most bytes that its warpgroups share beside queries, weights and tiles, and of these for each head: `BlockState`. */
#define DECODE_SM90_STATE_BYTES 384
#define DECODE_SM90_STATE_HEAD_BYTES 128

/* The kernels of decode_sm90.cu: name, how latents lie in the cache, most k-steps of DECODE_STEP latents, and n-tiles of 8
 * heads. A block has a multiprocessor for itself. */
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
    KERNEL(decode_sm90_groups32_4x2, Groups32, 4, 2)

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
 * [DECODE_CLUSTER_SM90_WEIGHT_TILES][heads of a block][64] there, the state is `ClusterState`. */
struct DecodeSm90Shared {
    uint32_t q_rope;      /* 16-bit [rope_blocks][heads of a block][64], swizzled */
    uint32_t q_sums;      /* f16 [a block for 17 groups of a token, one for each 16 more][heads of a block][64], swizzled */
    uint32_t weights;     /* f16 [warpgroups][2, with 64 heads 1][heads of a block][64], swizzled */
    uint32_t state;       /* BlockState */
    uint32_t stages;      /* the first stage; the next follows stage_bytes later */
    uint32_t stage_bytes;
    uint32_t stage_count; /* 2 to DECODE_SM90_MAX_STAGES */
    uint32_t rope;        /* from the start of a stage: rotated keys as they are in the cache */
    uint32_t rope_stride; /* an odd multiple of 16; with bf16 of 32 */
    uint32_t affine;      /* from the start of a stage: rows of (scale, min) pairs as they are in the cache */
    uint32_t rope_blocks; /* of 64 values of the rotated key */
    uint32_t rope_way;    /* how it is multiplied: 0: there is none; 1, 2: so many k-steps at a time, group by group;
                             3: int4 of at least two blocks, of which each pair of heads has one group */
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
LATENT_ATTENTION_SIZE(struct DecodeParams, 384);

/* Which dimensions of a rope head form pair j: (j, j + R/2) or (2 j, 2 j + 1). `rope::Pairing`. */
#define PAIRING_HALF 0
#define PAIRING_INTERLEAVED 1

/* Threads in a block of `rope_append`: a warp for each of 4 tokens. */
#define ROPE_APPEND_THREADS 128

/* A run: the most values that one warp of `rope_append` rotates or encodes at a time. */
#define ROPE_APPEND_RUN 512

/* `rope_append`, or `rope_append_mse` for caches of `RangeSetting::Mse`, runs on a grid of ceil(tokens / 4) times the
 * runs of a token, which are ceil(n / ROPE_APPEND_RUN) for each of n = L (one warp takes all of them if there is a
 * norm), n = Gr * R and, if there are queries, n = H * R.
 * Strides are in elements; the last dimension is dense. A token is refused, which is counted and writes nothing, if its
 * position is outside of the tables or its slot neither -1 nor in the cache.
 * Without rotation (positions = 0), keys are stored as they are and there are no queries; cos, sin, frequency_index and
 * the tables' sizes are not read. */
struct RopeAppendParams {
    struct GeometryParams geometry;
    struct CacheParams cache;
    uint64_t q_rope;          /* bf16 [tokens, H, R] */
    uint64_t q_rotated;       /* out, bf16 [tokens, H, R]; may be q_rope with the same strides; 0: no queries */
    uint64_t k_rope;          /* bf16 [tokens, Gr, R] */
    uint64_t c_kv;            /* bf16 [tokens, L] */
    uint64_t positions;       /* i32 [tokens]: row of the tables; 0: no rotation */
    uint64_t slots;           /* i64 [tokens], no two alike but -1, which stores nothing */
    uint64_t cos;             /* f32 [table_positions, table_frequencies] */
    uint64_t sin;             /* f32 [table_positions, table_frequencies] */
    uint64_t frequency_index; /* u32 [Gr, R/2], each less than table_frequencies */
    uint64_t norm_gain;       /* f32 [L]; 0: no norm */
    uint64_t bias;            /* f32 [L], added after the norm; 0: none */
    uint64_t counters;        /* in and out, u64 [2]: adds saturated values and refused tokens; 0: no counting */
    uint32_t tokens;
    uint32_t table_positions;
    uint32_t table_frequencies;
    uint32_t pairing;         /* PAIRING_HALF or PAIRING_INTERLEAVED */
    uint32_t q_rope_token_stride;
    uint32_t q_rope_head_stride;
    uint32_t q_rotated_token_stride;
    uint32_t q_rotated_head_stride;
    uint32_t k_rope_token_stride;
    uint32_t k_rope_head_stride;
    uint32_t c_kv_token_stride;
    float norm_epsilon;
};
LATENT_ATTENTION_SIZE(struct RopeAppendParams, 240);

/* Threads in a block of `ceiling_copy` and `ceiling_mma`. */
#define CEILING_THREADS 256

/* FLOPs of a warp in one round of `ceiling_mma`: 8 products of m16n8k16. */
#define CEILING_MMA_FLOPS_PER_WARP 32768

struct CeilingCopyParams {
    uint64_t from;  /* [units] of 16 bytes, aligned to that */
    uint64_t to;    /* out, [units] of 16 bytes, aligned to that */
    uint64_t units;
};
LATENT_ATTENTION_SIZE(struct CeilingCopyParams, 24);

struct CeilingMmaParams {
    uint64_t out; /* out, f32 [blocks, CEILING_THREADS]: 512 * rounds each */
    uint32_t rounds;
    uint32_t reserved; /* 0 */
};
LATENT_ATTENTION_SIZE(struct CeilingMmaParams, 16);

/* Rows (query tokens times query heads of a KV head) of a block of the `_few` and `_few_ordered` kernels of `absorb`.
 * With n rows every weight, 2 bytes, does 2 n FLOPs: n per byte, which is memory-bound up to 150 on an A100 and more on
 * later devices. What `_few` gains is that weights go from memory to the tensor cores without a copy in shared memory, in
 * many small blocks. 16 rows are what its registers hold; more take further blocks, which find the weights in L2. */
#define ABSORB_FEW_ROWS 16

/* Blocks for each multiprocessor up to which `absorb` takes the kernels with the smaller blocks: `_few` and `_medium` have
 * room for three at a time on an A100 and an H100. From then on larger ones keep all multiprocessors busy, and read
 * less. */
#define ABSORB_SMALL_BLOCKS 3

/* Threads of a block of the `_few` kernels of `absorb`, and the outputs that it computes. */
#define ABSORB_FEW_THREADS 128
#define ABSORB_QUERY_FEW_OUTPUTS 64
#define EXPAND_OUTPUT_FEW_OUTPUTS 16

/* Outputs and dynamic shared memory of a block of the `_few_ordered` kernels of `absorb`, which have as many threads. */
#define ABSORB_ORDERED_OUTPUTS 64
#define ABSORB_ORDERED_SHARED_BYTES 40960

/* Rows and columns of a tile of the `_medium` kernels of `absorb`, and the threads of a block, whose dynamic shared memory
 * is GEMM_SHARED_BYTES. */
#define ABSORB_MEDIUM_TILE 64
#define ABSORB_MEDIUM_THREADS 128

/* Threads of a block of the `_many` kernels of `absorb` and of `up_project`, rows and columns of the tile that it
 * computes, and its dynamic shared memory: as much as every device grants unasked. */
#define GEMM_THREADS 256
#define GEMM_TILE 128
#define GEMM_SHARED_BYTES 49152

/* `absorb_query_*`: output[t, h, l] = sum_i weights[g, i, l] input[t, h, i].
 * `expand_output_*`: output[t, h, i] = sum_l weights[g, i, l] input[t, h, l] + bias[g, i].
 * g is the KV head of h. Innermost dimensions are dense. Accesses are 16 bytes wide where all pointers are 16-byte
 * aligned and all sizes and strides multiples of 8. `_few_ordered`, `_medium` and `_many` sum in the same order.
 * Grid of `_few`: outputs / *_FEW_OUTPUTS (rounded up) times kv_heads, rows / ABSORB_FEW_ROWS. Grids of the others: rows
 * / ABSORB_FEW_ROWS, ABSORB_MEDIUM_TILE or GEMM_TILE, outputs / ABSORB_ORDERED_OUTPUTS, ABSORB_MEDIUM_TILE or GEMM_TILE
 * (all rounded up), kv_heads. */
struct AbsorbParams {
    uint64_t weights;             /* bf16 [kv_heads, nope_dim or value_dim, latent_rank] */
    uint64_t input;               /* bf16 [tokens, query_heads, contracted] */
    uint64_t bias;                /* f32 [kv_heads, outputs], dense; 0: none */
    uint64_t output;              /* out, bf16 [tokens, query_heads, outputs] */
    uint32_t tokens;              /* times query_heads / kv_heads below 2^31 */
    uint32_t query_heads;         /* a multiple of kv_heads */
    uint32_t kv_heads;
    uint32_t contracted;          /* nope_dim of `absorb_query`, may be 0; latent_rank of `expand_output` */
    uint32_t outputs;             /* latent_rank of `absorb_query`; value_dim of `expand_output` */
    uint32_t weight_head_stride;  /* elements, as all strides */
    uint32_t weight_row_stride;
    uint32_t input_token_stride;
    uint32_t input_head_stride;
    uint32_t output_token_stride;
    uint32_t output_head_stride;
    uint32_t reserved;            /* 0 */
};
LATENT_ATTENTION_SIZE(struct AbsorbParams, 80);

/* `prepare*`: `rope_append` and `absorb_query_few` or, with `_ordered`, `absorb_query_few_ordered`, by blocks that do one or the
 * other; with `_mse` as `rope_append_mse`. Grid: append_blocks * append_runs of the first, behind them those of the second in the
 * order of their own grid. */
struct PrepareParams {
    struct AbsorbParams absorb;
    struct RopeAppendParams append;
    uint32_t append_blocks; /* ceil(tokens / 4) */
    uint32_t append_runs;   /* the grid's second size of `rope_append` */
    uint32_t absorb_x;      /* the grid's first two sizes of `absorb_query` */
    uint32_t absorb_y;
};
LATENT_ATTENTION_SIZE(struct PrepareParams, 336);

/* `up_project`: keys and values of cached tokens. Token s of sequence b is row token_starts[b] + s of both outputs;
 * rows from token_starts[sequences] on are left alone. Rows before that are of no token if token_starts leaves room
 * between sequences: their latent and rotated key are taken to be 0. query_starts of the batch is not read.
 * Grid: token_capacity / GEMM_TILE; kv_heads * nope_dim / GEMM_TILE + kv_heads * value_dim / GEMM_TILE + kv_heads *
 * rope_dim / GEMM_TILE, each rounded up. */
struct UpProjectParams {
    struct GeometryParams geometry;
    struct CacheParams cache;
    struct BatchParams batch;
    uint64_t token_starts;        /* i32 [sequences + 1]: prefix sums of seq_lens */
    uint64_t up_key;              /* bf16 [kv_heads, nope_dim, latent_rank], innermost dense */
    uint64_t up_value;            /* bf16 [kv_heads, value_dim, latent_rank], innermost dense */
    uint64_t value_bias;          /* f32 [kv_heads, value_dim], dense; 0: none */
    uint64_t keys;                /* out, bf16 [token_capacity, kv_heads, nope_dim + rope_dim], innermost dense */
    uint64_t values;              /* out, bf16 [token_capacity, kv_heads, value_dim], innermost dense */
    uint32_t up_key_head_stride;  /* elements, as all strides */
    uint32_t up_key_row_stride;
    uint32_t up_value_head_stride;
    uint32_t up_value_row_stride;
    uint32_t key_token_stride;
    uint32_t key_head_stride;
    uint32_t value_token_stride;
    uint32_t value_head_stride;
    uint32_t token_capacity;      /* rows of keys and values; tokens beyond are not written */
    uint32_t reserved;            /* 0 */
};
LATENT_ATTENTION_SIZE(struct UpProjectParams, 224);

/* Threads of a block of `gather`, and the tokens that it copies. */
#define GATHER_THREADS 256
#define GATHER_TOKENS 16

/* `gather`: cached tokens as the cache decodes them, latent and rotated key side by side. Row r of the output, where
 * token_starts[b] <= r < token_starts[b + 1], is of token first_tokens[b] + r - token_starts[b] of sequence b, and of
 * zeros if the sequence has none such. Rows from token_starts[sequences] on are left alone. query_starts of the batch
 * is not read.
 * Grid: token_capacity / GATHER_TOKENS, rounded up. */
struct GatherParams {
    struct CacheParams cache;
    struct BatchParams batch;
    uint64_t token_starts;        /* i32 [sequences + 1], ascending from 0 */
    uint64_t first_tokens;        /* i32 [sequences]; 0: every sequence from its token 0 on */
    uint64_t output;              /* out, bf16 [token_capacity, latent_rank + rope_width], innermost dense */
    uint32_t output_token_stride; /* elements */
    uint32_t latent_rank;         /* L */
    uint32_t rope_width;          /* Gr * R, may be 0 */
    uint32_t token_capacity;      /* rows of the output; tokens beyond are not written */
};
LATENT_ATTENTION_SIZE(struct GatherParams, 144);

/* Threads of a block of `copy_pages`, and the bytes of a page that it copies. */
#define COPY_PAGES_THREADS 256
#define COPY_PAGES_BYTES 16384

/* `copy_pages`: whole pages of a cache copied to other pages of it. A copy from or to a page that the cache does not have
 * is refused, which is counted and writes nothing.
 * Grid: count; page_bytes / COPY_PAGES_BYTES, rounded up. */
struct CopyPagesParams {
    struct CacheParams cache;
    uint64_t copies;   /* i32 [count, 2], 8-byte aligned: source and destination; no destination twice or a source */
    uint64_t counters; /* in and out, u64 [1]: adds refused copies; 0: no counting */
    uint32_t count;    /* less than 2^31 */
    uint32_t reserved; /* 0 */
};
LATENT_ATTENTION_SIZE(struct CopyPagesParams, 88);

#endif
