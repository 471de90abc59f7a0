"""The numbers that everyone gets on the CPU: one query token, and latents that int4 holds exactly. numpy makes them.

Each latent is scale * (code - 8) with a scale that is a power of two, and each group has the codes 0 and 15, so that
rope_append finds this scale and this minimum: caches in int4, bf16 and f16 hold the same values to the bit.
"""

import functools

import numpy as np
from host_memory import bf16, wide, zeros

PAGE_SIZE = 64
# Tokens that are made, and taken by the reference, at a time.
PIECE = 4096


class HostInputs:
    """One model's shapes, and one sequence of `cached` tokens. Names are those of inputs.py; bf16 is held as uint16."""

    batch = 1

    def __init__(self, la, name, cached):
        self.name, self.cached = name, cached
        self.g = g = la.Geometry.named(name)
        # With a rotated key of its own for each KV head, the layer stands for an uncompressed one with the same heads.
        self.is_converted = g.rope_heads > 1
        self.scale = (g.rope_dim + g.nope_dim) ** -0.5
        self.int4 = la.CacheFormat.int4(PAGE_SIZE)
        self._random = np.random.default_rng(1)
        self.page_count = -(-cached // PAGE_SIZE)
        self.page_table = self._random.permutation(self.page_count).astype(np.int32).reshape(1, -1)
        self.cache = None  # Ours, made by who needs it.
        self.seq_lens, self.query_starts = np.array([cached], np.int32), np.array([0, 1], np.int32)
        # Scores of a few units: a softmax that is neither flat nor a single token.
        self.q_rope = self._normal(1, g.query_heads, g.rope_dim, factor=4)
        self.q_nope = self._normal(1, g.query_heads, g.nope_dim, factor=4)
        self.up_key = self._normal(g.kv_heads, g.nope_dim, g.latent_rank, factor=2 * g.latent_rank**-0.5)
        self.up_value = self._normal(g.kv_heads, g.value_dim, g.latent_rank, factor=2 * g.latent_rank**-0.5)
        self.q_latent = bf16(self._absorbed())
        self.latents = self._quantised(g.latent_rank, self.int4.latent_group)
        self.keys = self._quantised(g.rope_heads * g.rope_dim, self.int4.rope_group)

    def _normal(self, *sizes, factor):
        return bf16(factor * self._random.standard_normal(sizes, np.float32))

    def _quantised(self, width, group):
        """bf16 numbers [tokens, width], with a scale for each group."""
        values = zeros(self.cached, width, dtype=np.uint16)
        for tokens in self._pieces():
            rows = len(values[tokens])
            codes = self._random.integers(0, 16, (rows, width), np.uint8)
            codes[:, ::group], codes[:, 1::group] = 0, 15
            scales = np.exp2(self._random.integers(-5, -2, (rows, -(-width // group)))).astype(np.float32)
            of_value = scales.repeat(group, axis=1)[:, :width]
            values[tokens] = ((codes - np.float32(8)) * of_value).view(np.uint32) >> 16
        return values

    def _pieces(self):
        return [slice(first, first + PIECE) for first in range(0, self.cached, PIECE)]

    def _absorbed(self):
        """q_nope through the key up-projection: f64 [1, H, L]."""
        grouped = _double(self.q_nope).reshape(self.g.kv_heads, -1, self.g.nope_dim)
        return (grouped @ wide(self.up_key)).reshape(1, self.g.query_heads, -1)

    def int4_cache(self, la, device, memory):
        """Our cache of the latents, written by rope_append. The keys count as rotated already."""
        g, layout = self.g, self.int4.layout(self.g)
        cache = zeros(self.page_count, layout.page_bytes, dtype=np.uint8)
        tokens = np.arange(self.cached)
        slots = self.page_table[0, tokens // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + tokens % PAGE_SIZE
        args = la.RopeAppendArgs(
            k_rope=memory.tensor(self.keys.reshape(-1, g.rope_heads, g.rope_dim)),
            c_kv=memory.tensor(self.latents.reshape(-1, 1, g.latent_rank)),
            slots=memory.array(slots),
            cache=memory.array(cache),
        )
        config = la.RopeAppendConfig(g, self.int4, la.PAIRING_HALF)
        la.Operation(device, "rope_append", config).run(device.stream(), args)
        return cache

    @functools.cached_property
    def reference(self):
        """In f64: the attended latents [H, L]; of a converted layer, its outputs [H, Dv]."""
        g = self.g
        q_latent = self._absorbed()[0] if self.is_converted else _double(self.q_latent[0])
        q_rope = _double(self.q_rope).reshape(g.rope_heads, -1, g.rope_dim)

        def pieces():
            for tokens in self._pieces():
                latents, keys = _double(self.latents[tokens]), _double(self.keys[tokens])
                rotated = q_rope @ keys.reshape(-1, g.rope_heads, g.rope_dim).transpose(1, 2, 0)
                yield (q_latent @ latents.T).reshape(rotated.shape) + rotated, latents[None]

        attended = attention(pieces(), self.scale)
        if self.is_converted:
            attended = attended @ _double(self.up_value).transpose(0, 2, 1)
        return attended.reshape(g.query_heads, -1)

    def reference_of(self, query, keys, values):
        """In f64, [H, V] of what a peer's cache holds: query [H, D], keys [tokens, G, D], values [tokens, G, V]."""
        query = query.astype(float).reshape(keys.shape[1], -1, keys.shape[2])
        pieces = (
            (query @ keys[tokens].astype(float).transpose(1, 2, 0), values[tokens].astype(float).transpose(1, 0, 2))
            for tokens in self._pieces()
        )
        return attention(pieces, self.scale).reshape(len(self.q_rope[0]), -1)

    @functools.cached_property
    def uncompressed(self):
        """What a peer caches, in f32: keys [tokens, G, D] and values [tokens, G, V]; and its query [H, D]. Those
        of DeepSeek's are the latents with the rotated keys, and the latents again."""
        g, latents = self.g, wide(self.latents)
        keys = wide(self.keys).reshape(self.cached, g.rope_heads, g.rope_dim)
        if not self.is_converted:
            query = np.concatenate([wide(self.q_latent), wide(self.q_rope)], axis=-1)[0]
            return np.concatenate([latents[:, None], keys], axis=-1), latents[:, None], query
        nope, values = (
            (latents @ wide(up).reshape(-1, g.latent_rank).T).reshape(self.cached, g.kv_heads, -1)
            for up in (self.up_key, self.up_value)
        )
        query = np.concatenate([wide(self.q_nope), wide(self.q_rope)], axis=-1)[0]
        return np.concatenate([nope, keys], axis=-1), values, query


def _double(bits):
    return wide(bits).astype(float)


def attention(pieces, scale):
    """The sums of values by softmax(scale * scores) in f64, with one pass over the tokens: pieces are scores [G, heads,
    tokens] and values [G or 1, tokens, V]."""
    most, total, sums = -np.inf, 0.0, 0.0
    for scores, values in pieces:
        highest = np.maximum(most, scale * scores.max(axis=-1, keepdims=True))
        weights, before = np.exp(scale * scores - highest), np.exp(most - highest)
        total = before * total + weights.sum(axis=-1, keepdims=True)
        sums = before * sums + weights @ values
        most = highest
    return sums / total
