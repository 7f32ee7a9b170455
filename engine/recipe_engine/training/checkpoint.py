"""Checkpoints: safetensors and JSON, no pickle, whole or not there.

A checkpoint is filled beside its place and renamed into it with a manifest of digests. A killed writer leaves no
checkpoint; a damaged one is passed over for the one before it.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.training.optimizers import kept_state, restore_state
from recipe_registry import sha256_file
from recipe_registry.durable import commit_directory, remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP = 2
_MANIFEST = "checkpoint.json"
_WEIGHTS = "trainable.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_GENERATORS = "generators.safetensors"
_RANDOM = "python_random"


def save(folder: Path, step: int, model: Any, optimizer: Any, documents: Mapping[str, Any], *, needs: int = 0) -> Path:
    """Write everything that the rest of the training depends on.

    Args:
        folder: the work area; older checkpoints in it are removed, :data:`KEEP` stay, and those that these need.
        step: optimizer steps done.
        model: its parameters that require gradients are saved.
        optimizer: an optimizer of torch or bitsandbytes over exactly those parameters.
        documents: whatever else the loop needs: name -> JSON, each a file of its own.
        needs: step of an older checkpoint without which this one is of no use; 0 for none.
    """
    from safetensors.torch import save_file

    trainable = _trainable(model)
    filling = Path(tempfile.mkdtemp(dir=folder, prefix=".filling-"))
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in trainable.items()}
    save_file(weights, filling / _WEIGHTS)
    save_file(_optimizer_tensors(optimizer, trainable), filling / _OPTIMIZER)
    save_file(_generator_states(), filling / _GENERATORS)
    for name, document in {_RANDOM: random.getstate(), **documents}.items():
        (filling / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    digests = {path.name: sha256_file(path) for path in sorted(filling.iterdir())}
    manifest = {"step": step, "needs": needs, "sha256": digests}
    (filling / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    final = of_step(folder, step)
    commit_directory(filling, final)
    _prune(folder)
    return final


def of_step(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, if it is there."""
    return folder / f"step-{step:08d}"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are all right; half-written and damaged ones after it are cleared away.

    A damaged one must go: the training that goes on from the one before comes to the same step and saves it again.
    """
    for torn in folder.glob(".filling-*"):
        shutil.rmtree(torn, ignore_errors=True)
    for path in reversed(_checkpoints(folder)):
        if _is_intact(path):
            return path
        remove_tree(path)
    return None


def read_document(checkpoint: Path, name: str) -> Any:
    """One of the documents that :func:`save` was given."""
    return json.loads((checkpoint / f"{name}.json").read_text(encoding="utf-8"))


def restore_model(checkpoint: Path, model: Any) -> None:
    """Put the weights that are trained back, bit for bit."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(checkpoint / _WEIGHTS)
    with torch.no_grad():
        for name, parameter in _trainable(model).items():
            parameter.copy_(weights[name])


def restore_model_and_optimizer(checkpoint: Path, model: Any, optimizer: Any) -> None:
    """Put weights and optimizer state back, bit for bit."""
    from safetensors.torch import load_file

    restore_model(checkpoint, model)
    saved = load_file(checkpoint / _OPTIMIZER)
    states: dict[Any, dict[str, Any]] = {}
    for name, parameter in _trainable(model).items():
        prefix = f"{name}:"
        states[parameter] = {
            key.removeprefix(prefix): tensor for key, tensor in saved.items() if key.startswith(prefix)
        }
    restore_state(optimizer, states)


def restore_generators(checkpoint: Path) -> None:
    """Put the state of all random generators back: the very last thing before the next step."""
    import torch
    from safetensors.torch import load_file

    states = load_file(checkpoint / _GENERATORS)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    version, internal, gauss = read_document(checkpoint, _RANDOM)
    random.setstate((version, tuple(internal), gauss))


def _trainable(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _optimizer_tensors(optimizer: Any, trainable: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}:{key}": tensor.detach().cpu().contiguous()
        for name, parameter in trainable.items()
        for key, tensor in kept_state(optimizer.state[parameter]).items()
    }


def _generator_states() -> dict[str, Any]:
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _prune(folder: Path) -> None:
    """Remove old checkpoints. What those that stay need stays too, as any of them may turn out to be damaged."""
    present = _checkpoints(folder)
    needed = {of_step(folder, _manifest(path)["needs"]) for path in present[-KEEP:]}
    for old in present[:-KEEP]:
        if old not in needed:
            remove_tree(old)


def _is_intact(checkpoint: Path) -> bool:
    """Whether its bytes are all right, and those of the checkpoint that it needs."""
    try:
        manifest = _manifest(checkpoint)
        needed = of_step(checkpoint.parent, manifest["needs"])
        return _is_whole(checkpoint) and (not manifest["needs"] or _is_whole(needed))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_whole(checkpoint: Path) -> bool:
    return all(sha256_file(checkpoint / name) == digest for name, digest in _manifest(checkpoint)["sha256"].items())


def _manifest(checkpoint: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
    return manifest
