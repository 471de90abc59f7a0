//! GGUF's tensor names and row order against Hugging Face's.

/// Hugging Face's name of a tensor, or `None` if a Llama or Qwen2 model has no such tensor there.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (module, kind) = rest.split_once('.')?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{module}.{kind}"))
}

/// Brings rows in interleaved pairs back to half-split order: inside a head of `d` rows, row `2i + j` of the file
/// is row `j*d/2 + i`. `data` is `rows` rows of any length; rows that do not divide into heads stay as they are.
pub(super) fn undo_permutation(data: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let head_dim = rows.checked_div(heads).unwrap_or_default();
    let row_len = data.len().checked_div(rows).unwrap_or_default();
    if row_len == 0 || head_dim == 0 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(heads) {
        return data.to_vec();
    }
    let source_row = |row: usize| {
        let (head, dim) = (row / head_dim, row % head_dim);
        let (half, pair) = (dim / (head_dim / 2), dim % (head_dim / 2));
        head * head_dim + 2 * pair + half
    };
    (0..rows).flat_map(|row| &data[source_row(row) * row_len..][..row_len]).copied().collect()
}
