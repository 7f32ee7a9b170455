"""``adapt.lora`` -- low-rank adapters by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import StageFailed
from recipe_engine.methods.fits import ON_TOP, Layers, lora_fits
from recipe_engine.training.adapters import (
    ADAPTER,
    load_adapter_weights,
    save_adapter,
    start_from_base,
    take_out_of_base,
)
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recipe_engine.methods.options import AdaptLora as Options


class AdaptLora:
    """Puts adapters beside the frozen weights.

    They start as no change at all, as the second factor is 0; with DoRA, which divides by the lengths of columns and
    multiplies by them again, up to the rounding of the weights' dtype. With ``pissa`` and ``olora`` they start as a
    part of the weights that is taken out of them.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Create the adapters and keep their first state.

        Raises:
            StageFailed: where an option does not fit this model.
        """
        model = _with_adapter(request)
        if request.options.changes_base:
            start_from_base(model, request.options.init)
        save_adapter(model, request.output, request.inputs.base)
        return StageResult(live=model)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The same adapters on a base that has none; nothing is decomposed again."""
        model = _with_adapter(request)
        load_adapter_weights(model, artifact)
        if request.options.changes_base:
            take_out_of_base(model, request.options.init)
        return model


def _with_adapter(request: StageRequest) -> Any:
    from peft import PeftModel, get_peft_model

    options: Options = request.options
    model = request.inputs.model
    for key, message, hint in lora_fits(options, _layers(model)):
        raise StageFailed(f"{request.node}: {key}: {message}.", hint)
    _refuse_quantized_copies(request, model)
    below = list(model.peft_config) if isinstance(model, PeftModel) else []
    if below and options.is_more_than_adapters:
        raise StageFailed(
            f"{request.node}: {ON_TOP}.",
            "Export that recipe merged, and start from the folder.",
        )
    if below:
        model.add_adapter(ADAPTER, _config(options, model, []))
        model.base_model.set_adapter([*below, ADAPTER])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(f".{ADAPTER}." in name)
    else:
        config = _config(options, model, _new_tokens(request))
        saved = [*(config.modules_to_save or ())]
        model = get_peft_model(model, config)
        config.modules_to_save = saved or None  # PEFT adds names of heads that an encoder may not have
    return model.eval()


def _new_tokens(request: StageRequest) -> list[int]:
    """Ids of the tokens that were added; their rows are trained beside the adapters."""
    options: Options = request.options
    if options.new_tokens is None:
        return []
    assert request.inputs.tokenizer is not None  # the graph gives it to who adds tokens
    return list(open_tokenizer(request.inputs.tokenizer).convert_tokens_to_ids(list(options.new_tokens)))


def _config(options: Options, model: Any, tokens: list[int]) -> Any:
    from peft import LoraConfig

    targets, head = options.target_modules, _head(model)
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=options.dora,
        use_rslora=options.rslora,
        bias=options.bias,
        modules_to_save=[*(options.modules_to_save or ()), *head] or None,
        exclude_modules=[name for name, _ in _linear_layers(model) if _is_within(name, head)] or None,
        trainable_token_indices=tokens or None,
        init_lora_weights="gaussian" if options.init == "gaussian" else True,
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )


def _head(model: Any) -> list[str]:
    """The modules of an encoder that are trained whole, as nobody knows them before; none of a language model."""
    from recipe_engine.training.encoder_model import head_modules, is_classifier

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return head_modules(plain) if is_classifier(model) else []


def _is_within(module: str, names: list[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _refuse_quantized_copies(request: StageRequest, model: Any) -> None:
    for chosen in request.options.modules_to_save or ():
        for name, module in model.named_modules():
            if name.endswith(chosen) and not all(weight.is_floating_point() for weight in module.parameters()):
                raise StageFailed(
                    f"{request.node}: modules_to_save: {name} is quantized and cannot be trained whole.",
                    "Put it into target_modules.",
                )


def _layers(model: Any) -> Layers:
    """The modules of a live model, those of its adapters left out."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = _head(model)
    linear = {name: widths for name, widths in _linear_layers(base) if not _is_within(name, head)}
    modules = frozenset(name for name, _ in base.named_modules() if name)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return Layers(linear, modules, tied, any(name.endswith(".bias") for name, _ in base.named_parameters()))


def _linear_layers(model: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, module in model.named_modules():
        inner = getattr(module, "base_layer", module)
        if type(inner).__name__ == "Conv1D":  # GPT-2's
            yield name, (int(inner.weight.shape[0]), int(inner.weight.shape[1]))
        elif type(inner).__name__ in _LINEAR_CLASSES and ".lora_" not in name and not name.endswith(".base_layer"):
            yield name, (inner.in_features, inner.out_features)


_LINEAR_CLASSES = frozenset({"Linear", "Linear4bit", "Linear8bitLt"})
