"""``load.full`` -- weights as they are."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import WEIGHT_FILES, FileReference, ResolvedSource, StageRequest, StageResult
from recipe_engine.errors import UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from recipe_engine.methods.options import LoadFull as Options

_SETTINGS = "load.json"
_ON_THIS_MACHINE = "local files"
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"


class LoadFull:
    """Loads safetensors where they lie; converts a GGUF file once and owns the result."""

    def run(self, request: StageRequest) -> StageResult:
        """Make the artifact, then load from it: what is live is what is restored.

        Raises:
            UnresolvedInput: where the source holds no weights that can be loaded safely.
        """
        source = request.inputs.source
        assert source is not None  # the graph gives every load node a source
        options: Options = request.options
        (request.output / _SETTINGS).write_text(json.dumps({"dtype": options.precision}) + "\n", encoding="utf-8")
        gguf = gguf_file(source)
        if gguf is not None:
            convert_gguf(source.local_path(gguf), request.output, options.precision)
            return StageResult(live=self.restore(request, request.output))
        references = references_to(source)
        return StageResult(live=self.restore(request, request.output), references=references)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model in evaluation mode, frozen."""
        source = request.inputs.source
        assert source is not None  # as above
        owned = (artifact / _CONFIG).exists()
        folder = artifact if owned else source.local_path(_CONFIG).parent
        return load_pretrained(folder, request.options.precision, request.device)


def load_pretrained(folder: Path, dtype: str, device: str, **more: Any) -> Any:
    """A causal language model from a folder of safetensors, in evaluation mode and with every parameter frozen.

    Args:
        folder: with configuration and weights.
        dtype: of weights that are not quantized.
        device: ``cpu`` or ``cuda``.
        more: for transformers' ``from_pretrained``.

    Raises:
        UnresolvedInput: where transformers does not know the architecture or the files do not fit together.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    with unreadable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or looks_both_ways(config):
            raise ValueError(f"{config.model_type} is no causal language model")
        # Given a folder, transformers maps its files into memory, and their pages stay beside what is made of them.
        model, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=weights_in(folder),
            generation_config=_generation_config(folder),
            dtype=getattr(torch, dtype),
            device_map={"": device},
            output_loading_info=True,
            **more,
        )
    refuse_missing(report["missing_keys"], folder)
    model.requires_grad_(requires_grad=False)
    return model.eval()


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Errors of whoever reads a model's files as what a user can act on.

    Raises:
        UnresolvedInput: where transformers does not know the architecture or the files do not fit together.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise UnresolvedInput(f"the model in {folder} cannot be loaded: {error}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UnresolvedInput(f"the weights in {folder} do not have the shapes that {_CONFIG} says.") from error


def refuse_missing(names: Iterable[str], folder: Path) -> None:
    """Refuse a model without some of its weights: transformers would go on with random numbers in their place.

    Raises:
        UnresolvedInput: where there is a name.
    """
    missing = sorted(names)
    if missing:
        more_of_them = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnresolvedInput(
            f"the weights in {folder} lack {missing[0]}{more_of_them}.", f"Is a shard missing, or {_CONFIG} another's?"
        )


def looks_both_ways(config: Any) -> bool:
    """Whether tokens see those after them: transformers has a causal class for BERT too, which warns and goes on."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    looks_back = any(getattr(config, name, False) for name in ("is_decoder", "is_encoder_decoder", "causal"))
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not looks_back


def weights_in(folder: Path) -> dict[str, Any]:
    """Name of each tensor -> what reads it when it is asked to."""
    from safetensors import safe_open

    weights = {}
    for name in _weight_files(folder):
        opened: Any = safe_open(folder / name, framework="pt", backend="pread")
        weights.update({key: opened.get_slice(key) for key in opened.keys()})  # noqa: SIM118 -- it is no dictionary
    return weights


def _weight_files(folder: Path) -> list[str]:
    """Those that transformers would read: a repository may hold the same weights under other names, too."""
    if (folder / _WEIGHTS).exists():
        return [_WEIGHTS]
    index = json.loads((folder / f"{_WEIGHTS}.index.json").read_bytes())
    return sorted(set(index["weight_map"].values()))


def _generation_config(folder: Path) -> Any:
    """What ``from_pretrained`` takes: the model's own, or what its configuration says of generation."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_pretrained(
        folder, config_file_name=_CONFIG, local_files_only=True, _from_model_config=True
    )


def gguf_file(source: ResolvedSource) -> str | None:
    """The GGUF file of a source, if its weights are one."""
    return next((file.path for file in source.files if file.path.endswith(".gguf")), None)


def references_to(source: ResolvedSource) -> tuple[FileReference, ...]:
    """The files that a model is loaded from, as an artifact names them that owns none of them.

    Raises:
        UnresolvedInput: as :func:`model_files`.
    """
    # Where a model lies on this machine, and how that is spelled, must not change what is made of it.
    place = _ON_THIS_MACHINE if source.reference.startswith("file:") else source.reference
    return tuple(
        FileReference(path=file.path, source=place, sha256=file.sha256, size=file.size) for file in model_files(source)
    )


def model_files(source: ResolvedSource) -> list[Any]:
    """The files that a model is loaded from: configuration and safetensors.

    Raises:
        UnresolvedInput: where one of the two is missing.
    """
    names = [file.path for file in source.files]
    if not any(name.endswith(WEIGHT_FILES) for name in names):
        raise UnresolvedInput(
            f"{source.reference} holds no weights as *.safetensors or *.gguf.",
            "Pickled weights (*.bin, *.pt) can run code and are never loaded. Convert them with the library that "
            "wrote them: model.save_pretrained(folder) writes safetensors.",
        )
    if _CONFIG not in names:
        raise UnresolvedInput(f"{source.reference} holds no {_CONFIG}.", "It says which architecture the weights are.")
    return [file for file in source.files if file.path == _CONFIG or ".safetensors" in file.path]


def convert_gguf(file: Path, folder: Path, dtype: str) -> None:
    """Dequantize a GGUF file into a folder of safetensors.

    Raises:
        UnresolvedInput: where transformers cannot read it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UnresolvedInput(f"{file.name} cannot be converted: {error}") from error
    # Its weights are plain numbers by now; without this, transformers refuses to save what was quantized.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(getattr(torch, dtype)).save_pretrained(folder)
