"""Every causal language model class of the installed transformers, small enough to run in a moment."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tests.models.tiny_networks import shaken

LIMIT = 3_000_000
"""More weights than this are not tiny: the configuration has a name for some size that is not known here."""
SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "hidden_dim", "emb_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "d_inner", "n_inner", "ffn_hidden_size"), 48),
    **dict.fromkeys(("dense_intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts", "num_key_value_heads"), 2),
    **dict.fromkeys(("moe_intermediate_size", "expert_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "bos_token_id"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim", "query_pre_attn_scalar"), 16),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    "num_decoder_layers": 2, "vocab_size": 97, "word_embed_proj_dim": 32, "pad_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
LATENT = {
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16,
    "num_key_value_heads": 4, "num_attention_heads": 4,
}  # fmt: skip
SPARSE = LATENT | {"index_topk": 6, "index_head_dim": 16, "index_n_heads": 16}
"""Fewer keys than rows are long, and enough index heads that few scores are equal."""
ALTERNATING = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
DELTA = ALTERNATING | {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
WINDOWED = {"num_hidden_layers": 4, "sliding_window": 8}
BOTH = WINDOWED | {"layer_types": ["sliding_attention", "full_attention"] * 2}
MIXER = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
HYBRID = {"num_hidden_layers": 5, "layers_block_type": ["mamba", "hybrid"] * 2 + ["mamba"], "mamba_d_state": 8}
SHORT = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
DECODER = {"is_decoder": True}

SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "youtu"), LATENT),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa"), SPARSE),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid"), DELTA),
    **dict.fromkeys(("lfm2", "lfm2_moe"), SHORT),
    **dict.fromkeys(("cohere2", "exaone4", "olmo3"), WINDOWED),
    **{kind: {"sliding_window": 8} for kind in ("gemma2", "mistral", "gpt_oss")},
    **dict.fromkeys(("bert", "bert-generation", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"), DECODER),
    **dict.fromkeys(("rembert", "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl"), DECODER),
    **{kind: {"state_size": 8} for kind in ("mamba", "falcon_mamba")},
    "minicpm3": LATENT | {"head_dim": 16},
    "dots3_note_text": SPARSE | {"shared_experts_intermediate_size": 16, "head_dim": 16},
    "bailing_hybrid": LATENT | {"num_hidden_layers": 4, "layer_group_size": 2},
    "kimi_linear": LATENT | ALTERNATING | {"linear_head_dim": 8, "linear_num_heads": 4},
    "longcat_flash": LATENT | {"expert_ffn_hidden_size": 16, "zero_expert_num": 2},
    "bamba": MIXER | {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "granitemoehybrid": MIXER | {
        "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 16,
    },
    "falcon_h1": MIXER | {"mamba_d_ssm": 64},
    "nemotron_h": {
        "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "chunk_size": 8, "n_groups": 2, "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "attention", "mamba", "mlp"],
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "zamba": HYBRID | {"attention_head_dim": 16, "num_key_value_heads": 4},
    "zamba2": HYBRID | {"n_mamba_heads": 8, "chunk_size": 8, "adapter_rank": 4, "mamba_headdim": 8, "num_key_value_heads": 4},
    "codegen": {"rotary_dim": 4}, "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lfm3": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "sliding_attention"], "sliding_window": 8},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 8},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
    "gemma3n_text": BOTH | {
        "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4,
    },
    "gemma4_text": BOTH | {
        "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8, "num_experts": None,
        "top_k_experts": None, "moe_intermediate_size": None,
    },
    "gemma4_unified_text": BOTH,
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
    "minimax": ALTERNATING | {"block_size": 8},
    "minimax_m3_vl_text": {
        "num_hidden_layers": 3, "layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"], "index_head_dim": 8,
        "index_n_heads": 2, "index_block_size": 2, "index_topk_blocks": 2,
    },
    "deepseek_v4": {
        "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}, "sliding_window": 6,
        "index_topk": 3, "index_head_dim": 8, "index_n_heads": 16, "num_hidden_layers": 3,
    },
    "hy_v4": {"index_topk": 6}, "llama4_text": {"attention_chunk_size": 8},
    "roc_bert": DECODER | {"pronunciation_vocab_size": 97, "shape_vocab_size": 97},
    "reformer": DECODER | {"axial_pos_embds": False},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "big_bird": DECODER | {"attention_type": "original_full"}, "bigbird_pegasus": {"attention_type": "original_full"},
}  # fmt: skip


def kinds() -> list[str]:
    """The `model_type` of every causal language model that transformers can make."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(kind: str, **more: Any) -> Any:
    """A small config of a kind; of one that holds a language model beside others, small where the language model is said."""
    from transformers import AutoConfig

    cls = type(AutoConfig.for_model(kind))
    named = _known(cls) | SPECIAL.get(kind, {}) | more
    inner = getattr(cls, "sub_configs", None) or {}
    place = next((key for key in ("text_config", "decoder") if dataclasses.is_dataclass(inner.get(key))), None)
    if place is not None:
        named[place] = _known(inner[place]) | SPECIAL.get(inner[place].model_type, {})
    return cls(**named)


def _known(cls: type) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return {k: v for k, v in SMALL.items() if k in names}


def tiny(kind: str, **more: Any) -> Any:
    """A random network of a kind, every weight moved off its initial value; ValueError where it would not be tiny."""
    from transformers import AutoModelForCausalLM

    config = tiny_config(kind, **more)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LIMIT:
        raise ValueError(f"{size} weights")
    torch.manual_seed(0)
    return shaken(AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval())
