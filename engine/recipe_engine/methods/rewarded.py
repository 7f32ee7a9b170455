"""What the trainings with rewards have in common as stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training.result import ResultWriter, load_result
from recipe_engine.training.rewards import open_rewards
from recipe_engine.training.rows import read_rows
from recipe_engine.training.tokenizer import open_tokenizer
from recipe_engine.training.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recipe_engine.training.ppo.judging import Score
    from recipe_engine.training.ppo.loop import Trace
    from recipe_engine.training.rows import Row

    Train = Callable[[StageRequest, Sequence[Row], Any, Score], Trace]


class Rewarded:
    """Trains what is trainable in the model that it gets, in place."""

    train: Train
    """From the request, the prompts, the tokenizer and the open reward to what happened."""

    def run(self, request: StageRequest) -> StageResult:
        """Train and save the adapter, or the model where there is none.

        Raises:
            Interrupted: the user asked for it; the next run goes on from the checkpoint.
            StageFailed: a reward or the loss is no number, or a prompt leaves no room for an answer.
        """
        return self.run_with(request, open_rewards(request))

    def run_with(self, request: StageRequest, score: Score) -> StageResult:
        """The same with a reward that is open already."""
        inputs = request.inputs
        assert inputs.tokenizer is not None  # the graph gives every training a tokenizer
        usage = Usage(inputs.model)
        writer = ResultWriter(inputs.model)
        trace = self.train(request, read_rows(inputs.data["prompts"]), open_tokenizer(inputs.tokenizer), score)
        writer.write(request.output, inputs.base)
        facts = {"efficiency": usage.report(trace.tokens), "trace": trace.steps, "samples": trace.samples}
        metrics = {name: trace.steps[-1][name] for name in ("score", "kl")}
        return StageResult(live=inputs.model, metrics=metrics, facts=facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model that it would have trained, with the trained weights."""
        load_result(request.inputs.model, artifact)
        return request.inputs.model
