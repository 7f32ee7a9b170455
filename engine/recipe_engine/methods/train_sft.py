"""``train.sft`` -- supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.methods.prepare import open_tokenizer
from recipe_engine.training.adapters import load_adapter_weights, save_adapter
from recipe_engine.training.rows import read_rows
from recipe_engine.training.sft import train
from recipe_engine.training.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path


class TrainSft:
    """Trains the adapters of the model that it gets, in place."""

    def run(self, request: StageRequest) -> StageResult:
        """Train and save the adapter.

        Raises:
            Interrupted: the user asked for it; the next run goes on from the checkpoint.
            StageFailed: the loss is no number any more.
        """
        inputs = request.inputs
        assert inputs.tokenizer is not None  # the graph gives every training a tokenizer
        usage = Usage(inputs.model)
        eval_rows = read_rows(inputs.data["eval"]) if "eval" in inputs.data else []
        pad = open_tokenizer(inputs.tokenizer).pad_token_id
        trace = train(request, read_rows(inputs.data["train"]), eval_rows, pad)
        save_adapter(inputs.model, request.output, inputs.base)
        facts = {"efficiency": usage.report(trace.tokens), "trace": trace.steps}
        return StageResult(live=inputs.model, metrics={"loss": trace.steps[-1]["loss"]}, facts=facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model that it would have trained, with the trained adapter."""
        load_adapter_weights(request.inputs.model, artifact)
        return request.inputs.model
