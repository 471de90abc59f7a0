// Multi-head Latent Attention from a 4-bit paged cache: the operations of the Rust crate latent-attention, for C.
//
// Made of bindings/c/src by `cargo xtask bindings`; do not edit. docs/c.md begins with a first program.
//
// - Memory belongs to the caller. Addresses are the device's: of cudaMalloc, of a PyTorch tensor's data_ptr(), of an
//   LaBuffer. An operation is made once for a device and a configuration, which loads its kernels; running it checks
//   every argument, launches on the stream, and returns: it allocates no device memory and waits for nothing, so that a
//   CUDA graph can capture it. What it reads and writes must stay until the stream has got there.
// - Functions return LA_STATUS_OK or say why not; la_last_error() has the details. A call that fails has launched
//   nothing that writes an output, and leaves *out alone.
// - Pointers are null or point to what their type says; null is refused, not followed. Handles are those that this
//   library made and that were not destroyed yet. What only the device can see (positions, slots) is checked by the
//   kernels; where it is not (page ids, lengths, frequencies), the struct says what must hold.
// - A query token that sees nothing, because its sequence's length is 0 or less than its query tokens, gets an output
//   of zeros and a log-sum-exp of minus infinity: a part without weight for la_combine_run(), whose result is the same
//   where all parts are such.
// - Different threads may use the same handles at the same time, except plans, and except to destroy them.
// - Letters in shapes are those of LaGeometry, T is a number of query tokens. Tensors hold bf16 numbers.

#ifndef LATENT_ATTENTION_H
#define LATENT_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

// The version of this interface. It grows with every change that a program compiled against an older header would not
// survive; compare it with what la_abi_version() returns.
#define LA_ABI_VERSION 3

// Bytes.
#define LA_DTYPE_U8 1

// Signed integers of 32 bits.
#define LA_DTYPE_I32 2

// Unsigned integers of 32 bits.
#define LA_DTYPE_U32 3

// Signed integers of 64 bits.
#define LA_DTYPE_I64 4

// Unsigned integers of 64 bits.
#define LA_DTYPE_U64 5

// IEEE numbers of 32 bits.
#define LA_DTYPE_F32 6

// The upper halves of IEEE numbers of 32 bits.
#define LA_DTYPE_BF16 7

// Rows of bf16 numbers.
#define LA_ROW_BF16 0

// Rows of int4 codes, with a scale and a minimum for each group of values.
#define LA_ROW_INT4 1

// Rows of int8 codes, with a scale and a minimum for each run of up to 512 values: rotated keys only.
#define LA_ROW_INT8 2

// Codes cover a group's values from the smallest to the largest.
#define LA_RANGE_MIN_MAX 0

// Of that range and three shorter ones, codes cover the one with the smallest squared error. It is for int4 groups of
// at least 96 values; others are stored as with LA_RANGE_MIN_MAX.
#define LA_RANGE_MSE 1

// Pair j of a rope head is its dimensions (j, j + R/2): Hugging Face's Llama and Qwen, MHA2MLA.
#define LA_PAIRING_HALF 0

// Pair j of a rope head is its dimensions (2 j, 2 j + 1): DeepSeek's checkpoints, GGUF files of Llama models.
#define LA_PAIRING_INTERLEAVED 1

// How a call ended. Other values may be added; whatever is not LA_STATUS_OK is a failure.
typedef enum {
    // Done.
    LA_STATUS_OK = 0,
    // A pointer, or the address of memory that is not empty, is null.
    LA_STATUS_NULL_POINTER = 1,
    // A model's sizes contradict each other.
    LA_STATUS_GEOMETRY = 2,
    // A tensor or array has the wrong number of elements, or elements of the wrong type.
    LA_STATUS_SHAPE = 3,
    // An index lies outside of what it points into.
    LA_STATUS_INDEX = 4,
    // Two arguments do not belong together, or an option's value is not one of those known.
    LA_STATUS_CONFIG = 5,
    // Memory does not begin where it needs to.
    LA_STATUS_ALIGNMENT = 6,
    // The workspace is smaller than la_decode_workspace_bytes() says.
    LA_STATUS_WORKSPACE_TOO_SMALL = 7,
    // There is no NVIDIA driver on this machine.
    LA_STATUS_NO_DRIVER = 8,
    // The driver is older than the kernels' compiler.
    LA_STATUS_DRIVER_TOO_OLD = 9,
    // There is no such GPU.
    LA_STATUS_NO_DEVICE = 10,
    // The GPU is older than Ampere.
    LA_STATUS_UNSUPPORTED_ARCH = 11,
    // This build has no kernels that the device can run.
    LA_STATUS_NO_KERNEL_IMAGE = 12,
    // The driver refused a call, or a device has not enough memory.
    LA_STATUS_DRIVER = 13,
    // A kernel could not be loaded, or the simulator found it doing something wrong.
    LA_STATUS_KERNEL = 14,
    // A bug in this library.
    LA_STATUS_INTERNAL = 15,
} LaStatus;

