"""The numbers that everyone gets: queries, and a cache that int4 holds exactly.

Each latent is scale * (code - 8) with a random code and a scale that is a power of two, so that ours in int4, ours in
bf16 and the peers' bf16 caches hold the same values to the bit, and every row is held against one f32 reference.
"""

import torch

PAGE_SIZE = 64
# The value, of 8, that each nibble of a 32-bit word holds, from the lowest.
NIBBLE_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


class Inputs:
    """One model's shapes: `batch` sequences of `cached` tokens, one query token each."""

    def __init__(self, la, name, batch, cached, device):
        self.name, self.batch, self.cached, self.device = name, batch, cached, device
        self.g = g = la.Geometry.named(name)
        # With a rotated key of its own for each KV head, the layer stands for an uncompressed one with the same heads.
        self.is_converted = g.rope_heads > 1
        self.scale = (g.rope_dim + g.nope_dim) ** -0.5
        self.int4, self.bf16 = la.CacheFormat.int4(PAGE_SIZE), la.CacheFormat.bf16(PAGE_SIZE)
        self._random = torch.Generator(device=device).manual_seed(1)
        pages = -(-cached // PAGE_SIZE)
        self.page_count = batch * pages
        order = torch.randperm(self.page_count, generator=self._random, device=device)
        self.page_table = order.to(torch.int32).view(batch, pages)
        self.seq_lens = torch.full((batch,), cached, dtype=torch.int32, device=device)
        self.query_starts = torch.arange(batch + 1, dtype=torch.int32, device=device)
        self._make_cache(la, pages * PAGE_SIZE)
        # Scores of a few units: a softmax that is neither flat nor a single token.
        self.q_rope = self._normal(batch, g.query_heads, g.rope_dim, factor=4)
        self.q_nope = self._normal(batch, g.query_heads, g.nope_dim, factor=4)
        self.up_key = self._normal(g.kv_heads, g.nope_dim, g.latent_rank, factor=2 * g.latent_rank**-0.5)
        self.up_value = self._normal(g.kv_heads, g.value_dim, g.latent_rank, factor=2 * g.latent_rank**-0.5)
        self.q_latent = self._absorbed().to(torch.bfloat16)

    def _normal(self, *sizes, factor):
        values = torch.randn(sizes, generator=self._random, device=self.device)
        return (factor * values).to(torch.bfloat16)

    def _quantised(self, tokens, width, group):
        """Codes [tokens, width], scales [tokens, groups] and the values that they stand for, in bf16."""
        codes = torch.randint(0, 16, (tokens, width), generator=self._random, device=self.device, dtype=torch.uint8)
        groups = -(-width // group)
        exponents = torch.randint(-5, -2, (tokens, groups), generator=self._random, device=self.device)
        scales = torch.exp2(exponents.float())
        of_value = scales.repeat_interleave(group, dim=1)[:, :width]
        return codes, scales, ((codes.float() - 8) * of_value).to(torch.bfloat16)

    def _make_cache(self, la, tokens):
        """Latents [batch, tokens, L] and keys [batch, tokens, Gr * R], and our two caches of them."""
        g, width = self.g, self.g.rope_heads * self.g.rope_dim
        empty = lambda *sizes, dtype: torch.zeros(sizes, dtype=dtype, device=self.device)  # noqa: E731
        layouts = self.int4.layout(g), self.bf16.layout(g)
        self.cache_int4, self.cache_bf16 = (
            empty(self.page_count, layout.page_bytes, dtype=torch.uint8) for layout in layouts
        )
        self.latents = empty(self.batch, tokens, g.latent_rank, dtype=torch.bfloat16)
        self.keys = empty(self.batch, tokens, width, dtype=torch.bfloat16)
        for b in range(self.batch):
            codes, scales, self.latents[b] = self._quantised(tokens, g.latent_rank, self.int4.latent_group)
            rope_codes, rope_scales, self.keys[b] = self._quantised(tokens, width, self.int4.rope_group)
            scales = torch.cat([scales, rope_scales], dim=1)
            affine = torch.stack([scales, -8 * scales], dim=-1).to(torch.float16)
            pages = self.page_table[b].long()
            self.cache_int4[pages] = _pages(layouts[0], _packed(codes), _packed(rope_codes), _bytes(affine))
            self.cache_bf16[pages] = _pages(layouts[1], _bytes(self.latents[b]), _bytes(self.keys[b]), None)

    def _absorbed(self):
        """q_nope through the key up-projection, in f32: [batch, H, L]."""
        g = self.g
        grouped = self.q_nope.float().view(self.batch, g.kv_heads, -1, g.nope_dim)
        return torch.einsum("bgqi,gil->bgql", grouped, self.up_key.float()).reshape(self.batch, g.query_heads, -1)

    def reference(self):
        """In f32: the attended latents [batch, H, L]; of a converted layer, its outputs [batch, H, Dv]."""
        g, rows = self.g, []
        queries = self._absorbed() if self.is_converted else self.q_latent.float()
        for b in range(self.batch):
            latents = self.latents[b, : self.cached].float()
            keys = self.keys[b, : self.cached].float().view(self.cached, g.rope_heads, g.rope_dim)
            turned = self.q_rope[b].float().view(g.rope_heads, -1, g.rope_dim)
            scores = queries[b] @ latents.T + torch.einsum("gqr,tgr->gqt", turned, keys).reshape(g.query_heads, -1)
            attended = torch.softmax(self.scale * scores, dim=-1) @ latents
            if self.is_converted:
                grouped = attended.view(g.kv_heads, -1, g.latent_rank)
                attended = torch.einsum("gql,gil->gqi", grouped, self.up_value.float()).reshape(g.query_heads, -1)
            rows.append(attended)
        return torch.stack(rows)

    def paged_latents(self):
        """The cache as MLA peers want it: bf16 [pages, PAGE_SIZE, L + R]."""
        both = torch.cat([self.latents, self.keys], dim=-1)
        return self.paged(both)

    def dense(self):
        """Keys and values of the uncompressed layer, bf16 [batch, tokens, G, Dn + R] and [batch, tokens, G, Dv]."""
        g, keys, values = self.g, [], []
        for latents, turned in zip(self.latents, self.keys):
            nope = torch.einsum("tl,gil->tgi", latents, self.up_key)
            keys.append(torch.cat([nope, turned.view(-1, g.kv_heads, g.rope_dim)], dim=-1))
            values.append(torch.einsum("tl,gil->tgi", latents, self.up_value))
        return torch.stack(keys), torch.stack(values)

    def dense_query(self):
        """[batch, H, Dn + R]."""
        return torch.cat([self.q_nope, self.q_rope], dim=-1)

    def paged(self, values):
        """The same values in pages of PAGE_SIZE tokens, where the page table says."""
        pages = torch.empty((self.page_count, PAGE_SIZE, *values.shape[2:]), dtype=values.dtype, device=self.device)
        pages[self.page_table.flatten().long()] = values.reshape(pages.shape)
        return pages



def _bytes(rows):
    return rows.contiguous().view(rows.shape[0], -1).view(torch.uint8)


def _packed(codes):
    """int4 rows: 8 codes to a 32-bit word."""
    words = torch.nn.functional.pad(codes, (0, -codes.shape[1] % 8)).view(codes.shape[0], -1, 8).int()
    packed = torch.zeros(words.shape[:2], dtype=torch.int32, device=codes.device)
    for nibble, value in enumerate(NIBBLE_ORDER):
        packed |= words[..., value] << (4 * nibble)
    return packed.view(torch.uint8)


def _pages(layout, latent_rows, rope_rows, affine_rows):
    """Whole pages [pages, page_bytes] of the rows of their tokens."""
    pages = torch.zeros(
        (latent_rows.shape[0] // PAGE_SIZE, layout.page_bytes), dtype=torch.uint8, device=latent_rows.device
    )
    tiles = [
        (0, layout.latent_row_bytes, latent_rows),
        (layout.rope_offset, layout.rope_row_bytes, rope_rows),
        (layout.affine_offset, layout.affine_row_bytes, affine_rows),
    ]
    for offset, row_bytes, rows in tiles:
        if row_bytes > 0:
            tile = pages[:, offset : offset + PAGE_SIZE * row_bytes].view(len(pages), PAGE_SIZE, row_bytes)
            tile[:, :, : rows.shape[1]] = rows.view(len(pages), PAGE_SIZE, -1)
    return pages
