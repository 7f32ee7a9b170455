"""Adapters in PEFT's format, written so that equal adapters are equal bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
OWN_WEIGHTS_FILE = "adapter_as_trained.safetensors"
"""The adapter on a base that gave a part of its weights to it; of no use to anybody without that base."""
ADAPTER = "default"
"""PEFT's name of the adapter that is trained; those below it have other names."""


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write the adapter of a PEFT model.

    PEFT's own ``save_pretrained`` lists sets in hash order and names the base by a local path; this does neither.

    Args:
        model: a PEFT model.
        folder: where the two files go.
        base: what the configuration calls the base model.
    """
    _write(adapter_tensors(model), folder / WEIGHTS_FILE)
    _write_config(model, folder, base)


def save_as_plain_adapter(model: Any, folder: Path, base: str, initial: Mapping[str, Any]) -> None:
    """Write an adapter that was given a part of the base's weights, so that it works on the untouched base.

    With the first state of the adapter taken out of the base, W + dW = (W - s B0 A0) + s B A, so the change is
    dW = s [B, -B0] [A; A0]: an adapter of twice the rank (Meng et al., 2024: PiSSA, appendix C).

    Args:
        model: a PEFT model; its base was changed by :func:`take_out_of_base`.
        folder: where the two files of the plain adapter go, and the adapter as it is beside them.
        base: what the configuration calls the base model.
        initial: the adapter's tensors as they were before the training.
    """
    import torch

    trained = adapter_tensors(model)
    _write(trained, folder / OWN_WEIGHTS_FILE)
    plain = dict(trained)
    for name, tensor in trained.items():
        if ".lora_A." in name:
            plain[name] = torch.cat([tensor, initial[name]], dim=0)
        elif ".lora_B." in name:
            plain[name] = torch.cat([tensor, -initial[name]], dim=1)
    _write(plain, folder / WEIGHTS_FILE)
    config = model.peft_config[ADAPTER]
    # The scale, alpha / rank or alpha / sqrt(rank), stays what it was.
    alpha = config.lora_alpha * (2**0.5 if config.use_rslora else 2)
    _write_config(model, folder, base, r=2 * config.r, lora_alpha=alpha, init_lora_weights=True)


def load_adapter_weights(model: Any, folder: Path, *, others: frozenset[str] = frozenset()) -> None:
    """Put saved weights into the adapter that ``model`` has already.

    Args:
        model: a PEFT model.
        folder: of the adapter.
        others: tensors of the file that are none of the adapter's.

    Raises:
        ValueError: where names or shapes do not match: the artifact is of another adapter.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    own = folder / OWN_WEIGHTS_FILE
    saved = load_file(own if own.exists() else folder / WEIGHTS_FILE)
    tensors = {name: tensor for name, tensor in saved.items() if name not in others}
    expected = {(name, tensor.shape) for name, tensor in _state(model).items()}
    different = {name for name, _ in expected ^ {(name, tensor.shape) for name, tensor in tensors.items()}}
    if different:
        raise ValueError(f"{folder} holds another adapter: {len(different)} tensors differ")
    set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER)


def adapter_tensors(model: Any) -> dict[str, Any]:
    """The adapter's tensors by PEFT's names, sorted: copies on the CPU."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in sorted(_state(model).items())}


def start_from_base(model: Any, init: str) -> None:
    """Fill the adapter with the main directions of each weight below it, and take them out of the weight.

    PEFT's own ``pissa`` and ``olora`` round the factors to the dtype of the base after it has used them unrounded.

    Args:
        model: a PEFT model with a new adapter; its base is not quantized.
        init: ``pissa``, the largest singular values (Meng et al., 2024), or ``olora``, the first columns of the QR
            decomposition (Büyükakyüz, 2024).
    """
    import torch

    with torch.no_grad():
        for module in _adapted_layers(model):
            weight, rank = _weight(module).float(), module.r[ADAPTER]
            if init == "pissa":
                left, values, right = torch.linalg.svd(weight, full_matrices=False)
                roots = (values[:rank] / module.scaling[ADAPTER]).sqrt()
                first, second = roots[:, None] * right[:rank], left[:, :rank] * roots
            else:
                left, right = torch.linalg.qr(weight)
                first, second = right[:rank], left[:, :rank]
            module.lora_A[ADAPTER].weight.copy_(first)
            module.lora_B[ADAPTER].weight.copy_(second)
    take_out_of_base(model, init)


def take_out_of_base(model: Any, init: str) -> None:
    """Take what the adapter adds now out of the weights below it, in place, and mark it as of that ``init``."""
    import torch

    with torch.no_grad():
        for module in _adapted_layers(model):
            weight = _weight(module)
            first, second = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
            weight.copy_(weight.float() - module.scaling[ADAPTER] * (second @ first))
    model.peft_config[ADAPTER].init_lora_weights = init


def _adapted_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if ADAPTER in getattr(module, "lora_A", {})]


def _weight(module: Any) -> Any:
    """A view of the weight below an adapter as (out, in)."""
    weight = module.get_base_layer().weight
    return weight.T if module.fan_in_fan_out else weight


def _state(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    return state


def _write(tensors: Mapping[str, Any], file: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), file, metadata={"format": "pt"})


def _write_config(model: Any, folder: Path, base: str, **changes: Any) -> None:
    config = model.peft_config[ADAPTER].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True, **changes}
    text = json.dumps(_canonical(config), indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value.value if hasattr(value, "value") else value
