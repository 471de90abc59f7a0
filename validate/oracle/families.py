"""The tiny model of each family: its transformers class and the configuration that it is built from."""

FRAME = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
LATENT = dict(
    FRAME,
    num_key_value_heads=4,
    kv_lora_rank=12,
    q_lora_rank=10,
    qk_rope_head_dim=8,
    qk_nope_head_dim=6,
    v_head_dim=6,
)
# Two experts of four, in one group, in the families that route tokens.
EXPERTS = {
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
# Eight experts in four groups, of which two take part in the choice of three.
GROUPS = dict(EXPERTS, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2)
DENSE = dict(FRAME, num_key_value_heads=2, head_dim=8)
# For the ways of scaling a rotation, which all layers have alike.
ONE_LAYER = dict(DENSE, num_hidden_layers=1)
# A stretched context: rotation frequencies, cosines and sines, and the softmax's scale all change.
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# All positions that are computed lie within the original context, where the short factors hold.
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0}
LONGROPE_OF_FOUR_PAIRS = dict(
    LONGROPE,
    original_max_position_embeddings=100010,
    short_factor=[1.1, 1.2, 1.5, 3.0],
    long_factor=[2.0, 2.5, 3.0, 4.0],
)
# Nothing is scaled up to `max_position_embeddings`, before which all positions lie.
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


def dense_mlps(layers=2):
    """Keys with which all layers have a dense MLP, in the families that count them."""
    return {"first_k_dense_replace": layers}


