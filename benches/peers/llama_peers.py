"""llama.cpp's attention on the CPU, over caches of its own types. Each makes a function that attends once, and says
what the result should be, [H, V]."""

from ggml import PRECISION_F32, Graph, decoded, encoded


def _graph(library, inputs, threads, tokens_of_query):
    """A graph with the query, whose heads of one KV head are as many tokens of one query head."""
    query = inputs.uncompressed[2]
    graph = Graph(library, threads)
    sizes = query.shape[1], tokens_of_query, len(query) // tokens_of_query
    return graph, graph.tensor("f32", encoded(library, "f32", query), *sizes)


def _cached(graph, kind, values, by_heads=False):
    """Numbers [tokens, G, D] as a tensor whose middle dimension are tokens, and what it stands for."""
    tokens, heads, width = values.shape
    stored = values.transpose(1, 0, 2) if by_heads else values
    content = encoded(graph.library, kind, stored)
    stands_for = decoded(kind, content, stored.shape)
    if by_heads:
        return graph.tensor(kind, content, width, tokens, heads), stands_for.transpose(1, 0, 2)
    tensor = graph.tensor(kind, content, width, heads, tokens)
    return graph.library.ggml_permute(graph.context, tensor, 0, 2, 1, 3), stands_for


def flash(library, inputs, threads, kind, by_heads=False):
    """ggml_flash_attn_ext, llama.cpp's default, over keys and values token by token, as llama.cpp caches them; or head
    by head, so that it reads what lies in a row."""
    keys, values, query = inputs.uncompressed
    graph, queries = _graph(library, inputs, threads, 1)
    k, k_values = _cached(graph, kind, keys, by_heads)
    if inputs.is_converted:
        v, v_values = _cached(graph, kind, values, by_heads)
    else:
        # Values are the latents in front of each key, as llama.cpp has them for MLA.
        tokens, width = len(values), values.shape[2]
        row = library.ggml_nbytes(k) // tokens
        v = library.ggml_view_3d(graph.context, k, width, tokens, 1, row, row * tokens, 0)
        v_values = k_values[..., :width]
    result = library.ggml_flash_attn_ext(graph.context, queries, k, v, None, inputs.scale, 0.0, 0.0)
    library.ggml_flash_attn_ext_set_prec(result, PRECISION_F32)  # As llama.cpp does.
    return graph.finish(result, len(query), values.shape[2]), inputs.reference_of(query, k_values, v_values)


def flash_by_heads(library, inputs, threads, kind):
    return flash(library, inputs, threads, kind, by_heads=True)


def products(library, inputs, threads, kind, are_shared=False):
    """Two ggml_mul_mat around ggml_soft_max_ext, as llama.cpp has without flash attention, with values that are cached
    transposed: a product for each query head; or, which llama.cpp has not, one for all those of a KV head."""
    keys, values, query = inputs.uncompressed
    graph, queries = _graph(library, inputs, threads, len(query) // keys.shape[1] if are_shared else 1)
    k, k_values = _cached(graph, kind, keys)
    content = encoded(library, kind, values.transpose(1, 2, 0))
    v = graph.tensor(kind, content, len(values), values.shape[2], values.shape[1])
    v_values = decoded(kind, content, values.transpose(1, 2, 0).shape).transpose(2, 0, 1)
    scores = library.ggml_mul_mat(graph.context, k, queries)
    library.ggml_mul_mat_set_prec(scores, PRECISION_F32)  # As llama.cpp does.
    weights = library.ggml_soft_max_ext(graph.context, scores, None, inputs.scale, 0.0)
    result = library.ggml_mul_mat(graph.context, v, weights)
    return graph.finish(result, len(query), values.shape[2]), inputs.reference_of(query, k_values, v_values)


def shared_products(library, inputs, threads, kind):
    return products(library, inputs, threads, kind, are_shared=True)
