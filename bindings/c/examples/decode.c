/* One decode step of a small latent-attention layer from a paged cache, checked against plain loops.
 *
 * cargo xtask capi
 * cc -std=c99 -I target/capi bindings/c/examples/decode.c -L target/capi -llatent_attention -lm -o target/capi/decode
 * LD_LIBRARY_PATH=target/capi target/capi/decode        # on the simulator; `decode cpu` on the CPU, `decode 0` on a GPU
 */
#include <latent_attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The layer: query heads, heads with an up-projection, latent, rotated heads and their dimensions, unrotated and value
 * dimensions. */
enum { H = 4, G = 2, L = 32, GR = 2, R = 8, DN = 8, DV = 16 };

/* The sequence: tokens in all, of which the last one is decoded; tokens per page, and pages of the cache. */
enum { TOKENS = 20, PAGE_SIZE = 16, PAGES = 4 };

/* Where the sequence's pages are: any pages, in any order. */
static const int32_t page_table[2] = {2, 0};

static LaDevice *device;
static LaBuffer *buffers[32];
static int buffer_count;

static void check(LaStatus status, const char *call) {
    if (status != LA_STATUS_OK) {
        fprintf(stderr, "%s: status %d: %s\n", call, (int)status, la_last_error());
        exit(1);
    }
}
#define CHECK(call) check(call, #call)

/* Device memory that holds `elements` elements of a type: copies of those at `from`, or anything. */
static LaArray memory(const void *from, size_t elements, uint32_t dtype) {
    static const size_t sizes[] = {[LA_DTYPE_U8] = 1,  [LA_DTYPE_I32] = 4, [LA_DTYPE_U32] = 4,
                                   [LA_DTYPE_I64] = 8, [LA_DTYPE_F32] = 4, [LA_DTYPE_BF16] = 2};
    const size_t bytes = sizes[dtype];
    LaArray array = {0, elements, dtype};
    CHECK(la_buffer_create(device, elements * bytes, &buffers[buffer_count]));
    CHECK(la_buffer_address(buffers[buffer_count++], &array.address));
    if (from != NULL) CHECK(la_upload(device, array.address, from, elements * bytes));
    return array;
}

/* Numbers of 7 bits between -1 and 1, which bf16 holds exactly: a bf16 is the upper half of a float. */
static LaArray numbers(double *values, uint16_t *bits, size_t count, unsigned seed) {
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float value = (float)((int)(seed >> 24) % 128 - 64) / 64;
        uint32_t word;
        memcpy(&word, &value, sizeof word);
        values[i] = value;
        bits[i] = (uint16_t)(word >> 16);
    }
    return memory(bits, count, LA_DTYPE_BF16);
}

/* The tokens from `first` on of a dense tensor [tokens, middle, inner]. */
static LaTensor tokens_of(LaArray array, size_t first, size_t count, size_t middle, size_t inner) {
    size_t row = middle * inner;
    LaTensor tensor = {{array.address + first * row * sizeof(uint16_t), array.elements - first * row, array.dtype},
                       {count, middle, inner},
                       {row, inner}};
    return tensor;
}

/* Turns pair (j, j + R/2) of a head. */
static void rotate(double *to, const double *from, const float *cos_row, const float *sin_row) {
    for (int j = 0; j < R / 2; j++) {
        to[j] = from[j] * cos_row[j] - from[j + R / 2] * sin_row[j];
        to[j + R / 2] = from[j + R / 2] * cos_row[j] + from[j] * sin_row[j];
    }
}

static double q_rope[TOKENS * H * R], q_nope[TOKENS * H * DN], k_rope[TOKENS * GR * R], c_kv[TOKENS * L];
static double up_key[G * DN * L], up_value[G * DV * L];
static float cosines[TOKENS][R / 2], sines[TOKENS][R / 2];

