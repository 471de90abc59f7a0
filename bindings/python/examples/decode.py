"""One decode step of a small latent-attention layer from an int4 cache, checked with numpy.

python3 bindings/python/examples/decode.py [DEVICE]     # on the simulator, unless `cpu` or a GPU's number is given
"""

import sys

import latent_attention as la
import numpy as np

# A DeepSeek-like layer: every head has up-projections, all share one rotated key.
GEOMETRY = la.Geometry(
    query_heads=4, kv_heads=4, latent_rank=64, rope_heads=1, rope_dim=16, nope_dim=32, value_dim=32
)
PAGE_SIZE, LENGTHS = 16, (37, 5)  # of two sequences, the tokens that are decoded included
PAGE_TABLE = np.array([[3, 0, 5], [2, -1, -1]], np.int32)  # any pages, in any order; -1 is never looked up
PAGES, SCALE = 6, (16 + 32) ** -0.5


def bf16(values):
    """Rounds to bf16, the upper half of an f32; ties go to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def wide(bits):
    return (np.frombuffer(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def unpack(page, offset, row_bytes, width, groups, affine, group):
    """The values of one tile of a page: scale * code + min."""
    words = page[offset : offset + PAGE_SIZE * row_bytes].view("<u4").reshape(PAGE_SIZE, -1)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # which of 8 values a word's nibbles hold, from the lowest
    codes = np.empty((*words.shape, 8))
    for nibble, value in enumerate(order):
        codes[..., value] = words >> (4 * nibble) & 15
    codes = codes.reshape(PAGE_SIZE, -1)[:, :width]
    which = groups + np.arange(width) // group
    return codes * affine[:, which, 0] + affine[:, which, 1]


def dequantise(cache, layout, form):
    """Latents and rotated keys of all slots, [slots, L] and [slots, R]."""
    latents, keys = [], []
    latent_groups = -(-GEOMETRY.latent_rank // form.latent_group)
    for page in np.frombuffer(cache, np.uint8).reshape(PAGES, -1):
        affine = page[layout.affine_offset :].view("<f2").astype(float).reshape(PAGE_SIZE, -1, 2)
        latents.append(unpack(page, 0, layout.latent_row_bytes, GEOMETRY.latent_rank, 0, affine, form.latent_group))
        rope = (layout.rope_offset, layout.rope_row_bytes, GEOMETRY.rope_dim)
        keys.append(unpack(page, *rope, latent_groups, affine, form.rope_group))
    return np.concatenate(latents), np.concatenate(keys)


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "simulated"
    device = getattr(la.Device, name)() if name in ("simulated", "cpu") else la.Device(int(name))
    stream, g = device.stream(), GEOMETRY
    form = la.CacheFormat.int4(PAGE_SIZE)
    layout = form.layout(g)
    cache = device.upload(np.zeros(PAGES * layout.page_bytes, np.uint8))

    # What the projections would have made of all tokens: those of one sequence, then those of the other.
    random, tokens = np.random.default_rng(1), sum(LENGTHS)
    numbers = lambda *sizes: bf16(random.standard_normal(sizes))  # noqa: E731
    q_rope, q_nope = numbers(tokens, g.query_heads, g.rope_dim), numbers(tokens, g.query_heads, g.nope_dim)
    up_key = bf16(random.standard_normal((g.kv_heads, g.nope_dim, g.latent_rank)) / 8)
    up_value = bf16(random.standard_normal((g.kv_heads, g.value_dim, g.latent_rank)) / 8)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in LENGTHS])
    slot = lambda b, t: int(PAGE_TABLE[b, t // PAGE_SIZE]) * PAGE_SIZE + t % PAGE_SIZE  # noqa: E731
    slots = np.array([slot(b, t) for b, n in enumerate(LENGTHS) for t in range(n)], np.int64)
    angles = np.arange(max(LENGTHS))[:, None] * 10000.0 ** (-np.arange(0, g.rope_dim, 2) / g.rope_dim)
    cos, sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin))

    # Takes in all of them. (A model does so step by step.) Buffers must live as long as what runs on them.
    rotated, counters = device.upload(q_rope), device.upload(np.zeros(2, np.uint64))
    k_rope, c_kv = device.upload(numbers(tokens, 1, g.rope_dim)), device.upload(numbers(tokens, 1, g.latent_rank))
    inputs = [device.upload(x) for x in (positions, slots, cos, sin, np.arange(g.rope_dim // 2, dtype=np.uint32))]
    append = la.Operation(device, "rope_append", la.RopeAppendConfig(g, form, la.PAIRING_INTERLEAVED))
    append_args = la.RopeAppendArgs(
        q_rotated=rotated.tensor(*q_rope.shape),
        k_rope=k_rope.tensor(tokens, 1, g.rope_dim),
        c_kv=c_kv.tensor(tokens, 1, g.latent_rank),
        frequencies=g.rope_dim // 2,
        cache=cache,
        counters=counters,
    )
    for name, buffer in zip("positions slots cos sin frequency_index".split(), inputs):
        setattr(append_args, name, buffer)
    append.run(stream, append_args)
    assert not any(counters.download()), "no token was refused, no value moved"

    # The last token of each sequence attends.
    last = np.cumsum(LENGTHS) - 1
    rows, heads = len(LENGTHS), g.query_heads
    q_turned = np.frombuffer(rotated.download(), np.uint16).reshape(q_rope.shape)[last]
    d_q_nope, d_q_rope = device.upload(q_nope[last]), device.upload(q_turned)
    d_up_key, d_up_value = device.upload(up_key), device.upload(up_value)
    q_latent, o_latent = (device.allocate(rows * heads * g.latent_rank, la.DTYPE_BF16) for _ in range(2))
    out, lse = device.allocate(rows * heads * g.value_dim, la.DTYPE_BF16), device.allocate(rows * heads, la.DTYPE_F32)
    absorb = la.Operation(device, "absorb_query", la.AbsorbConfig(g))
    latent = (rows, heads, g.latent_rank)
    d_q_nope_tensor = d_q_nope.tensor(rows, heads, g.nope_dim)
    absorb.run(stream, la.AbsorbQueryArgs(d_up_key.tensor(*up_key.shape), d_q_nope_tensor, q_latent.tensor(*latent)))
    decode = la.Decode(device, la.DecodeConfig(g, form, SCALE, 0, rows, PAGE_TABLE.shape[1] * PAGE_SIZE))
    query_starts = device.upload(np.arange(rows + 1, dtype=np.int32))
    seq_lens, table = device.upload(np.array(LENGTHS, np.int32)), device.upload(PAGE_TABLE)
    batch = la.Batch(query_starts, seq_lens, table, max_pages=PAGE_TABLE.shape[1], page_count=PAGES)
    workspace = device.allocate(decode.workspace_bytes(), la.DTYPE_U8)
    plan = decode.plan(stream, batch, rows, workspace)
    queries = (q_latent.tensor(*latent), d_q_rope.tensor(rows, heads, g.rope_dim))
    decode.run(stream, plan, la.DecodeArgs(*queries, cache, o_latent, lse))
    expand = la.Operation(device, "expand_output", la.AbsorbConfig(g))
    expand_args = la.ExpandOutputArgs(
        d_up_value.tensor(*up_value.shape), la.Array(), o_latent.tensor(*latent), out.tensor(rows, heads, g.value_dim)
    )
    expand.run(stream, expand_args)

    # The same by definition, from what the cache holds: keys and values of each head, softmax, mean.
    got = wide(out.download()).reshape(rows, heads, g.value_dim)
    latents, keys = dequantise(cache.download(), layout, form)
    exact = lambda x: wide(x.tobytes()).reshape(x.shape)  # noqa: E731
    w_key, w_value, query, turned = map(exact, (up_key, up_value, q_nope[last], q_turned))
    want = np.empty_like(got, float)
    for b, n in enumerate(LENGTHS):
        mine = [slot(b, t) for t in range(n)]
        k = np.einsum("hil,tl->thi", w_key, latents[mine])
        scores = SCALE * (np.einsum("hi,thi->ht", query[b], k) + turned[b] @ keys[mine].T)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        want[b] = np.einsum("ht,hil,tl->hi", weights, w_value, latents[mine])
    error, largest = np.abs(got - want).max(), np.abs(want).max()
    tokens = f"{device.name}: {layout.token_bytes} bytes per token"
    print(f"{tokens}; outputs up to {largest:.3f}, off by at most {error:.4f}")

    # What does not fit is refused before anything is launched.
    expand_args.out.sizes[1] -= 1
    try:
        expand.run(stream, expand_args)
        raise SystemExit("a tensor of the wrong size was not refused")
    except la.Error as refused:
        print(f"refused with {refused.status}: {refused}")

    # Absorbed query, attended latent and result are each rounded to bf16, by at most 1/512 of themselves.
    if error > largest / 50:
        raise SystemExit("the results differ")


main()
