"""Peers that attend over the uncompressed keys and values of the same layer. Each makes a function that attends once,
[batch, H, Dv]."""

import torch
from latent_peers import flash_attention_3
from torch.nn.attention import SDPBackend, sdpa_kernel


def sdpa(backend, inputs, folder):
    """torch's scaled_dot_product_attention, one of its backends."""
    keys, values = (x[:, : inputs.cached].transpose(1, 2) for x in inputs.dense())
    query = inputs.dense_query().unsqueeze(2)
    is_grouped = inputs.g.kv_heads != inputs.g.query_heads

    def attend():
        with sdpa_kernel(backend):
            attention = torch.nn.functional.scaled_dot_product_attention
            return attention(query, keys, values, scale=inputs.scale, enable_gqa=is_grouped).squeeze(2)

    return attend


def sdpa_flash(*args):
    return sdpa(SDPBackend.FLASH_ATTENTION, *args)


def sdpa_cudnn(*args):
    return sdpa(SDPBackend.CUDNN_ATTENTION, *args)


def flash_attention_3_dense(inputs, folder):
    """FlashAttention-3 over pages of keys and values, its schedule made beforehand."""
    keys, values = map(inputs.paged, inputs.dense())
    return flash_attention_3(inputs, folder, inputs.dense_query(), keys, values, is_planned=True)
