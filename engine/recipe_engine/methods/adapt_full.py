"""``adapt.full`` -- no adapter: the weights of the model themselves are trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import StageFailed
from recipe_engine.methods.fits import ends

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = "adapt.json"


class AdaptFull:
    """Makes weights trainable; there is nothing to own, so its artifact says only which."""

    def run(self, request: StageRequest) -> StageResult:
        """Unfreeze.

        Raises:
            StageFailed: where ``train_only`` names nothing in this model.
        """
        settings = {"train_only": request.options.train_only}
        (request.output / _SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return StageResult(live=self.restore(request, request.output))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The same model with the same weights trainable."""
        del artifact
        model, chosen = request.inputs.model, request.options.train_only
        if chosen is None:
            return model.requires_grad_()
        for name in chosen:
            modules = [module for path, module in model.named_modules() if ends(path, name)]
            if not modules:
                raise StageFailed(f"{request.node}: train_only: no module of this model is named {name}.")
            for module in modules:
                module.requires_grad_()
        return model
