"""The code of ``train.dpo``, imported where it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_dpo.trainer import train
from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training import ResultWriter, Usage, load_result, read_pairs

if TYPE_CHECKING:
    from pathlib import Path


class Dpo:
    """Trains what is trainable in the model that it gets, in place."""

    def run(self, request: StageRequest) -> StageResult:
        """Train and save the adapter, or the model where there is none.

        Raises:
            Interrupted: the user asked for it; the next run goes on from the checkpoint.
            StageFailed: the loss is no number any more.
        """
        inputs = request.inputs
        usage, writer = Usage(inputs.model), ResultWriter(inputs.model)
        trace = train(request, read_pairs(inputs.data["train"]))
        writer.write(request.output, inputs.base)
        last = trace.steps[-1]
        return StageResult(
            live=inputs.model,
            metrics={name: last[name] for name in ("loss", "margin", "accuracy")},
            facts={"efficiency": usage.report(trace.tokens), "trace": trace.steps},
        )

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model that it would have trained, with the trained weights."""
        load_result(request.inputs.model, artifact)
        return request.inputs.model
