"""Our kernels, called through the C library on the memory of whoever holds the tensors."""


class Ours:
    """The attention of one layer with one of our caches.

    Of a converted layer, it is what replaces attention over uncompressed keys and values: absorb, decode and expand. Of
    DeepSeek's, whose peers take absorbed queries as well, it is decode alone. The plan, of which a model needs one per
    step and not per layer, is made beforehand.
    """

    def __init__(self, la, device, memory, inputs, form, cache):
        self._device, self._memory = device, memory
        self._is_converted = inputs.is_converted
        g, tokens = inputs.g, inputs.batch
        heads = (tokens, g.query_heads)
        self._q_latent = memory.copy(inputs.q_latent)
        self._o_latent = memory.zeros(*heads, g.latent_rank, dtype="bfloat16")
        self._out = memory.zeros(*heads, g.value_dim, dtype="bfloat16")
        lse = memory.zeros(*heads, dtype="float32")
        config = la.DecodeConfig(g, form, inputs.scale, 0, tokens, inputs.page_table.shape[1] * form.page_size)
        self._decode = la.Decode(device, config)
        self._workspace = memory.zeros(self._decode.workspace_bytes(), dtype="uint8")
        self._streams = {}
        array, tensor = memory.array, memory.tensor
        batch = la.Batch(
            array(inputs.query_starts),
            array(inputs.seq_lens),
            array(inputs.page_table),
            max_pages=inputs.page_table.shape[1],
            page_count=inputs.page_count,
        )
        self._plan = self._decode.plan(self._stream(), batch, tokens, array(self._workspace))
        q_latent, o_latent = tensor(self._q_latent), tensor(self._o_latent)
        self._decode_args = la.DecodeArgs(
            q_latent, tensor(inputs.q_rope), array(cache), array(self._o_latent), array(lse)
        )
        self._kept = lse, cache  # Their memory has to stay, as that of the other fields does.
        if self._is_converted:
            self._absorb = la.Operation(device, "absorb_query", la.AbsorbConfig(g))
            self._expand = la.Operation(device, "expand_output", la.AbsorbConfig(g))
            self._absorb_args = la.AbsorbQueryArgs(tensor(inputs.up_key), tensor(inputs.q_nope), q_latent)
            self._expand_args = la.ExpandOutputArgs(tensor(inputs.up_value), la.Array(), o_latent, tensor(self._out))

    def __call__(self):
        stream = self._stream()
        if self._is_converted:
            self._absorb.run(stream, self._absorb_args)
        self.decode()
        if self._is_converted:
            self._expand.run(stream, self._expand_args)
        return self._memory.fetch(self._out if self._is_converted else self._o_latent)

    def decode(self):
        """What of it depends on the number of tokens, over the query that was absorbed last."""
        self._decode.run(self._stream(), self._plan, self._decode_args)

    def _stream(self):
        """The current stream of whoever holds the tensors: torch's is another one while a graph is captured."""
        raw = self._memory.stream()
        if raw not in self._streams:
            self._streams[raw] = self._device.stream(raw)
        return self._streams[raw]
