"""``adapt.lora`` -- low-rank adapters by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import StageFailed
from recipe_engine.training.adapters import load_adapter_weights, save_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.methods.options import AdaptLora as Options


class AdaptLora:
    """Puts adapters beside the frozen weights; they start as no change at all (the second factor is 0)."""

    def run(self, request: StageRequest) -> StageResult:
        """Create the adapters and keep their first state.

        Raises:
            StageFailed: where ``target_modules`` names nothing in this model.
        """
        model = _with_adapter(request)
        save_adapter(model, request.output, request.inputs.base)
        return StageResult(live=model)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The same adapters on a base that has none."""
        model = _with_adapter(request)
        load_adapter_weights(model, artifact)
        return model


def _with_adapter(request: StageRequest) -> Any:
    from peft import LoraConfig, get_peft_model

    options: Options = request.options
    targets = options.target_modules
    model = request.inputs.model
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    try:
        return get_peft_model(model, config).eval()
    except ValueError as error:
        named = targets if isinstance(targets, str) else " or ".join(targets)
        raise StageFailed(
            f"{request.node}: no module of this model is named {named}.",
            f"Its linear layers are {', '.join(_linear_names(model))}.",
        ) from error


def _linear_names(model: Any) -> list[str]:
    """Last parts of the names of all linear layers (GPT-2's are called Conv1D)."""
    return sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if type(module).__name__ in _LINEAR_CLASSES}
    )


_LINEAR_CLASSES = frozenset({"Linear", "Linear4bit", "Linear8bitLt", "Conv1D"})
