//! GGUF's tensor names against Hugging Face's.

use crate::load::families::GgufLayers;

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

/// Hugging Face's name of a tensor, or `None` if models of this kind have no such tensor there. What the converter stacks or
/// splits has the name that its tensors would have together, or in parts.
pub(super) fn hugging_face(name: &str, layers: GgufLayers) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = in_layer(name)?;
    let (module, kind) = rest.split_once('.')?;
    if layers == GgufLayers::Latent {
        return in_latent_layer(module, kind).map(|name| format!("model.layers.{layer}.{name}"));
    }
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" if layers == GgufLayers::HeadNorms => "self_attn.q_norm",
        "attn_k_norm" if layers == GgufLayers::HeadNorms => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{module}.{kind}"))
}

/// The name of a tensor inside a layer of DeepSeek's models.
fn in_latent_layer(module: &str, kind: &str) -> Option<String> {
    if (module, kind) == ("exp_probs_b", "bias") {
        return Some("mlp.gate.e_score_correction_bias".into());
    }
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_q_a" => "self_attn.q_a_proj",
        "attn_q_a_norm" => "self_attn.q_a_layernorm",
        "attn_q_b" => "self_attn.q_b_proj",
        "attn_kv_a_mqa" => "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm" => "self_attn.kv_a_layernorm",
        "attn_k_b" => "self_attn.k_b_proj",
        "attn_v_b" => "self_attn.v_b_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_gate_inp" => "mlp.gate",
        "ffn_gate_exps" => "mlp.experts.gate_proj",
        "ffn_up_exps" => "mlp.experts.up_proj",
        "ffn_down_exps" => "mlp.experts.down_proj",
        "ffn_gate_shexp" => "mlp.shared_experts.gate_proj",
        "ffn_up_shexp" => "mlp.shared_experts.up_proj",
        "ffn_down_shexp" => "mlp.shared_experts.down_proj",
        _ => return None,
    };
    // The converter writes biases too, which llama.cpp does not load.
    (kind == "weight").then(|| format!("{module}.weight"))
}
