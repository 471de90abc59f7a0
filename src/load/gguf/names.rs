//! GGUF's tensor names against Hugging Face's.

/// llama.cpp's table of divisors of the rotation's frequencies, one per pair.
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The layer that a tensor belongs to.
pub(super) fn layer(name: &str) -> Option<usize> {
    let (layer, _) = in_layer(name)?;
    Some(layer)
}

/// The layer and what stands behind it.
fn in_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // `00` would be a second name of layer 0.
    let number = layer.parse::<usize>().ok().filter(|number| number.to_string() == layer)?;
    Some((number, rest))
}

/// Hugging Face's name of a tensor, or `None` if a Llama or Qwen2 model has no such tensor there.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = in_layer(name)?;
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
