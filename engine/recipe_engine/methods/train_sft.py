"""``train.sft`` -- supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training.result import ResultWriter, load_result
from recipe_engine.training.rows import read_rows
from recipe_engine.training.sft import train
from recipe_engine.training.tokenizer import open_tokenizer
from recipe_engine.training.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path


class TrainSft:
    """Trains what is trainable in the model that it gets, in place."""

    def run(self, request: StageRequest) -> StageResult:
        """Train and save the adapter, or the model where there is none.

        Raises:
            Interrupted: the user asked for it; the next run goes on from the checkpoint.
            StageFailed: the loss is no number any more.
        """
        inputs = request.inputs
        assert inputs.tokenizer is not None  # the graph gives every training a tokenizer
        usage = Usage(inputs.model)
        eval_rows = read_rows(inputs.data["eval"]) if "eval" in inputs.data else []
        pad = open_tokenizer(inputs.tokenizer).pad_token_id
        writer = ResultWriter(inputs.model)
        trace = train(request, read_rows(inputs.data["train"]), eval_rows, pad)
        writer.write(request.output, inputs.base)
        facts = {"efficiency": usage.report(trace.tokens), "trace": trace.steps}
        named = ("loss", "step", "eval_loss") if request.options.keep_best else ("loss",)
        metrics = {name: trace.result[name] for name in named if name in trace.result}
        return StageResult(live=inputs.model, metrics=metrics, facts=facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model that it would have trained, with the trained weights."""
        load_result(request.inputs.model, artifact)
        return request.inputs.model
