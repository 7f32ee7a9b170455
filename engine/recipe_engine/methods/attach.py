"""The node between a base recipe's result and what is trained on top of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training.adapters import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from pathlib import Path


class AttachStage:
    """Puts the adapter of another recipe on the model, frozen. Its artifact holds the adapter."""

    def run(self, request: StageRequest) -> StageResult:
        """Copy the adapter and attach it."""
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(request.inputs.artifacts["adapter"] / name, request.output / name)
        return StageResult(live=self.restore(request, request.output))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model with the frozen adapter beside those that it has, in evaluation mode."""
        from peft import PeftModel

        model = request.inputs.model
        stack = list(model.peft_config) if isinstance(model, PeftModel) else []
        name = f"base{len(stack)}"
        if stack:
            model.load_adapter(artifact, name, is_trainable=False)
        else:
            model = PeftModel.from_pretrained(model, artifact, name, is_trainable=False)
        _freeze(model, [*stack, name])
        return model.eval()


def _freeze(model: Any, stack: list[str]) -> None:
    """All adapters at work, none of them trained; their dropout belonged to their own training."""
    from torch.nn import Identity

    model.base_model.set_adapter(stack, inference_mode=True)
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", {})
        for name in stack:
            if name in dropouts:
                dropouts[name] = Identity()
    model.requires_grad_(requires_grad=False)