/* What head h of the last token should be, by definition: keys and values of all tokens, softmax, mean. */
static void expected(int h, double scale, double *out) {
    int g = h / (H / G), last = TOKENS - 1;
    double scores[TOKENS], query[R], key[R], sum = 0, largest = -INFINITY;
    rotate(query, q_rope + (last * H + h) * R, cosines[last], sines[last]);
    for (int t = 0; t < TOKENS; t++) {
        double score = 0;
        rotate(key, k_rope + (t * GR + h / (H / GR)) * R, cosines[t], sines[t]);
        for (int i = 0; i < R; i++) score += query[i] * key[i];
        for (int i = 0; i < DN; i++)
            for (int l = 0; l < L; l++)
                score += q_nope[(last * H + h) * DN + i] * up_key[(g * DN + i) * L + l] * c_kv[t * L + l];
        scores[t] = scale * score;
        largest = fmax(largest, scores[t]);
    }
    for (int t = 0; t < TOKENS; t++) sum += scores[t] = exp(scores[t] - largest);
    for (int i = 0; i < DV; i++) {
        out[i] = 0;
        for (int t = 0; t < TOKENS; t++)
            for (int l = 0; l < L; l++) out[i] += scores[t] / sum * up_value[(g * DV + i) * L + l] * c_kv[t * L + l];
    }
}

