"""The digest of the weights that are trained, every few steps: where two trainings part is seen in it first."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers import TrainerCallback  # noqa: TID253 -- a class body needs its base

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHTS = "weights"
"""Name of the digest in a step's entry of the trace."""
_FEWEST_STEPS = 5
# Hashing takes about a second for a gigabyte: at most 40 ms a step, however large the model.
_BYTES_A_STEP = 40_000_000


def weights_digest(parameters: Mapping[str, torch.Tensor]) -> str:
    """``sha256:…`` of the bytes of all tensors, in the order of their names.

    Args:
        parameters: name -> tensor, of any shape, dtype and device.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        tensor = parameters[name].detach().cpu().contiguous().reshape(-1)
        digest.update(tensor.view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def steps_between(size: int) -> int:
    """Steps from one digest to the next; a function of the model alone, so that every run has them at equal steps.

    Args:
        size: of all trained parameters, in bytes.
    """
    return max(_FEWEST_STEPS, -(-size // _BYTES_A_STEP))


class WeightDigests(TrainerCallback):
    """Adds the digest after the first step, and every few steps from then on, to what the Trainer logs.

    Args:
        model: what is trained.
    """

    def __init__(self, model: Any) -> None:
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._every = steps_between(sum(weight.numel() * weight.element_size() for weight in self._trained.values()))

    def on_log(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by the Trainer once a step is done, before it saves."""
        entry = state.log_history[-1]
        if "loss" in entry and (state.global_step == 1 or state.global_step % self._every == 0):
            entry[WEIGHTS] = weights_digest(self._trained)
