"""What a training leaves: an adapter in PEFT's format, or a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.adapters import (
    ADAPTER,
    adapter_tensors,
    load_adapter_weights,
    save_adapter,
    save_as_plain_adapter,
)

if TYPE_CHECKING:
    from pathlib import Path

_TAKEN_OUT = ("pissa", "olora")


class ResultWriter:
    """Writes a trained model. It is made before the training: some adapters are written as a difference.

    Args:
        model: what is about to be trained, before any checkpoint is put into it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._initial = adapter_tensors(model) if _adapter_init(model) in _TAKEN_OUT else None

    def write(self, folder: Path, base: str) -> None:
        """Write what was trained; equal results are equal bytes.

        Args:
            folder: where the files go.
            base: what the configuration of an adapter calls the base model.
        """
        if _adapter_init(self._model) is None:
            self._model.save_pretrained(folder)
        elif self._initial is None:
            save_adapter(self._model, folder, base)
        else:
            save_as_plain_adapter(self._model, folder, base, self._initial)


def load_result(model: Any, folder: Path) -> None:
    """Put what :class:`ResultWriter` wrote into a model that is as the trained one was before its training.

    Raises:
        ValueError: where names or shapes do not match: the artifact is of another adapter.
    """
    if _adapter_init(model) is not None:
        load_adapter_weights(model, folder)
        return
    # Of its own class, as an encoder with a head is no causal language model.
    trained = type(model).from_pretrained(
        folder, dtype=model.dtype, device_map={"": model.device}, local_files_only=True, use_safetensors=True
    )
    model.load_state_dict(trained.state_dict())


def _adapter_init(model: Any) -> Any:
    """How the adapter that is trained was started, in PEFT's words; ``None`` for a model without one."""
    config = getattr(model, "peft_config", {}).get(ADAPTER)
    return config.init_lora_weights if config is not None else None
