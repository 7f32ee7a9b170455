"""What options need of the model and of the stages before them: pure, and light enough to check a recipe with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.methods.options import (
    AdaptFull,
    AdaptLora,
    EvaluatePerplexity,
    LoadEncoder,
    LoadFull,
    LoadInt8,
    LoadNf4,
)
from recipe_engine.training.encoders import is_causal, is_encoder
from recipe_engine.training.options import TrainReward

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recipe_engine.contract import ModelOutline

EMBEDDINGS = frozenset(
    {"embed_tokens", "embed_positions", "embed_in", "tok_embeddings", "word_embeddings", "wte", "wpe"}
)
"""Last parts of the names that architectures give to their embeddings; a weight's shape does not tell it."""
HEADS = frozenset({"lm_head", "embed_out"})


@dataclass(frozen=True, slots=True)
class Layers:
    """The modules of a model, as far as adapters care.

    Attributes:
        linear: name of each linear layer -> its two widths, in either order.
        modules: names of all modules.
        tied: whether the head is the embedding once more.
        biased: whether any of them has a bias.
    """

    linear: Mapping[str, tuple[int, int]]
    modules: frozenset[str]
    tied: bool
    biased: bool


def outlined_layers(outline: ModelOutline) -> Layers:
    """The modules of a model that is not loaded yet, by the names and shapes of its weights."""
    owners = {name.rpartition(".")[0]: shape for name, shape in outline.tensors.items() if name.endswith(".weight")}
    linear = {
        name: (shape[0], shape[1]) for name, shape in owners.items() if len(shape) == 2 and last(name) not in EMBEDDINGS
    }
    paths = [name.split(".") for name in outline.tensors]
    modules = {".".join(path[:end]) for path in paths for end in range(1, len(path))}
    has_head = any(last(name) in HEADS for name in modules)
    tied = bool(outline.config.get("tie_word_embeddings", not has_head))
    return Layers(linear, frozenset(modules), tied, any(name.endswith(".bias") for name in outline.tensors))


