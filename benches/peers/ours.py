"""Our kernels, called through the C library on torch's tensors and stream."""

import torch


class Ours:
    """The attention of one layer with one of our caches.

    Of a converted layer, it is what replaces attention over uncompressed keys and values: absorb, decode and expand. Of
    DeepSeek's, whose peers take absorbed queries as well, it is decode alone. The plan, of which a model needs one per
    step and not per layer, is made beforehand.
    """

    def __init__(self, la, device, inputs, form, cache):
        self._la, self._device, self._inputs = la, device, inputs
        g, tokens = inputs.g, inputs.batch
        self.token_bytes = form.layout(g).token_bytes
        new = lambda *sizes, dtype: torch.zeros(sizes, dtype=dtype, device=inputs.device)  # noqa: E731
        heads = (tokens, g.query_heads)
        self._q_latent = inputs.q_latent.clone()
        self._o_latent = new(*heads, g.latent_rank, dtype=torch.bfloat16)
        self._out = new(*heads, g.value_dim, dtype=torch.bfloat16)
        lse = new(*heads, dtype=torch.float32)
        config = la.DecodeConfig(g, form, inputs.scale, 0, tokens, inputs.page_table.shape[1] * form.page_size)
        self._decode = la.Decode(device, config)
        self._workspace = new(self._decode.workspace_bytes(), dtype=torch.uint8)
        self._streams, self._memory = {}, Memory(la, device, inputs.device)
        array, tensor = self._memory.array, self._memory.tensor
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
        self._lse = lse  # Keeps the memory, as the other fields do.
        if inputs.is_converted:
            self._absorb = la.Operation(device, "absorb_query", la.AbsorbConfig(g))
            self._expand = la.Operation(device, "expand_output", la.AbsorbConfig(g))
            self._absorb_args = la.AbsorbQueryArgs(tensor(inputs.up_key), tensor(inputs.q_nope), q_latent)
            self._expand_args = la.ExpandOutputArgs(tensor(inputs.up_value), la.Array(), o_latent, tensor(self._out))

    def __call__(self):
        stream = self._stream()
        if self._inputs.is_converted:
            self._absorb.run(stream, self._absorb_args)
        self._decode.run(stream, self._plan, self._decode_args)
        if self._inputs.is_converted:
            self._expand.run(stream, self._expand_args)
        return self._memory.fetch(self._out if self._inputs.is_converted else self._o_latent)

    def _stream(self):
        """torch's current stream, which is another one while a graph is captured."""
        raw = torch.cuda.current_stream().cuda_stream if self._inputs.device.type == "cuda" else 0
        if raw not in self._streams:
            self._streams[raw] = self._device.stream(raw)
        return self._streams[raw]


class Memory:
    """Torch's tensors as the library's arguments. For the simulator, which has memory of its own, they are copied."""

    def __init__(self, la, device, torch_device):
        self._la, self._device, self._is_cuda, self._copies = la, device, torch_device.type == "cuda", {}

    def array(self, tensor):
        if self._is_cuda:
            return self._la.array(tensor)
        return self._copy(tensor).array()

    def tensor(self, tensor):
        if self._is_cuda:
            return self._la.tensor(tensor)
        return self._copy(tensor).tensor(*tensor.shape)

    def fetch(self, tensor):
        """The tensor with what the device has written to it."""
        if not self._is_cuda:
            tensor.view(torch.uint8).flatten()[:] = torch.frombuffer(self._copy(tensor).download(), dtype=torch.uint8)
        return tensor

    def _copy(self, tensor):
        if tensor.data_ptr() not in self._copies:
            values = tensor.contiguous().view(torch.uint8).numpy()
            self._copies[tensor.data_ptr()] = self._device.upload(values, self._la.dtype_of(tensor))
        return self._copies[tensor.data_ptr()]