// Moves the key up-projection from every cached token to the query: `q_latent[t, h] = up_key[g]^T q_nope[t, h]`.
typedef struct LaAbsorbQuery LaAbsorbQuery;

// Device memory of its own.
typedef struct LaBuffer LaBuffer;

// Merges attention over disjoint sets of tokens: a shared prefix, other ranks.
typedef struct LaCombine LaCombine;

// Attention of a batch's query tokens over the cached latents themselves.
typedef struct LaDecode LaDecode;

// A GPU, the CPU, or the simulator. What is made for a device keeps it alive, so it may be destroyed at any time.
typedef struct LaDevice LaDevice;

// Applies the value up-projection to what was attended to: `out[t, h] = up_value[g] o_latent[t, h] + bias[g]`.
typedef struct LaExpandOutput LaExpandOutput;

// Gathers cached tokens, dequantised, latents and rotated keys side by side: for an engine's own prefill over what is
// cached already.
typedef struct LaGather LaGather;

// How a batch is divided among blocks. It lies in the caller's workspace.
typedef struct LaPlan LaPlan;

// Takes in a step's new tokens: rotates queries and keys, applies norm and bias to the latents, quantises, and stores
// latents and keys in their pages.
typedef struct LaRopeAppend LaRopeAppend;

// A queue of work: what is launched on a stream runs in order.
typedef struct LaStream LaStream;

// Makes keys and values of all tokens of a batch, for prefill.
typedef struct LaUpProject LaUpProject;

// What a layer is. The letters are those that the shapes of arguments are written with.
typedef struct {
    // H: query heads.
    size_t query_heads;
    // G: heads with an up-projection of their own; divides `query_heads`.
    size_t kv_heads;
    // L: dimensions of the cached latent.
    size_t latent_rank;
    // Gr: heads with a rotated key of their own; divides `kv_heads`. G in MHA2MLA, 1 in DeepSeek.
    size_t rope_heads;
    // R: rotated dimensions per rope head; even, may be 0.
    size_t rope_dim;
    // Dn: unrotated query and key dimensions per head; may be 0.
    size_t nope_dim;
    // Dv: value dimensions per head.
    size_t value_dim;
} LaGeometry;

// How the bytes of a cache lie, and how they are made of numbers.
typedef struct {
    // Rows of latents: LA_ROW_BF16 or LA_ROW_INT4.
    uint32_t latent_row;
    // Values of a latent that share a scale: 32, 64, 128 or 512 (runs of up to 512); 0 without scales.
    uint32_t latent_group;
    // Rows of rotated keys: LA_ROW_BF16, LA_ROW_INT4 or LA_ROW_INT8.
    uint32_t rope_row;
    // The same of a rotated key; 512 for LA_ROW_INT8.
    uint32_t rope_group;
    // Tokens per page: 8, 16, 32 or 64.
    size_t page_size;
    // LA_RANGE_MIN_MAX or LA_RANGE_MSE: how la_rope_append_run() chooses scales and minima. All operations on a cache
    // have the same; the others do not depend on it.
    uint32_t range;
} LaCacheFormat;

// Where things lie in a page: three tiles of `page_size` rows, the first at its beginning.
typedef struct {
    // Bytes of a token in all three tiles.
    size_t token_bytes;
    // Bytes of a page.
    size_t page_bytes;
    // Bytes of a token's latent.
    size_t latent_row_bytes;
    // Where the tile of rotated keys begins, in bytes from the page's start.
    size_t rope_offset;
    // Bytes of a token's rotated key.
    size_t rope_row_bytes;
    // Where the tile of (scale, minimum) pairs begins, f16 both; first the latent's groups, then the rotated key's.
    size_t affine_offset;
    // Bytes of a token's pairs.
    size_t affine_row_bytes;
} LaCacheLayout;

