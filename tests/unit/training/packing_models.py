"""A tiny random model of every family whose rows can lie end to end."""

from __future__ import annotations

from typing import Any

import torch
from tests import tiny

_SIZES: dict[str, Any] = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_OWN_HEADS = {"head_dim": 8}
_WINDOW = {"sliding_window": 16}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# A window so short that rows are longer than it, and scales that no other model has, or a lost one would go unnoticed.
_DIFFERENT: dict[str, dict[str, Any]] = {
    "mistral": _WINDOW,
    "mixtral": _WINDOW | _EXPERTS,
    "qwen2": _WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": _OWN_HEADS | _WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "gemma": _OWN_HEADS,
    "gemma2": _OWN_HEADS
    | _WINDOW
    | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 3},
    "gemma3_text": _OWN_HEADS | _WINDOW | {"query_pre_attn_scalar": 3, "final_logit_softcapping": 3.0},
    "gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "opt": {"ffn_dim": 48, "dropout": 0.0, "word_embed_proj_dim": 24, "do_layer_norm_before": False},
    "granite": {"attention_multiplier": 0.7, "logits_scaling": 3.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.3},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": _WINDOW | {"embedding_dropout": 0.0},
    "phi3": _WINDOW,
}


def tiny_model(family: str, **changed: Any) -> Any:
    """A model of two layers in float32, all of its weights to be trained; with changes to its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **(_SIZES | _DIFFERENT.get(family, {}) | changed))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)
