"""What each stage of a recipe that holds a model needs at its peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.estimate import parts
from recipe_engine.estimate.answers import answering
from recipe_engine.estimate.shapes import shapes_of
from recipe_engine.methods.metrics.options import EvaluateAnswers
from recipe_engine.methods.options import AdaptLora, EvaluatePerplexity, EvaluateSamples, LoadFull
from recipe_engine.model import WHOLE
from recipe_engine.training.on_policy import OnPolicy
from recipe_engine.training.options import Training, TrainReward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_engine.contract import ModelOutline
    from recipe_engine.estimate.job import Job, Lengths
    from recipe_engine.estimate.shapes import Shapes


@dataclass(frozen=True, slots=True)
class StageMemory:
    """A stage at its peak.

    Attributes:
        stage: ``load``, ``train`` or ``evaluate.<instance>``.
        parts: what takes memory -> bytes; all of them at once.
    """

    stage: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.parts.values())


def estimate(job: Job, outline: ModelOutline) -> list[StageMemory]:
    """Every stage that holds the model, in the order in which they run; nothing where the model is not known."""
    shapes = shapes_of(outline)
    if shapes is None:
        return []
    stages = [_loading(shapes, job)]
    if job.train is not None:
        stages.append(_training(shapes, job, job.train))
    stages += _evaluating(shapes, job)
    return stages


def _loading(shapes: Shapes, job: Job) -> StageMemory:
    found = {"weights": parts.weights(shapes, job.load)}
    if not isinstance(job.load, LoadFull):
        found["one layer before it is quantized"] = _one_layer(shapes, job)
    return StageMemory("load", found)


def _training(shapes: Shapes, job: Job, options: Training | OnPolicy) -> StageMemory:
    found = _trained(shapes, job)
    if isinstance(options, OnPolicy):
        found |= answering(shapes, job, options)
    else:
        found |= _passes(shapes, job, options)
    if not isinstance(job.load, LoadFull):
        found["one layer dequantized"] = _one_layer(shapes, job)
    return StageMemory("train", found)


def _trained(shapes: Shapes, job: Job) -> dict[str, int]:
    """The model, and what stays for each weight that is trained."""
    found = {"weights": parts.weights(shapes, job.load)}
    if job.below:
        found["adapters of the base"] = sum(parts.FLOAT32 * parts.adapter_numbers(shapes, adapt) for adapt in job.below)
    tensors, embedding = parts.trained_tensors(shapes, job.adapt)
    if isinstance(job.adapt, AdaptLora):
        found["adapter"] = parts.FLOAT32 * sum(tensors)
    found["optimizer"] = parts.optimizer_state(getattr(job.train, "optimizer", "adamw"), tensors, embedding)
    return found


def _passes(shapes: Shapes, job: Job, options: Training) -> dict[str, int]:
    """What a training on a fixed set of samples keeps of a micro-batch."""
    tokens, longest = micro_batch(options, job.lengths[options.data]), job.lengths[options.data].longest
    size = 2 if options.products != "no" else parts.precision(job.load)
    adapters = job.adapt if isinstance(job.adapt, AdaptLora) else None
    found = {"gradients": parts.FLOAT32 * parts.trained_numbers(shapes, job.adapt)}
    if adapters is None and options.products != "no":  # autocast keeps its copies until the step's end
        found["weights in half precision"] = 2 * shapes.linear_numbers
    layer = parts.layer_activations(shapes, tokens, longest, size, adapters)
    layer += parts.left_out(shapes, tokens, adapters, job.device)
    kept = size * tokens * shapes.hidden if options.recomputes else layer
    if options.activation_offload:
        kept = 0
    head = 0 if isinstance(options, TrainReward) else parts.head_activations(shapes, tokens, size, job.device)
    found["activations"] = shapes.layers * kept + max(layer, head)
    if options.recomputes and job.device == "cpu":
        found["heap"] = parts.heap_recomputing(shapes, layer, size, adapters, job.load)
    else:
        found["heap"] = parts.heap(shapes.layers * kept, layer)
    return found


def micro_batch(options: Training, lengths: Lengths) -> int:
    """Tokens of the largest micro-batch: the longest row among others of average length, or what is allowed."""
    texts = 2 if isinstance(options, TrainReward) else 1  # of a pair
    longest, mean = texts * lengths.longest, texts * lengths.mean
    at_once = options.tokens_at_once
    rows = options.micro_batch_size or (options.rows if options.batch_tokens is None else None)
    limits = [at_once] if at_once is not None else []
    limits += [round(longest + (rows - 1) * mean)] if rows is not None else []
    return max(longest, min(limits))


def _evaluating(shapes: Shapes, job: Job) -> Iterator[StageMemory]:
    model = {"weights": parts.weights(shapes, job.load)}
    if isinstance(job.adapt, AdaptLora):
        model["adapter"] = parts.FLOAT32 * parts.adapter_numbers(shapes, job.adapt)
    size = parts.precision(job.load)
    for instance, options in job.evaluations.items():
        longest = _longest(options, job) if hasattr(options, "data") else 0
        found = dict(model)
        if isinstance(options, EvaluatePerplexity):
            rows, fresh = options.batch_size, 0
        elif isinstance(options, EvaluateAnswers | EvaluateSamples):
            rows = getattr(options, "batch_size", None) or options.count  # type: ignore[union-attr]
            fresh = options.max_new_tokens
            found["keys and values"] = parts.cache(shapes, rows, longest + fresh, size)
            found["weights in another order"] = parts.packed_weights(shapes, job.load) if job.device == "cpu" else 0
        else:
            continue
        # Nothing is kept for a backward pass: one layer at a time, and the logits.
        layer = parts.layer_activations(shapes, rows * longest, longest, size, None)
        if fresh:
            logits = rows * shapes.vocabulary * parts.OF_A_DRAW
        else:
            logits = parts.head_activations(shapes, rows * max(1, longest), size, job.device)
        found["activations"] = max(layer, logits)
        if not isinstance(job.load, LoadFull):
            found["one layer dequantized"] = _one_layer(shapes, job)
        yield StageMemory(f"evaluate.{instance}", found)


def _longest(options: Any, job: Job) -> int:
    """Tokens of the longest row, or window of one, that an evaluation reads."""
    if isinstance(options, EvaluatePerplexity) and options.window:
        whole = job.lengths.get(f"{options.data}{WHOLE}")
        return min(options.window, whole.longest) if whole else options.window
    return job.lengths[options.data].longest


def _one_layer(shapes: Shapes, job: Job) -> int:
    return shapes.largest_linear * parts.precision(job.load)
