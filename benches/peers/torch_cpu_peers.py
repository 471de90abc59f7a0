"""torch's attention on the CPU in bf16. Each makes a function that attends once, and says what the result should be,
[H, V]."""

import torch
from host_memory import bf16, wide


def _tensors(inputs):
    """Query [G, heads, D], keys [G, tokens, D] and values [G, tokens, V] without gaps, as transformers caches them; and
    the result for these numbers. The query heads of a KV head are rows of one matrix, so that it is read once."""
    keys, values, query = inputs.uncompressed
    keys, values, query = bf16(keys.transpose(1, 0, 2)), bf16(values.transpose(1, 0, 2)), bf16(query)
    by_token = (wide(x).transpose(1, 0, 2) for x in (keys, values))
    expected = inputs.reference_of(wide(query), *by_token)
    query = query.reshape(len(keys), -1, keys.shape[2])
    return *(torch.from_numpy(x).view(torch.bfloat16) for x in (query, keys, values)), expected


def _numpy(result):
    return result.float().numpy().reshape(-1, result.shape[-1])


def sdpa(inputs):
    """scaled_dot_product_attention. Its kernel wants values as wide as keys: for MLA it gets the keys, and the latents'
    columns count."""
    query, keys, values, expected = _tensors(inputs)
    width = values.shape[2]
    query, keys, values = (x[None] for x in (query, keys, values if inputs.is_converted else keys))

    def attend():
        attention = torch.nn.functional.scaled_dot_product_attention
        return _numpy(attention(query, keys, values, scale=inputs.scale)[..., :width])

    return attend, expected


def products(inputs):
    """Two products of matrices in bf16 around a softmax in f32. The first is faster with the keys on the left."""
    query, keys, values, expected = _tensors(inputs)
    query = query.transpose(1, 2).contiguous()

    def attend():
        scores = (keys @ query).transpose(1, 2)
        weights = torch.softmax(inputs.scale * scores.float(), dim=-1).to(torch.bfloat16)
        return _numpy(weights @ values)

    return attend, expected
