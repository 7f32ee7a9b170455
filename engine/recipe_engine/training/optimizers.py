"""AdamW, its state in float32 or in 8 bits, in the device's memory or in pages that a GPU shares with the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def adamw(kind: str, model: Any, groups: Sequence[dict[str, Any]], **settings: Any) -> Any:
    """The optimizer of a training.

    Args:
        kind: the option ``optimizer``.
        model: what is trained. The state of embeddings stays in float32, as in 8 bits their rare and large gradients
            make a training unsteady (Dettmers et al., 2022).
        groups: of its parameters, each with its ``weight_decay``.
        **settings: ``lr`` and ``betas``.
    """
    import torch

    if kind == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    whole = frozenset(id(weight) for module in embeddings for weight in module.parameters())
    bits = 8 if kind.endswith("8bit") else 32
    return _of_bitsandbytes(groups, whole, optim_bits=bits, is_paged=kind.startswith("paged"), **settings)


def _of_bitsandbytes(groups: Sequence[dict[str, Any]], whole: frozenset[int], **settings: Any) -> Any:
    from bitsandbytes.optim import AdamW

    class Optimizer(AdamW):  # type: ignore[misc, unused-ignore]  # whether it has types depends on what is installed
        """Its own way to name parameters that stay in float32 is one table of the process, by addresses."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return {**config, "optim_bits": 32} if id(group["params"][pindex]) in whole else config

    return Optimizer(groups, **settings)


def kept_state(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a parameter's state: tensors by name.

    A number becomes one, and tables that bitsandbytes has once for all parameters are left out.
    """
    import torch

    kept = {key: value for key, value in state.items() if not key.startswith("qmap")}
    return {key: value if torch.is_tensor(value) else torch.tensor(value) for key, value in kept.items()}


def restore_state(optimizer: Any, states: dict[Any, dict[str, Any]]) -> None:
    """Put back what :func:`kept_state` gave, bit for bit.

    Args:
        optimizer: one that has not stepped, or accelerate's wrapper of it.
        states: parameter -> its state.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    if not hasattr(optimizer, "init_state"):
        for parameter, state in states.items():
            optimizer.state[parameter] = {
                key: _placed(key, tensor, parameter.device.type) for key, tensor in state.items()
            }
        return
    for number, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            if saved := states.get(parameter):
                optimizer.init_state(group, parameter, number, position)  # its tables, and its pages on a GPU
                _fill(optimizer.state[parameter], saved)


def _fill(state: dict[str, Any], saved: dict[str, Any]) -> None:
    for key, tensor in saved.items():
        if isinstance(state[key], int):
            state[key] = int(tensor)
        else:
            state[key].copy_(tensor)


def _placed(key: str, tensor: Any, device: str) -> Any:
    # AdamW keeps its step count on the CPU unless it is fused; the moments live beside the parameter.
    return tensor if key == "step" and device == "cpu" else tensor.to(device)
