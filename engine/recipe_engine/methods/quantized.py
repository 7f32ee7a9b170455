"""What all quantizing load methods share: weights to quantize, an artifact that owns the result."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.load_full import convert_gguf, gguf_file, load_pretrained, model_files
from recipe_engine.training.heap import give_back, large_tensors_apart

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.contract import StageRequest

_CONFIG = "config.json"
_SHARD = "512MB"


def save_quantized(request: StageRequest, dtype: str, quantization: Any) -> None:
    """Quantize the request's source and write it as the artifact, before any forward pass.

    Args:
        request: of a load method; its output is filled.
        dtype: of what is not quantized.
        quantization: transformers' quantization config.

    Raises:
        UnresolvedInput: where the source holds no weights that can be loaded safely, or quantized ones.
    """
    folder = _unquantized(request, dtype)
    with large_tensors_apart():
        model = load_pretrained(folder, dtype, request.device, quantization_config=quantization)
    # A shard is copied before it is written.
    model.save_pretrained(request.output, max_shard_size=_SHARD)
    del model
    gc.collect()  # a model is a part of cycles
    give_back()


def load_quantized(request: StageRequest, artifact: Path) -> Any:
    """The model of an artifact, in evaluation mode and frozen."""
    with large_tensors_apart():
        model = load_pretrained(artifact, request.options.precision, request.device)
    give_back()
    return model


def _unquantized(request: StageRequest, dtype: str) -> Path:
    """A folder with the weights before quantization; a GGUF file's are converted into the work area."""
    source = request.inputs.source
    assert source is not None  # the graph gives every load node a source
    gguf = gguf_file(source)
    if gguf is not None:
        folder = request.work / "unquantized"
        convert_gguf(source.local_path(gguf), folder, dtype)
        return folder
    model_files(source)
    config = source.local_path(_CONFIG)
    if "quantization_config" in json.loads(config.read_bytes()):
        raise UnresolvedInput(
            f"{source.reference} is quantized already.", "Start from the model that it was made from."
        )
    return config.parent
