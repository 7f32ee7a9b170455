"""``train.reward`` -- a reward model from preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training.encoder_model import EncoderRewardModel, is_classifier
from recipe_engine.training.result import ResultWriter, load_result
from recipe_engine.training.reward import train
from recipe_engine.training.reward_model import RewardModel, RewardWriter, load_reward_model
from recipe_engine.training.rows import read_pairs
from recipe_engine.training.tokenizer import open_tokenizer
from recipe_engine.training.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path


class TrainReward:
    """Puts a head on the model that it gets, and trains it with what is trainable in the model."""

    def run(self, request: StageRequest) -> StageResult:
        """Train and save adapter and head, or the whole model where there is no adapter.

        Metrics: of the result's step ``loss``, in nats a pair, ``accuracy`` and ``margin``.

        Raises:
            Interrupted: the user asked for it; the next run goes on from the checkpoint.
            StageFailed: the loss is no number any more, or the result has no form that others can load.
        """
        inputs = request.inputs
        assert inputs.tokenizer is not None  # the graph gives every training a tokenizer
        tokenizer = open_tokenizer(inputs.tokenizer)
        model, writer = _reward_model(inputs.model, tokenizer)
        usage, pad = Usage(model), tokenizer.pad_token_id
        eval_pairs = read_pairs(inputs.data["eval"]) if "eval" in inputs.data else []
        trace = train(request, model, read_pairs(inputs.data["train"]), eval_pairs, pad)
        writer.write(request.output, inputs.base)
        facts = {"efficiency": usage.report(trace.tokens), "trace": trace.steps}
        named = ["loss", "accuracy", "margin"] + (["step", "eval_loss"] if request.options.keep_best else [])
        metrics = {name: trace.result[name] for name in named if name in trace.result}
        return StageResult(live=model, metrics=metrics, facts=facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The reward model that it would have trained."""
        model, tokenizer = request.inputs.model, request.inputs.tokenizer
        assert tokenizer is not None  # as above
        if is_classifier(model):
            load_result(model, artifact)
            return EncoderRewardModel(model, open_tokenizer(tokenizer))
        return load_reward_model(model, artifact)


def _reward_model(model: Any, tokenizer: Any) -> tuple[RewardModel | EncoderRewardModel, RewardWriter | ResultWriter]:
    """A head on a model, or the one that an encoder has, and who writes what is trained of them."""
    if is_classifier(model):
        return EncoderRewardModel(model, tokenizer), ResultWriter(model)
    scored = RewardModel(model)
    return scored, RewardWriter(scored)