def language_model_fits_outline(_options: Any, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """An encoder where a causal language model is loaded."""
    if not is_encoder(outline.config):
        return []
    message = f"{outline.config['model_type']} is an encoder and no causal language model"
    return [("", message, "Load it with [load.encoder], to train a reward model on it.")]


def encoder_fits_outline(_options: Any, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """A causal language model where an encoder is loaded."""
    if not is_causal(outline.config):
        return []
    message = f"{outline.config.get('model_type')} is a causal language model and no encoder"
    return [("", message, "Load it with [load.full].")]


def lora_fits_outline(options: AdaptLora, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """What of the options does not fit the model; nothing where its files do not tell its weights."""
    found = list(lora_fits(options, outlined_layers(outline))) if outline.tensors else []
    # A file of an encoder seldom has the head that it gets.
    return [finding for finding in found if not (is_encoder(outline.config) and finding[0] == "modules_to_save")]


def lora_fits(options: AdaptLora, layers: Layers) -> Iterator[tuple[str, str, str]]:
    """(key, what is wrong, a hint) for each option of ``adapt.lora`` that does not fit these modules."""
    targets = () if isinstance(options.target_modules, str) else options.target_modules
    for name in targets:
        yield from _target(name, layers)
    for name in options.modules_to_save or ():
        yield from _saved(name, layers)
    if options.bias != "none" and not layers.biased:
        yield "bias", "this model has no biases", "Remove it."
    chosen = [shape for name, shape in layers.linear.items() if is_target(name, options.target_modules)]
    narrowest = min((min(shape) for shape in chosen), default=options.rank)
    if options.changes_base and options.rank > narrowest:
        yield (
            "rank",
            f"{options.init} takes the {options.rank} main directions of each layer, and one has {narrowest}",
            f"Lower it to {narrowest}, or leave layers out of target_modules.",
        )


def lora_clashes(options: AdaptLora, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Options of ``adapt.lora`` that the way in which the model is loaded forbids."""
    load, found = before.get("load"), []
    if "base" in before and options.is_more_than_adapters:
        found.append(("", ON_TOP, "base"))
    if options.new_tokens is not None and isinstance(load, LoadEncoder):
        found.append(("new_tokens", "an encoder keeps the tokens that it has", "load"))
    if options.changes_base and isinstance(load, LoadNf4 | LoadInt8):
        found.append(("init", f"{options.init} changes the weights that it starts from; quantized ones stay", "load"))
    if options.dora and isinstance(load, LoadInt8):
        # PEFT's DoRA and bitsandbytes each move the scales of a layer, and on a CPU they get lost between them.
        found.append(("dora", "it does not work on layers of 8-bit integers", "load"))
    whole = "modules_to_save" if options.modules_to_save else "bias" if options.bias != "none" else ""
    key, dtype = precision(load)
    if whole and dtype != "float32":
        found.append((whole, _NEEDS_FLOAT32.format(key=key), f"load.{key}"))
    return found


def full_clashes(_options: Any, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """``adapt.full`` trains the weights themselves, so they must be able to change a little."""
    load = before.get("load")
    if isinstance(load, LoadFull | LoadEncoder) and load.precision != "float32":
        return [("train_only", _NEEDS_FLOAT32.format(key="dtype"), "load.dtype")]
    return []


def full_fits_outline(options: AdaptFull, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """Names of ``train_only`` that no module of the model has."""
    layers = outlined_layers(outline)
    chosen = options.train_only or () if not is_encoder(outline.config) else ()  # as above
    return [finding for name in chosen for finding in _module("train_only", name, layers)] if outline.tensors else []


def perplexity_fits_outline(options: EvaluatePerplexity, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """A window that is longer than what the model was made for."""
    config = outline.config.get("text_config", outline.config)
    longest = config.get("max_position_embeddings") or config.get("n_positions")
    if options.window and longest and options.window > longest:
        return [("window", f"this model reads {longest} tokens at most", f"Lower it to {longest}.")]
    return []


def reward_clashes(_options: Any, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """A reward model has a head of its own; that of the language model is not used."""
    adapt = before.get("adapt")
    found = []
    for key in ("target_modules", "modules_to_save", "train_only"):
        names = getattr(adapt, key, None)
        heads = [name for name in names or () if not isinstance(names, str) and last(name) in HEADS]
        if heads:
            found.append(("", f"a reward model has no {heads[0]}, which predicts tokens", f"adapt.{key}"))
    return found


def push_clashes(options: Any, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """An adapter is merged into weights, and into weights that are not quantized."""
    if options.merged and isinstance(before.get("load"), LoadNf4 | LoadInt8):
        return [("merged", "an adapter cannot be merged into quantized weights without rounding it away", "load")]
    if options.merged and isinstance(before.get("adapt"), AdaptFull):
        return [("merged", "there is no adapter: the result is a whole model without it", "adapt")]
    if options.merged and isinstance(before.get("train"), TrainReward):
        return [("merged", "a reward model is exported as an adapter, or trained whole with adapt.full", "train")]
    return []


def ppo_clashes(options: Any, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """The policy that writes is the one that learns, and with its adapter off it is what it was before."""
    adapt = before.get("adapt")
    found = list(_vllm_clashes(before)) if options.rollout == "vllm" else []
    if not isinstance(adapt, AdaptLora):
        return found
    if adapt.dropout:
        found.append(("", "it trains without dropout: answers are learned as they were written", "adapt.dropout"))
    if adapt.changes_base:
        message = f"without an adapter of {adapt.init} the model is another than it was, and nothing to be held to"
        found.append(("", message, "adapt.init"))
    if adapt.bias != "none":
        found.append(("", "biases stay changed where the adapter is off: it would be held to itself", "adapt.bias"))
    return found


def _vllm_clashes(before: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """VLLM reads the base once, and then plain low-rank adapters."""
    adapt = before.get("adapt")
    if not isinstance(before.get("load"), LoadFull):
        yield "rollout", "vLLM has the weights as load.full reads them", "load"
    if isinstance(adapt, AdaptFull):
        yield "rollout", "vLLM is told of the changes of an adapter, not of those of all weights", "adapt"
    if isinstance(adapt, AdaptLora):
        for key in ("dora", "modules_to_save", "new_tokens"):
            if getattr(adapt, key):
                yield "rollout", "vLLM reads adapters of low rank and nothing else", f"adapt.{key}"


def groups_clashes(options: Any, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Those of ``train.ppo``, and a head that nothing may be put on."""
    adapt = before.get("adapt")
    found = list(ppo_clashes(options, before))
    for key in ("target_modules", "modules_to_save"):
        names = getattr(adapt, key, None)
        heads = [name for name in names or () if not isinstance(names, str) and last(name) in HEADS]
        if heads:
            found.append(
                ("", f"its loss is computed from {heads[0]} as it was, past what is trained on it", f"adapt.{key}")
            )
    return found


ON_TOP = "bias, modules_to_save, dora, init and new_tokens do not work on top of another recipe's adapter"
_NEEDS_FLOAT32 = (
    "it trains weights of the model itself, which need float32 to take small updates: load with {key} = "
    '"float32", and set mixed_precision = "bf16" in the training for its speed'
)


def precision(load: Any) -> tuple[str, str]:
    """(key, value) of the option that says in which precision the weights of the model are held."""
    if isinstance(load, LoadFull | LoadEncoder):
        return "dtype", load.precision
    if isinstance(load, LoadNf4 | LoadInt8):
        return "compute_dtype", load.precision
    return "", "float32"  # of a plugin: it knows best


def named(names: Iterable[str]) -> str:
    """Last parts of module names, each once: how people call them."""
    return ", ".join(sorted({last(name) for name in names}))


def ends(module: str, name: str) -> bool:
    """Whether a module's dotted name is ``name`` or ends in it."""
    return module == name or module.endswith(f".{name}")


def _target(name: str, layers: Layers) -> Iterator[tuple[str, str, str]]:
    hint = f"Its linear layers are {named(layers.linear)}."
    if last(name) in HEADS and layers.tied:
        yield "target_modules", f"{name} is the embedding once more in this model, which an adapter would part", hint
    elif not any(ends(module, name) for module in layers.linear):
        yield "target_modules", f"no linear layer of this model is named {name}", hint


def _saved(name: str, layers: Layers) -> Iterator[tuple[str, str, str]]:
    if layers.tied and last(name) in HEADS | EMBEDDINGS:
        message = f"{name} is both the embedding and the head of this model; trained apart they would differ"
        yield "modules_to_save", message, "Remove it."
    else:
        yield from _module("modules_to_save", name, layers)


def _module(key: str, name: str, layers: Layers) -> Iterator[tuple[str, str, str]]:
    known = layers.modules | (HEADS if layers.tied else frozenset())  # a tied head has no weights of its own in a file
    if not any(ends(module, name) for module in known):
        yield key, f"no module of this model is named {name}", f"It has {named(layers.modules)}."


def is_target(module: str, targets: str | tuple[str, ...]) -> bool:
    """Whether a linear layer gets an adapter, by its dotted name and what ``target_modules`` says."""
    if isinstance(targets, str):
        return last(module) not in HEADS
    return any(ends(module, name) for name in targets)


def last(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
