"""How the rows of a micro-batch lie in memory: end to end without padding, or side by side and padded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Layout = Literal["packed", "padded"]

PACKED_FAMILIES = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
        *("gpt2", "gpt_neox", "opt", "olmo", "olmo2", "granite", "cohere", "smollm3", "starcoder2"),
    }
)
"""``model_type`` of the architectures that call transformers' registry of attention functions with everything that
their attention needs. Each is compared with its padded self in the tests; in others rows would leak into each other, or
part of the attention would be missing."""


def layout_of(config: Mapping[str, Any], wanted: Literal["auto", "padded"] = "auto") -> Layout:
    """The layout that a model is trained in.

    Args:
        config: the model's config.json.
        wanted: ``auto`` for packed wherever the architecture can.
    """
    return "packed" if wanted == "auto" and config.get("model_type") in PACKED_FAMILIES else "padded"