// What stays the same from run to run.
typedef struct {
    // The layer's sizes.
    LaGeometry geometry;
    // How the cache's bytes lie.
    LaCacheFormat format;
    // LA_PAIRING_HALF or LA_PAIRING_INTERLEAVED.
    uint32_t pairing;
} LaRopeAppendConfig;

// Device memory. An optional array is left out by zeros: no address, no elements, no type. With a type it is there, if
// only for no tokens.
typedef struct {
    // Where it begins, a multiple of an element's size.
    uint64_t address;
    // Number of elements.
    size_t elements;
    // What an element is, as whoever filled the memory knows it: LA_DTYPE_U8, ... An array of another type than the
    // struct that holds it says is refused; so is 0.
    uint32_t dtype;
} LaArray;

// A tensor `[outer, middle, inner]` of bf16 numbers whose inner dimension is dense, so that a slice of a wider tensor
// needs no copy. One that is written must not have rows that share elements.
typedef struct {
    // The memory that the tensor lies in, from its first element on.
    LaArray memory;
    // Outer, middle and inner size.
    size_t sizes[3];
    // Elements from one outer, and from one middle index to the next.
    size_t strides[2];
} LaTensor;

// The arguments of la_rope_append_run(), for T tokens. Arrays and tensors are left out by zeros: without `q_rotated`,
// there are no queries; without positions, tables and index, which go together, keys are stored as they are, rotated
// already, and queries must be left out as well. A token whose position is outside of the tables, or whose slot is
// neither -1 nor in the cache, is counted, and nothing of it is written.
typedef struct {
    // Left out, or `[T, H, R]`, not yet rotated. Left out, it is what `q_rotated` holds.
    LaTensor q_rope;
    // Left out, or out: `[T, H, R]`.
    LaTensor q_rotated;
    // `[T, Gr, R]`, not yet rotated, or rotated already.
    LaTensor k_rope;
    // `[T, 1, L]`: the down-projection's output.
    LaTensor c_kv;
    // Left out, or i32 `[T]`: row of the tables.
    LaArray positions;
    // i64 `[T]`: where each token goes, page * page_size + offset; -1 stores nothing.
    LaArray slots;
    // Left out, or f32 `[positions, frequencies]`.
    LaArray cos;
    // Left out, or f32 `[positions, frequencies]`.
    LaArray sin;
    // Columns of the tables.
    size_t frequencies;
    // Left out, or u32 `[Gr, R/2]`: the column that turns each pair. Each must be less than `frequencies` when the
    // kernel runs.
    LaArray frequency_index;
    // Left out, or f32 `[L]`: gain of an RMSNorm over the latent.
    LaArray norm_gain;
    // Added to the mean square under the norm's root: finite, not negative.
    float norm_epsilon;
    // Left out, or f32 `[L]`: added to the latent after the norm.
    LaArray bias;
    // Out: the cache's bytes, whole pages that begin on 16 bytes.
    LaArray cache;
    // Left out, or u64 `[2]`, to which are added: values that were not finite or beyond f16's range, and had to be
    // moved into their group's; refused tokens.
    LaArray counters;
} LaRopeAppendArgs;

// What stays the same from run to run, of either operation.
typedef struct {
    // The layer's sizes.
    LaGeometry geometry;
    // 0: what is fastest for each number of query tokens, on which the order of sums depends. Otherwise a query token's
    // result is the same to the bit whatever other tokens there are: what belongs to `fixed_tokens` of la_decode_create().
    uint32_t batch_invariant;
} LaAbsorbConfig;

// The arguments of la_absorb_query_run(), for T query tokens.
typedef struct {
    // `[G, Dn, L]`.
    LaTensor up_key;
    // `[T, H, Dn]`.
    LaTensor q_nope;
    // Out: `[T, H, L]`.
    LaTensor q_latent;
} LaAbsorbQueryArgs;

