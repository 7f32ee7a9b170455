"""A model as programs read it that know one adapter at a time: its base, and all of its adapters as one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.training.adapters import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from pathlib import Path


def write_base(model: Any, folder: Path) -> None:
    """Write a model without its adapters, as ``from_pretrained`` reads it.

    Args:
        model: with adapters of PEFT's in its layers.
        folder: where it goes.
    """
    base = model.get_base_model()
    tensors = {
        name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if ".lora_" not in name
    }
    base.save_pretrained(folder, state_dict=tensors)


def write_joined_adapter(model: Any, folder: Path) -> int:
    """Write the sum of a model's active adapters as one adapter in PEFT's format.

    s1 B1 A1 + s2 B2 A2 = [s1 B1, s2 B2] [A1; A2], which is exact. Layers that have fewer of them are filled with zeros,
    as one adapter has one rank.

    Args:
        model: with plain low-rank adapters: nothing but A and B.
        folder: where the two files go; what is there is overwritten.

    Returns:
        The rank.
    """
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import save_file

    layers = {name: _joined(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    rank: int = max(first.shape[0] for first, _ in layers.values())
    tensors = {}
    for name, (first, second) in layers.items():
        missing = rank - first.shape[0]
        tensors[f"{name}.lora_A.weight"] = torch.nn.functional.pad(first, (0, 0, 0, missing)).contiguous()
        tensors[f"{name}.lora_B.weight"] = torch.nn.functional.pad(second, (0, missing)).contiguous()
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(name.removeprefix("base_model.model.") for name in layers),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return rank


def _joined(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A of (sum of ranks, in) and B of (out, sum of ranks), the latter scaled, of a layer's active adapters."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    firsts = [layer.lora_A[name].weight.detach() for name in names]
    seconds = [layer.lora_B[name].weight.detach() * layer.scaling[name] for name in names]
    return torch.cat(firsts), torch.cat(seconds, dim=1)
