"""What trainings on answers of their own hold: PPO, RLOO and GRPO.

A step writes answers, has them judged, and learns from them. What only one of these needs is gone in the next, so the
largest of them counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from recipe_engine.estimate import parts
from recipe_engine.methods.options import AdaptLora
from recipe_engine.options import rewards_of
from recipe_engine.training.groups.options import Groups
from recipe_engine.training.ppo.options import TrainPpo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.estimate.job import Job, Lengths
    from recipe_engine.estimate.shapes import Shapes
    from recipe_engine.training.on_policy import OnPolicy

_READ_AT_ONCE = 4096  # tokens of prompts (recipe_engine.training.decoding)
# TRL's head: positions and words of a tile (trl.kernels.chunked_logprob, trl.trainer.utils). Its backward pass, where
# there is no Triton, has a tile in the model's precision, seven times in float32, and once as truth values.
TILE, TILE_WORDS, _OF_A_TILE = 4096, 2**15, 7 * parts.FLOAT32 + 1


def answering(shapes: Shapes, job: Job, options: OnPolicy) -> dict[str, int]:
    """What takes memory besides the model and what is trained -> bytes."""
    found = _others(shapes, job, options)
    phases = [_writing(shapes, job, options), _learning(shapes, job, options)]
    return found | max(phases, key=lambda phase: sum(phase.values()))


def tokens_at_once(options: OnPolicy, lengths: Lengths) -> int:
    """Tokens that are learned from at once, padding included.

    Args:
        options: of the training.
        lengths: of the prompts; answers count as long as they may be.
    """
    longest = lengths.longest + options.max_new_tokens
    if isinstance(options, TrainPpo):
        whole = longest + (options.minibatch - 1) * (lengths.mean + options.max_new_tokens)
        return max(longest, min(options.micro_batch_tokens, round(whole)))
    assert isinstance(options, Groups)  # there are no others
    return options.micro_batch * longest


def _others(shapes: Shapes, job: Job, options: OnPolicy) -> dict[str, int]:
    """Models beside the one that is trained."""
    found = {}
    if not isinstance(job.adapt, AdaptLora):
        found["reference"] = parts.weights(shapes, job.load)
    judges = [job.rewards[reward.name] for reward in rewards_of(options) if reward.name in job.rewards]
    if judges:
        # Weights that are frozen and the same are there once: the policy's, whose adapters leave them alone.
        found["reward models"] = sum(_judge(shapes, job, judge) for judge in judges)
    return found


def _judge(shapes: Shapes, job: Job, judge: Job) -> int:
    if not isinstance(judge.adapt, AdaptLora):
        return parts.weights(shapes, judge.load)
    own = parts.FLOAT32 * parts.adapter_numbers(shapes, judge.adapt)
    is_shared = isinstance(job.adapt, AdaptLora) and judge.load == job.load
    return own if is_shared else own + parts.weights(shapes, judge.load)


def _writing(shapes: Shapes, job: Job, options: OnPolicy) -> dict[str, int]:
    lengths, size = job.lengths[options.data], parts.precision(job.load)
    rows = answers_at_once(options)
    read = min(max(_READ_AT_ONCE, lengths.longest), round(rows * lengths.mean))
    return {
        "keys and values": parts.cache(shapes, rows, lengths.longest + options.max_new_tokens, size),
        "activations": max(
            parts.layer_activations(shapes, read, lengths.longest, size, None),
            rows * shapes.vocabulary * parts.OF_A_DRAW,
        ),
        "weights in another order": parts.packed_weights(shapes, job.load) if job.device == "cpu" else 0,
        "heap": parts.heap(0, 0),
    }


def _learning(shapes: Shapes, job: Job, options: OnPolicy) -> dict[str, int]:
    lengths, size = job.lengths[options.data], parts.precision(job.load)
    tokens, longest = tokens_at_once(options, lengths), lengths.longest + options.max_new_tokens
    adapters = job.adapt if isinstance(job.adapt, AdaptLora) else None
    if isinstance(options, TrainPpo):
        layer = parts.layer_activations(shapes, tokens, longest, size, adapters)
        head = parts.head_activations(shapes, tokens, size, job.device)
    else:  # side by side, with a mask, which the products of short rows do not take
        layer = parts.layer_activations(shapes, tokens, parts.LONGEST_IN_PRODUCTS + 1, size, adapters)
        head = _tile(shapes, tokens, size, job.device)
    kept = shapes.layers * layer
    gradients = parts.FLOAT32 * parts.trained_numbers(shapes, job.adapt)  # gone while answers are written
    return {"gradients": gradients, "activations": kept + max(layer, head), "heap": parts.heap(kept, layer)}


def _tile(shapes: Shapes, tokens: int, size: int, device: str) -> int:
    numbers = min(tokens, TILE) * min(shapes.vocabulary, TILE_WORDS)
    return numbers * (size + (_OF_A_TILE if device == "cpu" else 0))


def smaller(options: OnPolicy, lengths: Lengths) -> Iterator[tuple[str, OnPolicy]]:
    """(what to write in the recipe, the options with it) for every change that could take less memory."""
    longest = lengths.longest + options.max_new_tokens
    if isinstance(options, TrainPpo) and tokens_at_once(options, lengths) > longest:
        yield f"micro_batch_tokens = {longest}", replace(options, micro_batch_tokens=longest)
    if isinstance(options, Groups) and options.micro_batch > 1:
        yield "micro_batch_size = 1", replace(options, micro_batch_size=1)
    fewer = answers_at_once(options) // 4
    if fewer:
        yield f"generation_size = {fewer}", replace(options, generation_size=fewer)


def answers_at_once(options: OnPolicy) -> int:
    """Answers that are written at once."""
    batch: int = options.batch_size  # type: ignore[attr-defined]  # each kind has its own
    return min(batch, options.generation_size or batch)