// The arguments of la_expand_output_run(), for T query tokens.
typedef struct {
    // `[G, Dv, L]`.
    LaTensor up_value;
    // Left out, or f32 `[G, Dv]`.
    LaArray value_bias;
    // `[T, H, L]`.
    LaTensor o_latent;
    // Out: `[T, H, Dv]`.
    LaTensor out;
} LaExpandOutputArgs;

// What stays the same from run to run.
typedef struct {
    // The layer's sizes.
    LaGeometry geometry;
    // How the cache's bytes lie.
    LaCacheFormat format;
    // Factor on every score, finite; 1 / sqrt(R + Dn) in an unscaled model.
    float scale;
    // 0: work is balanced over the device. Otherwise sequences are cut at multiples of so many tokens, and a query's
    // result is the same to the bit whatever else is in the batch.
    size_t fixed_tokens;
    // Most query tokens in a batch.
    size_t max_query_tokens;
    // Most tokens in a sequence; longer ones are cut off.
    size_t max_tokens;
} LaDecodeConfig;

// A batch in device memory. Whenever a kernel runs on it, `query_starts` must ascend from 0, lengths must not be
// negative, and the page table must have an id below `page_count` for every page that a sequence's length reaches.
typedef struct {
    // i32 `[sequences + 1]`: the query tokens of sequence b are `query_starts[b] .. query_starts[b + 1] - 1`.
    LaArray query_starts;
    // i32 `[sequences]`: cached tokens, those of this step included. Query tokens of a sequence of length 0 see
    // nothing.
    LaArray seq_lens;
    // i32 page ids, `[sequences, max_pages]`; with `page_starts`, those of all sequences one after the other.
    LaArray page_table;
    // Left out, or i32 `[sequences + 1]`, ascending from 0: sequence b has the ids from `page_starts[b]` on.
    LaArray page_starts;
    // Length of a row of `page_table`; 0 with `page_starts`.
    size_t max_pages;
    // Pages of the smallest cache that the batch is for.
    size_t page_count;
} LaBatch;

// The arguments of la_decode_run(), for the plan's T query tokens.
typedef struct {
    // `[T, H, L]`: the absorbed query.
    LaTensor q_latent;
    // `[T, H, R]`: rotated.
    LaTensor q_rope;
    // The cache's bytes, whole pages that begin on 16 bytes.
    LaArray cache;
    // Out: bf16 `[T, H, L]`, dense: the softmax-weighted mean of the latents; zeros where a query sees no token.
    LaArray o_latent;
    // Out: f32 `[T, H]`: natural logarithm of the sum of exp(score); minus infinity where a query sees no token.
    LaArray lse;
} LaDecodeArgs;

// What stays the same from run to run.
typedef struct {
    // L: numbers in a latent.
    size_t latent_rank;
    // Most parts that are merged, at most 8192.
    size_t max_splits;
} LaCombineConfig;

// The arguments of la_combine_run(). A row is one head of one query token.
typedef struct {
    // Query tokens times heads.
    size_t rows;
    // Parts to merge.
    size_t splits;
    // f32 `[splits, rows, L]`: each part's weighted mean; not read where its lse is infinite.
    LaArray o_partial;
    // f32 `[splits, rows]`: natural logarithm of each part's sum of exp(score). Minus infinity, or plus infinity as
    // FlashAttention 2 writes it, if it saw nothing; NaN makes the row NaN, lse and latents.
    LaArray lse_partial;
    // Out: bf16 `[rows, L]`; zeros where no part saw anything.
    LaArray o_latent;
    // Out: f32 `[rows]`; minus infinity where no part saw anything.
    LaArray lse;
} LaCombineArgs;

// What stays the same from run to run.
typedef struct {
    // The layer's sizes.
    LaGeometry geometry;
    // How the cache's bytes lie.
    LaCacheFormat format;
} LaUpProjectConfig;

// The arguments of la_up_project_run(). S is a number of rows, at least that of the batch's tokens.
typedef struct {
    // The cache's bytes, whole pages that begin on 16 bytes.
    LaArray cache;
    // i32 `[sequences + 1]`, prefix sums of the lengths: token s of sequence b becomes row `token_starts[b] + s`. Rows
    // from the last of these numbers on are left alone.
    LaArray token_starts;
    // `[G, Dn, L]`.
    LaTensor up_key;
    // `[G, Dv, L]`.
    LaTensor up_value;
    // Left out, or f32 `[G, Dv]`.
    LaArray value_bias;
    // Out: `[S, G, Dn + R]`, the unrotated part, then the rotated key of the head's rope head.
    LaTensor keys;
    // Out: `[S, G, Dv]`.
    LaTensor values;
} LaUpProjectArgs;

