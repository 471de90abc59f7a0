"""Peers that attend over DeepSeek's latents. Each makes a function that attends once, [batch, H, L]."""

import torch
from files import Missing, operators, triton_decode
from inputs import PAGE_SIZE


def flashmla(inputs, folder):
    """FlashMLA's dense kernel for Hopper; its schedule is made by the first call and then kept, as our plan is."""
    g = inputs.g
    if (g.latent_rank, g.rope_dim) != (512, 64):
        raise Missing(f"its latents have 512 + 64 numbers, not {g.latent_rank} + {g.rope_dim}")
    fwd = operators(folder, "_flashmla_C.abi3.so", "_flashmla_C").dense_decode_fwd
    cache = inputs.paged_latents().unsqueeze(2)
    query = torch.cat([inputs.q_latent, inputs.q_rope], dim=-1).unsqueeze(1)
    schedule = [None, None]

    def attend():
        lens, table = inputs.seq_lens, inputs.page_table
        out, _, *schedule[:] = fwd(query, cache, g.latent_rank, lens, table, inputs.scale, False, *schedule, None)
        return out.squeeze(1)

    return attend


def flash_attention_3(inputs, folder, query, keys, values, q_v=None, is_planned=False):
    """FlashAttention-3 over pages, as vLLM calls it; `is_planned` makes its schedule beforehand, as ours is."""
    fa3 = operators(folder, "_vllm_fa3_C.abi3.so", "_vllm_fa3_C")
    batch, heads, width = query.shape
    lens, starts, most = inputs.seq_lens, inputs.query_starts, inputs.cached
    plan = None
    if is_planned:
        sizes = (batch, 1, most, heads, keys.shape[2], width, values.shape[3], torch.bfloat16)
        rest = (PAGE_SIZE, 0, True, -1, -1, False, 0, None, 0)
        plan = fa3.get_scheduler_metadata(*sizes, lens, starts, None, None, None, None, *rest)

    def attend():
        new_keys, rotary, descales = (None, None), (None, None, None), (None, None, None)
        lengths = (starts, None, None, None, lens, 1, most)
        pages = (inputs.page_table, None, None)
        options = (inputs.scale, True, -1, -1, 0.0, True, plan, 0, None, 0, None, 1, 0, None)
        return fa3.fwd(query, keys, values, *new_keys, q_v, None, *lengths, *pages, *rotary, *descales, *options)[0]

    return attend


def flash_attention_3_latent(inputs, folder, is_planned=False):
    """FlashAttention-3 with the latents as values and `q_v` as the query for them."""
    cache = inputs.paged_latents().unsqueeze(2)
    latents, keys = cache.split([inputs.g.latent_rank, inputs.g.rope_dim], dim=-1)
    return flash_attention_3(inputs, folder, inputs.q_rope, keys, latents, inputs.q_latent, is_planned)


def flash_attention_3_latent_planned(inputs, folder):
    return flash_attention_3_latent(inputs, folder, is_planned=True)


def triton_mla(inputs, folder):
    """vLLM's Triton kernel, with the number of splits that vLLM would choose."""
    module, g = triton_decode(folder), inputs.g
    cache = inputs.paged_latents().unsqueeze(2)
    query = torch.cat([inputs.q_latent, inputs.q_rope], dim=-1)
    out = torch.empty_like(inputs.q_latent)
    lse = torch.empty(out.shape[:2], dtype=out.dtype, device=out.device)
    multiprocessors = torch.cuda.get_device_properties(out.device).multi_processor_count
    splits = 1 << max(0, inputs.cached // 512 - 1).bit_length()
    splits = min(splits, 2 * multiprocessors)
    parts = torch.empty((*out.shape[:2], splits, g.latent_rank + 1), dtype=torch.float32, device=out.device)
    one = torch.ones((), device=out.device)

    def attend():
        values = cache[..., : g.latent_rank]
        batch = (inputs.page_table, inputs.seq_lens, parts, splits, inputs.scale, PAGE_SIZE)
        module.decode_attention_fwd(query, cache, values, out, lse, *batch, k_scale=one, v_scale=one, is_mla=True)
        return out

    return attend


def flashinfer(inputs, folder):
    """FlashInfer's MLA, compiled by nvcc at the first call."""
    try:
        from flashinfer.mla import BatchMLAPagedAttentionWrapper
    except ImportError as error:
        raise Missing(str(error)) from error
    g, table = inputs.g, inputs.page_table
    cache = inputs.paged_latents()
    latents, keys = (part.contiguous() for part in cache.split([g.latent_rank, g.rope_dim], dim=-1))
    wrapper = BatchMLAPagedAttentionWrapper(torch.empty(128 << 20, dtype=torch.uint8, device=inputs.device))
    starts = (inputs.query_starts * table.shape[1]).int()
    sizes = (g.query_heads, g.latent_rank, g.rope_dim, PAGE_SIZE, False, inputs.scale, torch.bfloat16, torch.bfloat16)
    wrapper.plan(inputs.query_starts, starts, table.flatten(), inputs.seq_lens, *sizes)
    return lambda: wrapper.run(inputs.q_latent, inputs.q_rope, latents, keys)
