"""From hidden states to logits, as a model itself goes there, and how many of them are there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Callable

# 64 MiB of logits in float32; with a vocabulary of 128k that is 128 positions.
LOGITS_AT_ONCE = 2**24


def head_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns hidden states (positions, width) into logits (positions, vocabulary), as the model itself does.

    Args:
        model: a causal language model of transformers, without a wrapper around it.
    """
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    project = model.get_output_embeddings()

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits = project(hidden)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits * scale if scale != 1.0 else logits

    return head


def positions_at_once(model: Any) -> int:
    """Positions whose logits are computed at once, in a chunk of bounded memory."""
    return max(1, LOGITS_AT_ONCE // int(model.config.get_text_config().vocab_size))
