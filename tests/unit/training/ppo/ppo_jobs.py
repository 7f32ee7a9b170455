"""Small PPO trainings that the tests of this folder share."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import tiny

from recipe_engine.contract import Answer, StageRequest
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.options import AdaptLora as LoraOptions
from recipe_engine.methods.rewards.options import RewardPattern
from recipe_engine.options import Reward, RewardTable
from recipe_engine.training.ppo.loop import Trace, train_ppo
from recipe_engine.training.ppo.options import TrainPpo
from recipe_engine.training.rows import Row
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from recipe_engine.training.ppo.judging import Score

END = 297
"""``<|im_end|>`` of the tiny tokenizer."""


UNUSED = Reward("pattern", RewardTable(), RewardPattern(pattern="^"))
"""The reward that a recipe would name; these tests give their own to the loop."""


@dataclass(frozen=True)
class Judged:
    """What a reward of these tests returns."""

    total: list[float]
    parts: dict[str, list[float]] = field(default_factory=dict)


def scoring(of_tokens: Callable[[tuple[int, ...]], float]) -> Score:
    """A reward of the tokens of each answer."""

    def score(answers: Sequence[Answer]) -> Judged:
        return Judged([of_tokens(answer.tokens[answer.prompt_tokens :]) for answer in answers])

    return score


def evenness(tokens: tuple[int, ...]) -> float:
    """Share of tokens with an even number: a reward that every policy gets some of."""
    return sum(token % 2 == 0 for token in tokens) / len(tokens)


def prompts(tokenizer: Any, count: int) -> list[Row]:
    """Prompts of different lengths."""
    rows = []
    for number in range(count):
        text = f"<|im_start|>user\nSay {'really ' * (number % 3)}{number}<|im_end|>\n<|im_start|>assistant\n"
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        rows.append(Row(number + 1, ids, (False,) * len(ids), len(ids), f"Say {number}", ""))
    return rows


def answers(tokenizer: Any, lengths: Sequence[int], *, ended: Sequence[bool] | None = None) -> list[Answer]:
    """Answers of random tokens."""
    chance = random.Random(5)
    found = []
    for at, (row, length) in enumerate(zip(prompts(tokenizer, len(lengths)), lengths, strict=True)):
        ends = ended is None or ended[at]
        tokens = [chance.randrange(20, 280) for _ in range(length)]
        tokens[-1] = END if ends else tokens[-1]
        found.append(
            Answer(
                question=row.question,
                prompt="",
                text=tokenizer.decode(tokens),
                tokens=(*row.input_ids, *tokens),
                prompt_tokens=len(row.input_ids),
                ended=ends,
                row=row.number,
            )
        )
    return found


def fresh_model(root: Path, folder: Path, *, dtype: str = "float32", model: Any = None, **options: Any) -> Any:
    """A model with a new adapter, which changes nothing yet."""
    model = model if model is not None else tiny.load_model(folder, dtype)
    request = tiny.stage_request(root, LoraOptions(**({"rank": 4} | options)), node="adapt", model=model)
    return tiny.run_stage(AdaptLora(), request).live


def request(
    root: Path,
    model: Any,
    *,
    reporter: tiny.Recorder | None = None,
    seed: int = 7,
    folder: Path | None = None,
    data: dict[str, Path] | None = None,
    **options: Any,
) -> StageRequest:
    """A request of ``train.ppo``, of a few short answers where ``options`` do not say more."""
    few = {"batch_size": 4, "max_new_tokens": 6, "learning_rate": 1e-3, "max_steps": 1, "ppo_epochs": 2}
    root.mkdir(parents=True, exist_ok=True)
    chosen = TrainPpo(reward=UNUSED, **few | options)
    return tiny.stage_request(root, chosen, model=model, reporter=reporter, seed=seed, tokenizer=folder, data=data)


def ppo(
    root: Path,
    folder: Path,
    *,
    model: Any = None,
    reporter: tiny.Recorder | None = None,
    score: Score | None = None,
    **options: Any,
) -> tuple[Trace, Any]:
    """One training on eight prompts, as the worker runs it: the trace and the model."""
    from recipe_engine.runners.worker import seed_everything

    root.mkdir(parents=True, exist_ok=True)
    model = model if model is not None else fresh_model(root, folder)
    asked = request(root, model, reporter=reporter, **options)
    tokenizer = open_tokenizer(folder)
    seed_everything(asked.seed)
    return train_ppo(asked, prompts(tokenizer, 8), tokenizer, score or scoring(evenness)), model
