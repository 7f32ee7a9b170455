"""What of a model decides how much memory it takes: counts and widths, from its configuration and weight headers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.methods.fits import HEADS, is_target, last, outlined_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.contract import ModelOutline
    from recipe_engine.methods.options import AdaptLora


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """A decoder, as far as its memory is concerned.

    Attributes:
        hidden: width of the residual stream.
        inner: width within the feed-forward layer.
        layers: decoder layers.
        heads: of the attention.
        keys: width of all key heads together; that of the values too.
        vocabulary: rows of the embedding.
        gated: whether the feed-forward layer has a gate, which is a third product.
        wide_norms: whether norms that are not trained keep float32 too, as those of Gemma do.
        linear: name of each linear layer but the head -> its two widths.
        others: numbers of all other weights: embedding, head, norms, biases.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    keys: int
    vocabulary: int
    gated: bool
    wide_norms: bool
    linear: Mapping[str, tuple[int, int]]
    others: int

    @property
    def linear_numbers(self) -> int:
        """Weights of the linear layers, without the head."""
        return sum(one * other for one, other in self.linear.values())

    @property
    def largest_linear(self) -> int:
        """Weights of the largest of them."""
        return max((one * other for one, other in self.linear.values()), default=0)

    def targets(self, options: AdaptLora) -> dict[str, tuple[int, int]]:
        """The linear layers that get an adapter."""
        return {name: widths for name, widths in self.linear.items() if is_target(name, options.target_modules)}


def shapes_of(outline: ModelOutline) -> Shapes | None:
    """The shapes of a model; ``None`` where its files do not tell them: not fetched yet, quantized, another kind."""
    config = _text_config(outline.config)
    names = {
        "hidden": ("hidden_size", "n_embd"),
        "layers": ("num_hidden_layers", "n_layer"),
        "heads": ("num_attention_heads", "n_head"),
        "vocabulary": ("vocab_size",),
    }
    found = {name: _first(config, keys) for name, keys in names.items()}
    if not outline.tensors or None in found.values() or any(name.endswith(".quant_map") for name in outline.tensors):
        return None
    hidden, heads = int(found["hidden"]), int(found["heads"])
    width = _first(config, ("head_dim",)) or hidden // heads
    linear = {name: widths for name, widths in outlined_layers(outline).linear.items() if last(name) not in HEADS}
    total = sum(math.prod(shape) for shape in outline.tensors.values())
    return Shapes(
        hidden=hidden,
        inner=int(_first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden),
        layers=int(found["layers"]),
        heads=heads,
        keys=int((_first(config, ("num_key_value_heads",)) or heads) * width),
        vocabulary=int(found["vocabulary"]),
        gated=any(last(name) == "gate_proj" for name in linear),
        wide_norms=str(config.get("model_type")).startswith("gemma"),
        linear=linear,
        others=total - sum(one * other for one, other in linear.values()),
    )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part on the language model, where the model can do more."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None)
