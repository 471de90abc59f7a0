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
 * keys, and (scale, min) pairs of f16, the latent's groups first, with the factors of normalised keys behind them. */
struct CacheParams {
    uint64_t pages;            /* u8 [page_count, page_bytes], 16-byte aligned */
    uint64_t page_bytes;       /* a multiple of 16 */
    uint32_t page_count;
    uint32_t page_size;        /* tokens: 8, 16, 32 or 64 */
    uint32_t latent_row_bytes; /* a multiple of 16, as are the next two */
    uint32_t rope_offset;      /* bytes from the start of a page to its rotated keys */
    uint32_t rope_row_bytes;
    uint32_t affine_offset;    /* bytes from the start of a page to its scales */
    uint32_t affine_row_bytes; /* a multiple of 4; 0 if nothing is quantised, and keys are not normalised */
    uint32_t latent_groups;    /* (scale, min) pairs of a latent; the rotated key's follow */
    uint32_t latent_kind;      /* ROW_BF16 or ROW_INT4 */
    uint32_t latent_group;     /* values per scale: 32, 64, 128 or 512; 0 in bf16 */
    uint32_t rope_kind;        /* ROW_BF16, ROW_INT4 or ROW_INT8 */
    uint32_t rope_group;       /* values per scale: 32, 64, 128 or 512; 0 in bf16 */
    uint32_t key_factors;      /* f16 factors of normalised keys, the last of a row of pairs: kv_heads, or 0 */
    uint32_t reserved;         /* 0 */
};
LATENT_ATTENTION_SIZE(struct CacheParams, 72);

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

#include "params/decode.h"

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
    uint64_t key_factors;     /* f32 [tokens, kv_heads], dense: of normalised keys; 0 if the cache has none */
    uint64_t key_gain;        /* f32 [kv_heads, R]; read with key_factors only */
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
LATENT_ATTENTION_SIZE(struct RopeAppendParams, 264);

/* Threads in a block of `head_norm`: a warp for each of 4 heads. */
#define HEAD_NORM_THREADS 128

/* `head_norm`: of each key 1 over the root of its mean square, and queries times theirs and a gain. Runs on ceil(heads / 4)
 * blocks, where heads are tokens times kv_heads and, if there are queries, tokens times query_heads. Strides are in
 * elements; the last dimension is dense. */
struct HeadNormParams {
    struct GeometryParams geometry;
    uint64_t q_rope;      /* bf16 [tokens, H, R] */
    uint64_t q_nope;      /* bf16 [tokens, H, Dn] */
    uint64_t q_rope_out;  /* out, bf16 [tokens, H, R]; may be q_rope with the same strides */
    uint64_t q_nope_out;  /* out, bf16 [tokens, H, Dn]; may be q_nope with the same strides */
    uint64_t query_gain;  /* f32 [G, R + Dn], dense; 0: no queries */
    uint64_t k_rope;      /* bf16 [tokens, G, R] */
    uint64_t k_nope;      /* bf16 [tokens, G, Dn] */
    uint64_t key_factors; /* out, f32 [tokens, G], dense */
    uint32_t tokens;
    uint32_t q_rope_token_stride;
    uint32_t q_rope_head_stride;
    uint32_t q_nope_token_stride;
    uint32_t q_nope_head_stride;
    uint32_t q_rope_out_token_stride;
    uint32_t q_rope_out_head_stride;
    uint32_t q_nope_out_token_stride;
    uint32_t q_nope_out_head_stride;
    uint32_t k_rope_token_stride;
    uint32_t k_rope_head_stride;
    uint32_t k_nope_token_stride;
    uint32_t k_nope_head_stride;
    float epsilon;
};
LATENT_ATTENTION_SIZE(struct HeadNormParams, 152);

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
LATENT_ATTENTION_SIZE(struct PrepareParams, 360);

/* Threads of a block of `up_project_sm90`, the columns of keys or values that it computes at a time, the k-steps of 64
 * whose latents it keeps from columns to columns, and its dynamic shared memory. */
#define UP_PROJECT_SM90_THREADS 384
#define UP_PROJECT_SM90_COLUMNS 256
#define UP_PROJECT_SM90_KEPT_STEPS 8
#define UP_PROJECT_SM90_SHARED_BYTES 231992

/* `up_project`: keys and values of cached tokens. Token s of sequence b is row token_starts[b] + s of both outputs;
 * rows from token_starts[sequences] on are left alone. Rows before that are of no token if token_starts leaves room
 * between sequences: their latent and rotated key are taken to be 0. query_starts of the batch is not read.
 * Grid of `up_project`: token_capacity / GEMM_TILE; kv_heads * nope_dim / GEMM_TILE + kv_heads * value_dim / GEMM_TILE +
 * kv_heads * rope_dim / GEMM_TILE, each rounded up.
 * Grid of `up_project_sm90`: token_capacity / GEMM_TILE, rounded up; a number of blocks that share the columns. It takes
 * pointers that are 16-byte aligned, and sizes and strides that are multiples of 8. */
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
LATENT_ATTENTION_SIZE(struct UpProjectParams, 232);

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
LATENT_ATTENTION_SIZE(struct GatherParams, 152);

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
LATENT_ATTENTION_SIZE(struct CopyPagesParams, 96);

#endif