// What stays the same from run to run.
typedef struct {
    // The layer's sizes.
    LaGeometry geometry;
    // How the cache's bytes lie.
    LaCacheFormat format;
} LaGatherConfig;

// The arguments of la_gather_run(). S is a number of rows, at least that of the tokens that are gathered.
typedef struct {
    // The cache's bytes, whole pages that begin on 16 bytes.
    LaArray cache;
    // i32 `[sequences + 1]`: rows `token_starts[b] .. token_starts[b + 1] - 1` are of sequence b; to gather all
    // tokens, the prefix sums of the lengths. Rows from the last of these numbers on are left alone; rows of no token
    // are zeros.
    LaArray token_starts;
    // Left out, or i32 `[sequences]`: the token in row `token_starts[b]`, where a chunk of a long prefix is gathered.
    LaArray first_tokens;
    // Out: `[S, 1, L + Gr*R]`, the latent, then the rotated keys of all rope heads.
    LaTensor gathered;
} LaGatherArgs;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The LA_ABI_VERSION that the library was built with.
uint32_t la_abi_version(void);

// What went wrong in the last call of this thread that failed, in one line; empty if none has. The text stays where it
// is until another call of the same thread fails.
const char *la_last_error(void);

// The `ordinal`-th NVIDIA GPU that the driver shows, with its primary context, which the CUDA runtime and PyTorch use
// too. The driver is opened here: programs need not link it.
LaStatus la_device_cuda(size_t ordinal, LaDevice **out);

// The CPU: the same operations without kernels, done when a call returns. Its addresses are those of the process, so that
// arrays and tensors may lie in any memory of the program. The environment variable LATENT_ATTENTION_CPU names the
// instructions to use, else the best that there are; one that is unknown or not there is refused.
LaStatus la_device_cpu(LaDevice **out);

// A simulated device: runs the same kernels on the CPU, slowly, and checks every access. Its addresses are its own,
// not those of the process.
LaStatus la_device_simulated(LaDevice **out);

// The device's name, which lives as long as the handle.
LaStatus la_device_name(const LaDevice *device, const char **out);

// Waits until everything given to the device is done. A failure may be that of an earlier kernel.
LaStatus la_device_synchronize(const LaDevice *device);

// Null is ignored, here and in every function that destroys.
void la_device_destroy(LaDevice *device);

// A new stream.
LaStatus la_stream_create(const LaDevice *device, LaStream **out);

// A stream of someone else: its `CUstream` or `cudaStream_t`, null for the default stream. It must belong to the
// device's primary context and outlive the handle; destroying the handle leaves it alone. On CPU and simulator, any.
LaStatus la_stream_borrow(const LaDevice *device, void *cuda_stream, LaStream **out);

// Waits until everything on the stream is done. A failure may be that of an earlier kernel.
LaStatus la_stream_synchronize(const LaStream *stream);

// Destroys the handle, and the stream unless it is borrowed.
void la_stream_destroy(LaStream *stream);

// Device memory, for programs that have no allocator of their own. It begins on a multiple of 256 bytes and may hold
// anything; the simulator reports reads of what was not written. More than the device has is refused with
// LA_STATUS_DRIVER, on the CPU with LA_STATUS_CONFIG; the simulator has 80 GiB, which take this computer's memory only
// where they are written (one buffer is refused where the operating system does not let a process reserve as much).
LaStatus la_buffer_create(const LaDevice *device, size_t bytes, LaBuffer **out);

// Where the memory begins.
LaStatus la_buffer_address(const LaBuffer *buffer, uint64_t *out);

// Frees the memory.
void la_buffer_destroy(LaBuffer *buffer);

// Copies `bytes` bytes from the host to device memory, this library's or not, after all work given to the device
// before. Waits for the copy.
LaStatus la_upload(const LaDevice *device, uint64_t to, const void *from, size_t bytes);

// Copies `bytes` bytes of device memory to the host, after all work given to the device before. Waits for the copy.
LaStatus la_download(const LaDevice *device, uint64_t from, void *to, size_t bytes);

