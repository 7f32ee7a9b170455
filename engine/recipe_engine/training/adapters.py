"""Adapters in PEFT's format, written so that equal adapters are equal bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write the adapter of a PEFT model.

    PEFT's own ``save_pretrained`` lists sets in hash order and names the base by a local path; this does neither.

    Args:
        model: a PEFT model.
        folder: where the two files go.
        base: what the configuration calls the base model.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = model.peft_config[model.active_adapter].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    text = json.dumps(_canonical(config), indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load_adapter_weights(model: Any, folder: Path) -> None:
    """Put saved weights into the adapter that ``model`` has already.

    Raises:
        ValueError: where names or shapes do not match: the artifact is of another adapter.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS_FILE)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected = {(name, tensor.shape) for name, tensor in own.items()}
    different = {name for name, _ in expected ^ {(name, tensor.shape) for name, tensor in tensors.items()}}
    if different:
        raise ValueError(f"{folder} holds another adapter: {len(different)} tensors differ")
    set_peft_model_state_dict(model, tensors)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value.value if hasattr(value, "value") else value
