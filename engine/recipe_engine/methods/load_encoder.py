"""``load.encoder`` -- an encoder with a head for one score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.load_full import (
    gguf_file,
    looks_both_ways,
    references_to,
    refuse_missing,
    unreadable,
    weights_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SETTINGS = "load.json"
_DRAWN = "head.safetensors"
_CONFIG = "config.json"


class LoadEncoder:
    """Loads safetensors where they lie; what the files have not of the head is drawn, and owned."""

    def run(self, request: StageRequest) -> StageResult:
        """Draw what is missing of the head, by the node's seed, and load what that makes whole.

        Raises:
            UnresolvedInput: where the source is no encoder or holds no weights that can be loaded safely.
        """
        from safetensors.torch import save_file

        source = request.inputs.source
        assert source is not None  # the graph gives every load node a source
        if gguf_file(source) is not None:
            raise UnresolvedInput(f"{source.reference} is a GGUF file.", "An encoder is loaded from safetensors.")
        references = references_to(source)
        (request.output / _SETTINGS).write_text(json.dumps({"dtype": request.options.dtype}) + "\n", encoding="utf-8")
        drawn = drawn_head(source.local_path(_CONFIG).parent, request.seed)
        save_file(drawn, request.output / _DRAWN, metadata={"format": "pt"})
        return StageResult(live=self.restore(request, request.output), references=references)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model in evaluation mode, frozen."""
        from safetensors.torch import load_file

        source = request.inputs.source
        assert source is not None  # as above
        folder = source.local_path(_CONFIG).parent
        return load_encoder(folder, request.options.dtype, request.device, load_file(artifact / _DRAWN))


def drawn_head(folder: Path, seed: int) -> dict[str, Any]:
    """Tensors of the head that the weights in a folder lack: name -> numbers as the architecture starts with.

    Args:
        folder: with configuration and weights.
        seed: of the numbers.

    Raises:
        UnresolvedInput: as :func:`load_encoder`.
    """
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model, missing = _load(folder, {})
    state = model.state_dict()
    return {name: state[name].clone().contiguous() for name in sorted(missing)}


def load_encoder(folder: Path, dtype: str, device: str, head: Mapping[str, Any]) -> Any:
    """A model of transformers' class for sequence classification with one label, frozen, in evaluation mode.

    Args:
        folder: with configuration and weights.
        dtype: of the weights; those of the head stay in float32, as they are trained in any case.
        device: ``cpu`` or ``cuda``.
        head: what :func:`drawn_head` gave.

    Raises:
        UnresolvedInput: where it is no encoder, or the files do not fit together.
    """
    import torch

    from recipe_engine.training.encoder_model import head_parameters

    model, missing = _load(folder, head)
    refuse_missing(missing, folder)
    kept = {id(weight) for weight in head_parameters(model)}
    for weight in model.parameters():
        if id(weight) not in kept:
            weight.data = weight.data.to(getattr(torch, dtype))
    model.requires_grad_(requires_grad=False)
    return model.eval().to(device)


def _load(folder: Path, head: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """The model in float32, and the names of the head's tensors that nothing gave."""
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    from recipe_engine.training.encoder_model import head_modules

    with unreadable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or not looks_both_ways(config):
            raise ValueError(f"{config.model_type} is no encoder that transformers can put a head on")
        config.num_labels = 1
        found = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
        model, report = found.from_pretrained(
            None,
            config=config,
            state_dict={**_fitting(weights_in(folder), found, config), **head},
            dtype=torch.float32,
            output_loading_info=True,
        )
    beginnings = tuple(f"{name}." for name in head_modules(model))
    missing = frozenset(report["missing_keys"])
    refuse_missing((name for name in missing if not name.startswith(beginnings)), folder)
    return model, missing


def _fitting(weights: dict[str, Any], found: Any, config: Any) -> dict[str, Any]:
    """The weights without a head for other labels than one score."""
    import torch

    from recipe_engine.training.encoder_model import head_modules

    with torch.device("meta"):
        empty = found(config)
    beginnings = tuple(f"{name}." for name in head_modules(empty))
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items() if name.startswith(beginnings)}
    return {
        name: tensor
        for name, tensor in weights.items()
        if name not in shapes or tuple(tensor.get_shape()) == shapes[name]
    }