// The sizes of a named model: "llama2-7b-d64", "deepseek-v3", ...; the message of an unknown name lists all.
LaStatus la_geometry_named(const char *name, LaGeometry *out);

// The format to begin with: int4 throughout, one scale for up to 512 latents and one for 32 values of a rotated key.
LaStatus la_cache_format_int4(size_t page_size, LaCacheFormat *out);

// How large a cache of this format is for a layer of these sizes, and where things lie in it.
LaStatus la_cache_layout(const LaGeometry *geometry, const LaCacheFormat *format, LaCacheLayout *out);

// Loads the kernel.
LaStatus la_rope_append_create(const LaDevice *device, const LaRopeAppendConfig *config, LaRopeAppend **out);

// Takes in the tokens.
LaStatus la_rope_append_run(const LaRopeAppend *operation, const LaStream *stream, const LaRopeAppendArgs *args);

// Ends the operation.
void la_rope_append_destroy(LaRopeAppend *operation);

// Loads the kernels for a layer of these sizes.
LaStatus la_absorb_query_create(const LaDevice *device, const LaAbsorbConfig *config, LaAbsorbQuery **out);

// Projects the queries.
LaStatus la_absorb_query_run(const LaAbsorbQuery *operation, const LaStream *stream, const LaAbsorbQueryArgs *args);

// Ends the operation.
void la_absorb_query_destroy(LaAbsorbQuery *operation);

// Loads the kernels for a layer of these sizes.
LaStatus la_expand_output_create(const LaDevice *device, const LaAbsorbConfig *config, LaExpandOutput **out);

// Projects the attended latents.
LaStatus la_expand_output_run(const LaExpandOutput *operation, const LaStream *stream, const LaExpandOutputArgs *args);

// Ends the operation.
void la_expand_output_destroy(LaExpandOutput *operation);

// Chooses the kernel and its tiles for the layer and the device, and loads it.
LaStatus la_decode_create(const LaDevice *device, const LaDecodeConfig *config, LaDecode **out);

// Bytes of workspace that a plan needs. The same memory serves one plan after the other.
LaStatus la_decode_workspace_bytes(const LaDecode *operation, size_t *out);

// Divides a batch of `query_tokens` rows, of which the batch may fill a part; `workspace` is bytes that begin on a
// multiple of 256. The plan is the handle and what the launch writes to the workspace; it holds for every layer of the
// same configuration, until the batch's lengths change. A captured graph that holds this launch and those of runs
// plans anew with every replay; keep the handle until it has been captured.
LaStatus la_decode_plan(const LaDecode *operation,
                        const LaStream *stream,
                        const LaBatch *batch,
                        size_t query_tokens,
                        LaArray workspace,
                        LaPlan **out);

// Attends, by a plan that this operation or one of the same configuration made.
LaStatus la_decode_run(const LaDecode *operation, const LaStream *stream, LaPlan *plan, const LaDecodeArgs *args);

// Ends the plan; its workspace can be used again after the runs.
void la_plan_destroy(LaPlan *plan);

// Ends the operation; its plans may live on.
void la_decode_destroy(LaDecode *operation);

// Loads the kernel.
LaStatus la_combine_create(const LaDevice *device, const LaCombineConfig *config, LaCombine **out);

// Merges the parts.
LaStatus la_combine_run(const LaCombine *operation, const LaStream *stream, const LaCombineArgs *args);

// Ends the operation.
void la_combine_destroy(LaCombine *operation);

// Loads the kernel.
LaStatus la_up_project_create(const LaDevice *device, const LaUpProjectConfig *config, LaUpProject **out);

// Makes keys and values.
LaStatus la_up_project_run(const LaUpProject *operation,
                           const LaStream *stream,
                           const LaBatch *batch,
                           const LaUpProjectArgs *args);

// Ends the operation.
void la_up_project_destroy(LaUpProject *operation);

// Loads the kernel.
LaStatus la_gather_create(const LaDevice *device, const LaGatherConfig *config, LaGather **out);

// Gathers the tokens.
LaStatus la_gather_run(const LaGather *operation,
                       const LaStream *stream,
                       const LaBatch *batch,
                       const LaGatherArgs *args);

// Ends the operation.
void la_gather_destroy(LaGather *operation);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LATENT_ATTENTION_H */