int main(int argc, char **argv) {
    if (la_abi_version() != LA_ABI_VERSION) return fprintf(stderr, "the library is not the header's\n"), 1;
    if (argc == 1) CHECK(la_device_simulated(&device));
    else if (strcmp(argv[1], "cpu") == 0) CHECK(la_device_cpu(&device));
    else CHECK(la_device_cuda((size_t)atoi(argv[1]), &device));
    const char *name;
    CHECK(la_device_name(device, &name));
    LaStream *stream;
    CHECK(la_stream_create(device, &stream));

    /* A cache of bf16 latents and keys, so that the loops below need not know how int4 is written. */
    LaGeometry geometry = {H, G, L, GR, R, DN, DV};
    LaCacheFormat format = {LA_ROW_BF16, 0, LA_ROW_BF16, 0, PAGE_SIZE, LA_RANGE_MIN_MAX};
    LaCacheLayout layout;
    CHECK(la_cache_layout(&geometry, &format, &layout));
    void *zeros = calloc(PAGES, layout.page_bytes);
    LaArray cache = memory(zeros, PAGES * layout.page_bytes, LA_DTYPE_U8);
    free(zeros);

    /* The operations, made once for all steps. */
    const double scale = 1 / sqrt(R + DN);
    LaRopeAppendConfig append_config = {geometry, format, LA_PAIRING_HALF};
    LaAbsorbConfig absorb_config = {geometry, 0};
    LaDecodeConfig decode_config = {geometry, format, (float)scale, 0, 1, PAGES * PAGE_SIZE};
    LaRopeAppend *append;
    LaAbsorbQuery *absorb;
    LaDecode *decode;
    LaExpandOutput *expand;
    CHECK(la_rope_append_create(device, &append_config, &append));
    CHECK(la_absorb_query_create(device, &absorb_config, &absorb));
    CHECK(la_decode_create(device, &decode_config, &decode));
    CHECK(la_expand_output_create(device, &absorb_config, &expand));

    /* What the model's projections would have made of the tokens, and its tables of cosines and sines. */
    static uint16_t bits[TOKENS * H * L];
    LaArray d_q_rope = numbers(q_rope, bits, TOKENS * H * R, 1), d_q_nope = numbers(q_nope, bits, TOKENS * H * DN, 2);
    LaArray d_k_rope = numbers(k_rope, bits, TOKENS * GR * R, 3), d_c_kv = numbers(c_kv, bits, TOKENS * L, 4);
    LaArray d_up_key = numbers(up_key, bits, G * DN * L, 5), d_up_value = numbers(up_value, bits, G * DV * L, 6);
    int32_t positions[TOKENS];
    int64_t slots[TOKENS];
    uint32_t frequency_index[GR * R / 2];
    for (int t = 0; t < TOKENS; t++) {
        positions[t] = t;
        slots[t] = (int64_t)page_table[t / PAGE_SIZE] * PAGE_SIZE + t % PAGE_SIZE;
        for (int j = 0; j < R / 2; j++) {
            double angle = t * pow(10000, -2.0 * j / R);
            cosines[t][j] = (float)cos(angle), sines[t][j] = (float)sin(angle);
        }
    }
    for (int i = 0; i < GR * R / 2; i++) frequency_index[i] = (uint32_t)(i % (R / 2));
    LaArray d_positions = memory(positions, TOKENS, LA_DTYPE_I32), d_slots = memory(slots, TOKENS, LA_DTYPE_I64);
    LaRopeAppendArgs append_args = {0};
    append_args.cos = memory(cosines, TOKENS * R / 2, LA_DTYPE_F32);
    append_args.sin = memory(sines, TOKENS * R / 2, LA_DTYPE_F32);
    append_args.frequencies = R / 2;
    append_args.frequency_index = memory(frequency_index, GR * R / 2, LA_DTYPE_U32);
    append_args.cache = cache;

    /* Takes in the prompt, then the token to decode. Queries are rotated in place. */
    size_t runs[2][2] = {{0, TOKENS - 1}, {TOKENS - 1, 1}};
    for (int i = 0; i < 2; i++) {
        size_t first = runs[i][0], count = runs[i][1];
        append_args.q_rotated = tokens_of(d_q_rope, first, count, H, R);
        append_args.k_rope = tokens_of(d_k_rope, first, count, GR, R);
        append_args.c_kv = tokens_of(d_c_kv, first, count, 1, L);
        append_args.positions = (LaArray){d_positions.address + first * 4, count, LA_DTYPE_I32};
        append_args.slots = (LaArray){d_slots.address + first * 8, count, LA_DTYPE_I64};
        CHECK(la_rope_append_run(append, stream, &append_args));
    }

    /* Attends. A model plans once per step and runs the rest for each layer. */
    LaArray q_latent = memory(NULL, H * L, LA_DTYPE_BF16), o_latent = memory(NULL, H * L, LA_DTYPE_BF16);
    LaArray lse = memory(NULL, H, LA_DTYPE_F32), out = memory(NULL, H * DV, LA_DTYPE_BF16);
    LaAbsorbQueryArgs absorb_args = {
        tokens_of(d_up_key, 0, G, DN, L), tokens_of(d_q_nope, TOKENS - 1, 1, H, DN), tokens_of(q_latent, 0, 1, H, L)};
    CHECK(la_absorb_query_run(absorb, stream, &absorb_args));
    int32_t query_starts[2] = {0, 1}, seq_lens[1] = {TOKENS};
    const uint32_t i32 = LA_DTYPE_I32;
    LaBatch batch = {memory(query_starts, 2, i32), memory(seq_lens, 1, i32), memory(page_table, 2, i32), {0, 0, 0}, 2,
                     PAGES};
    size_t workspace_bytes;
    CHECK(la_decode_workspace_bytes(decode, &workspace_bytes));
    LaPlan *plan;
    CHECK(la_decode_plan(decode, stream, &batch, 1, memory(NULL, workspace_bytes, LA_DTYPE_U8), &plan));
    LaDecodeArgs decode_args = {
        tokens_of(q_latent, 0, 1, H, L), tokens_of(d_q_rope, TOKENS - 1, 1, H, R), cache, o_latent, lse};
    CHECK(la_decode_run(decode, stream, plan, &decode_args));
    LaExpandOutputArgs expand_args = {
        tokens_of(d_up_value, 0, G, DV, L), {0, 0, 0}, tokens_of(o_latent, 0, 1, H, L), tokens_of(out, 0, 1, H, DV)};
    CHECK(la_expand_output_run(expand, stream, &expand_args));

    /* Compares. Queries, keys, latents and results are each rounded to bf16, by at most 1/512 of themselves. */
    CHECK(la_download(device, out.address, bits, H * DV * sizeof *bits));
    double largest = 0, error = 0;
    for (int h = 0; h < H; h++) {
        double want[DV];
        expected(h, scale, want);
        for (int i = 0; i < DV; i++) {
            uint32_t word = (uint32_t)bits[h * DV + i] << 16;
            float got;
            memcpy(&got, &word, sizeof got);
            largest = fmax(largest, fabs(want[i]));
            error = fmax(error, fabs(got - want[i]));
        }
    }
    printf("%s: %d tokens of %zu bytes; outputs up to %.3f, off by at most %.4f\n", name, TOKENS, layout.token_bytes,
           largest, error);

    /* What does not fit is refused before anything is launched. */
    decode_args.lse.elements = H - 1;
    LaStatus refused = la_decode_run(decode, stream, plan, &decode_args);
    printf("refused with status %d: %s\n", (int)refused, la_last_error());

    la_plan_destroy(plan);
    la_expand_output_destroy(expand);
    la_decode_destroy(decode);
    la_absorb_query_destroy(absorb);
    la_rope_append_destroy(append);
    while (buffer_count > 0) la_buffer_destroy(buffers[--buffer_count]);
    la_stream_destroy(stream);
    la_device_destroy(device);
    return error < largest / 50 && refused == LA_STATUS_SHAPE ? 0 : 1;
}