# name of the folder: (class in transformers, its configuration)
FAMILIES = {
    "llama": ("LlamaForCausalLM", dict(DENSE, attention_bias=True, rope_parameters=LLAMA3)),
    "qwen2": ("Qwen2ForCausalLM", {k: v for k, v in DENSE.items() if k != "head_dim"}),
    "qwen3": ("Qwen3ForCausalLM", dict(DENSE)),
    "qwen3_yarn": ("Qwen3ForCausalLM", dict(ONE_LAYER, rope_parameters=YARN)),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        dict(DENSE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, norm_topk_prob=True),
    ),
    "llama_yarn": ("LlamaForCausalLM", dict(ONE_LAYER, rope_parameters=YARN)),
    "llama_longrope": (
        "LlamaForCausalLM",
        dict(
            ONE_LAYER,
            rope_parameters=LONGROPE_OF_FOUR_PAIRS,
        ),
    ),
    "qwen2_yarn": (
        "Qwen2ForCausalLM",
        {k: v for k, v in ONE_LAYER.items() if k != "head_dim"}
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            }
        },
    ),
    "qwen2_dynamic": (
        "Qwen2ForCausalLM",
        {k: v for k, v in ONE_LAYER.items() if k != "head_dim"} | {"rope_parameters": DYNAMIC},
    ),
    "glm4_yarn": ("Glm4ForCausalLM", dict(ONE_LAYER, head_dim=16, rope_parameters=YARN)),
    "mistral": ("MistralForCausalLM", dict(DENSE, sliding_window=None, tie_word_embeddings=True)),
    "deepseek_v2": ("DeepseekV2ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps(), q_lora_rank=None)),
    "deepseek_v3": ("DeepseekV3ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps(), attention_bias=True)),
    "deepseek_v3_yarn": (
        "DeepseekV3ForCausalLM",
        dict(LATENT, **EXPERTS, **dense_mlps(1), q_lora_rank=None, rope_interleave=False, rope_parameters=YARN),
    ),
    "deepseek_v2_groups": (
        "DeepseekV2ForCausalLM",
        dict(
            LATENT, **GROUPS, **dense_mlps(1), topk_method="group_limited_greedy", routed_scaling_factor=3.0, mlp_bias=True
        ),
    ),
    "deepseek_v3_groups": (
        "DeepseekV3ForCausalLM",
        dict(LATENT, **dict(GROUPS, n_shared_experts=2), **dense_mlps(0), routed_scaling_factor=1.5),
    ),
    "deepseek_v3_fp8": ("DeepseekV3ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps())),
    "deepseek_v3_ue8m0": ("DeepseekV3ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps())),
    "axk1": ("AXK1ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps(1), rope_parameters=YARN)),
    "axk2": (
        "AXK2ForCausalLM",
        dict(
            LATENT,
            **EXPERTS,
            mlp_layer_types=["dense", "sparse"],
            index_topk=16,
            index_head_dim=8,
            index_n_heads=2,
            gated_norm_rank=4,
            rope_parameters=YARN,
        ),
    ),
    "youtu": ("YoutuForCausalLM", dict(LATENT, tie_word_embeddings=True)),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", dict(LATENT, **EXPERTS)),
    "sarvam_mla": ("DeepseekV3ForCausalLM", dict(LATENT, **EXPERTS, **dense_mlps(1), rope_parameters=YARN)),
    "minicpm3": (
        "MiniCPM3ForCausalLM",
        dict(LATENT, tie_word_embeddings=True, scale_emb=12, scale_depth=1.4, dim_model_base=8, attention_bias=True),
    ),
    "mistral4": (
        "Mistral4ForCausalLM",
        dict(
            LATENT,
            **EXPERTS,
            **dense_mlps(),
            rope_parameters=dict(YARN, mscale_all_dim=1.0, llama_4_scaling_beta=0.1),
        ),
    ),
    "mistral4_groups": (
        "Mistral4ForCausalLM",
        dict(
            LATENT,
            **GROUPS,
            **dense_mlps(1),
            routed_scaling_factor=2.0,
            rope_parameters=dict(YARN, mscale_all_dim=1.0, llama_4_scaling_beta=0.1),
        ),
    ),
    "longcat_flash": (
        "LongcatFlashForCausalLM",
        {k: v for k, v in LATENT.items() if k not in ("num_hidden_layers", "intermediate_size", "num_key_value_heads")}
        | {
            "num_layers": 1,
            "ffn_hidden_size": 24,
            "expert_ffn_hidden_size": 8,
            "moe_topk": 2,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "head_dim": 8,
        },
    ),
    "deepseek_v32": (
        "DeepseekV32ForCausalLM",
        dict(LATENT, **GROUPS, **dense_mlps(1), index_topk=16, index_head_dim=8, index_n_heads=2, rope_parameters=YARN),
    ),
    "glm_moe_dsa": (
        "GlmMoeDsaForCausalLM",
        dict(
            LATENT,
            **GROUPS,
            **dense_mlps(1),
            index_topk=16,
            index_head_dim=8,
            index_n_heads=2,
            indexer_types=["full", "shared"],
        ),
    ),
    "ministral": ("MinistralForCausalLM", dict(DENSE, sliding_window=4, layer_types=["full_attention"] * 2)),
    "phi3": (
        "Phi3ForCausalLM",
        dict(
            FRAME,
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        ),
    ),
    "phi3_longrope": (
        "Phi3ForCausalLM",
        dict(
            FRAME,
            num_key_value_heads=2,
            original_max_position_embeddings=100010,
            rope_parameters=dict(LONGROPE, short_factor=[1.5, 3.0], long_factor=[2.0, 4.0], partial_rotary_factor=0.5),
        ),
    ),
    "minicpm3_longrope": (
        "MiniCPM3ForCausalLM",
        dict(
            LATENT,
            dim_model_base=8,
            rope_parameters=LONGROPE_OF_FOUR_PAIRS,
        ),
    ),
    "granite": (
        "GraniteForCausalLM",
        dict(
            {k: v for k, v in DENSE.items() if k != "head_dim"},
            attention_bias=True,
            mlp_bias=True,
            attention_multiplier=0.5,
            embedding_multiplier=6.0,
            residual_multiplier=0.4,
            logits_scaling=3.0,
            tie_word_embeddings=True,
        ),
    ),
    "smollm3": (
        "SmolLM3ForCausalLM",
        # The factor that YaRN has on cosines and sines is none of the layer's that does not rotate.
        {k: v for k, v in DENSE.items() if k != "head_dim"} | {"no_rope_layer_interval": 2, "rope_parameters": YARN},
    ),
    "gemma": ("GemmaForCausalLM", dict(ONE_LAYER, tie_word_embeddings=True)),
    "gemma2": (
        "Gemma2ForCausalLM",
        # A window as long as the context hides nothing, and there is no soft cap.
        dict(
            DENSE,
            tie_word_embeddings=True,
            query_pre_attn_scalar=24,
            attn_logit_softcapping=None,
            sliding_window=131072,
        ),
    ),
    "glm4": ("Glm4ForCausalLM", dict(DENSE)),
    "bailing_hybrid": (
        "BailingHybridForCausalLM",
        {k: v for k, v in LATENT.items() if k != "num_hidden_layers"}
        | {
            "num_hidden_layers": 3,
            "layer_group_size": 2,
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "mlp_layer_types": ["dense"] * 3,
            "head_dim": 4,
            "moe_intermediate_size": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "rope_parameters": YARN,
        },
    ),
    "kimi_linear": (
        "KimiLinearForCausalLM",
        {k: v for k, v in LATENT.items() if k != "num_hidden_layers"}
        | {
            "q_lora_rank": None,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "mlp_layer_types": ["dense", "dense", "sparse"],
            "linear_head_dim": 4,
            "linear_num_heads": 2,
            "linear_conv_kernel_dim": 2,
            "moe_intermediate_size": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
}

# Rows and columns of a block, and how its factor is stored, of those whose weights are quantised after all. Blocks do not
# divide the matrices, so transformers cannot read them (findings/fp8-blocks-from-the-grid.sh).
FP8 = {
    "deepseek_v3_fp8": ([16, 16], "float"),
    "deepseek_v3_ue8m0": ([8, 24], "ue8m0"),
}
