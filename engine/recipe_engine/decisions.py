"""What options that say ``auto`` stand for, decided before a key is made by the device and by a model's files.

No decision looks at what is free, at rows, or at what ran before: a plan and every run of it come to the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipe_engine.device_memory import gpu_capability
from recipe_engine.estimate.fitting import device_memory, recomputes
from recipe_engine.estimate.parts import LOADS
from recipe_engine.lock import computes_in_bfloat16
from recipe_engine.methods.fits import precision
from recipe_engine.options import fields_of
from recipe_engine.training.options import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recipe_engine.contract import ModelOutline
    from recipe_engine.lock import Hardware
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node

Decisions = Mapping[str, Mapping[str, Any]]

_AUTO = "auto"
_COMPUTES_IN_BFLOAT16 = (8, 0)
_RECOMPUTES = "gradient_checkpointing"


def on_device(
    nodes: Iterable[Node], recipe: Recipe, hardware: Hardware, recorded: Decisions | None = None
) -> tuple[Node, ...]:
    """The nodes with what follows from the device alone: in what precision weights are held and products computed.

    Args:
        nodes: of the recipe.
        recipe: the recipe.
        hardware: what computes it; of several GPUs the oldest counts.
        recorded: node -> what was decided of it in a run that is made again, whatever follows from this device.
    """
    quick, on_gpu = _half_precision(hardware), hardware.device == "cuda"

    def decided(node: Node) -> Node:
        options, found = _precisions(node, part_of(node, recipe), quick, on_gpu=on_gpu)
        undecided = {*found, _RECOMPUTES} if is_undecided(node, recipe) else {*found}
        then = {name: value for name, value in (recorded or {}).get(node.id, {}).items() if name in undecided}
        return _with(node, options, found | then)

    return tuple(decided(node) for node in nodes)


def is_undecided(node: Node, recipe: Recipe) -> bool:
    """Whether it takes the model's files to say what its options mean."""
    options = _options(node, part_of(node, recipe))
    return isinstance(options, Training) and options.gradient_checkpointing == _AUTO


def on_model(node: Node, recipe: Recipe, device: str, outline: ModelOutline) -> Node:
    """The node with what follows from the model too: whether activations are computed again.

    Args:
        node: of the recipe.
        recipe: the recipe.
        device: ``cpu`` or ``cuda``.
        outline: of its model, whose files are all here.
    """
    if not is_undecided(node, recipe) or _RECOMPUTES in node.decided:
        return node
    part = part_of(node, recipe)
    chosen = recomputes(part, outline, device_memory(part, device))
    return node if chosen is None else _with(node, _options(node, part), {_RECOMPUTES: chosen})


def told(node: Node, recipe: Recipe) -> dict[str, str]:
    """What the plan says of a node's decisions: those that are not what they mostly are, and whether it recomputes."""
    plain = _plain(_options(node, part_of(node, recipe)))
    chosen = {name: value for name, value in node.decided.items() if name == _RECOMPUTES or value != plain[name]}
    return {name: str(value).lower() for name, value in chosen.items()}


def slow_precision(node: Node, hardware: Hardware) -> str:
    """What there is to say of a precision in which a processor is slow; ``""`` where the recipe asks for none."""
    if hardware.device == "cuda" or _half_precision(hardware):
        return ""
    slow = {"load": {"dtype": "bfloat16", "compute_dtype": "bfloat16"}, "train": {"mixed_precision": "bf16"}}
    said = {key: value for key, value in node.options.items() if key not in node.decided}
    asked = next((key for key, value in slow.get(node.stage, {}).items() if said.get(key) == value), None)
    if asked is None:
        return ""
    return f"this processor does not multiply in bfloat16, which takes several times as long: leave out {asked}"


def part_of(node: Node, recipe: Recipe) -> Recipe:
    """The recipe that a node belongs to: the run's own, or one that it builds on."""
    name = node.id.rpartition("/")[0]
    return next(part for part in recipe.parts() if (part.name if part is not recipe else "") == name)


def _half_precision(hardware: Hardware) -> str:
    """What the device computes in quickly that has 16 bits, ``""`` for none; one that does not tell is no old one."""
    if hardware.device == "cuda":
        capability = gpu_capability()
        return "float16" if capability and capability < _COMPUTES_IN_BFLOAT16 else "bfloat16"
    return "bfloat16" if computes_in_bfloat16(hardware.flags) or not hardware.flags else ""


def _precisions(node: Node, part: Recipe, quick: str, *, on_gpu: bool) -> tuple[Any, dict[str, Any]]:
    """The options of a node's method, and what those that are about precision stand for."""
    options = _options(node, part)
    if isinstance(options, LOADS):
        key, _ = precision(options)
        return options, {key: _held(part, quick)} if getattr(options, key) == _AUTO else {}
    if isinstance(options, Training) and options.mixed_precision == _AUTO:
        return options, {"mixed_precision": "fp16" if on_gpu and _loaded(part, quick) == "float16" else "no"}
    return options, {}


def _held(part: Recipe, quick: str) -> str:
    """In float16 gradients vanish unless the loss is scaled, so that is for trainings that do so alone."""
    train = part.train.options if part.train else None
    scales = train is None or (isinstance(train, Training) and train.mixed_precision in (_AUTO, "fp16"))
    return quick if quick == "bfloat16" or (quick == "float16" and scales) else "float32"


def _loaded(part: Recipe, quick: str) -> str:
    options = part.load.options if part.load else None
    key, held = precision(options)
    return _held(part, quick) if key and getattr(options, key) == _AUTO else held


def _options(node: Node, part: Recipe) -> Any:
    table = {"load": part.load, "train": part.train}.get(node.stage)
    return table.options if table else None


def _with(node: Node, options: Any, decided: Mapping[str, Any]) -> Node:
    if not decided:
        return node
    plain = _plain(options)
    changed = {name: value for name, value in node.changed_options.items() if name not in decided}
    changed |= {name: value for name, value in decided.items() if value != plain[name]}
    return replace(
        node,
        options={**node.options, **decided},
        changed_options=changed,
        decided={**node.decided, **decided},
    )


def _plain(options: Any) -> dict[str, Any]:
    return {field.name: field.about.plain for field in fields_of(type(options))} if options is not None else {}
