"""Which models are encoders: each of their tokens sees those after it, so they read texts and write none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.layout import PACKED_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODER_FAMILIES = frozenset(
    {
        *("albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie"),
        *("esm", "eurobert", "modernbert", "mpnet", "nomic_bert", "roberta", "roberta-prelayernorm", "xlm-roberta"),
        "xlm-roberta-xl",
    }
)
"""``model_type`` of architectures that are known to be encoders before transformers is imported; of others it is found
out when they are loaded."""
_CAUSAL = "ForCausalLM"


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a model is certainly an encoder; some of their architectures can be told to look back only.

    Args:
        config: the model's config.json; it may be empty.
    """
    looks_back = any(config.get(name) for name in ("is_decoder", "is_encoder_decoder", "causal"))
    return config.get("model_type") in ENCODER_FAMILIES and not looks_back


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a model is certainly a causal language model; argument as in :func:`is_encoder`."""
    names = config.get("architectures") or ()
    named_so = any(str(name).endswith(_CAUSAL) for name in names) and not is_encoder(config)
    return config.get("model_type") in PACKED_FAMILIES or named_so
