"""Small trainings of ``train.rloo`` and ``train.grpo`` that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import END, UNUSED, evenness, fresh_model, prompts, scoring

from recipe_engine.training.groups.options import TrainGrpo, TrainRloo
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from recipe_engine.contract import StageRequest
    from recipe_engine.training.ppo.judging import Score
    from recipe_engine.training.ppo.loop import Trace

Options = TrainRloo | TrainGrpo
KINDS: tuple[type[Options], ...] = (TrainRloo, TrainGrpo)
FEW: dict[str, Any] = {
    "batch_size": 4,
    "num_generations": 2,
    "max_new_tokens": 6,
    "learning_rate": 1e-3,
    "max_steps": 1,
}


def request(root: Path, kind: type[Options], model: Any, **given: Any) -> StageRequest:
    """A request of a few short answers; ``given`` are options and arguments of ``stage_request``."""
    root.mkdir(parents=True, exist_ok=True)
    of_request = {name: given.pop(name) for name in ("reporter", "seed", "tokenizer", "data") if name in given}
    return tiny.stage_request(root, kind(reward=UNUSED, **FEW | given), model=model, **of_request)


def ending_model(root: Path, folder: Path) -> Any:
    """A model with a new adapter, about a third of whose tokens end the answer."""
    model = fresh_model(root, folder)
    language_model = model.get_base_model()
    head = torch.nn.Linear(tiny.HIDDEN, tiny.VOCABULARY).requires_grad_(requires_grad=False)
    head.load_state_dict({"weight": language_model.lm_head.weight, "bias": torch.zeros(tiny.VOCABULARY)})
    head.bias[END] = 5.0
    language_model.lm_head = head
    return model


def train(
    root: Path, folder: Path, kind: type[Options], *, score: Score | None = None, model: Any = None, **given: Any
) -> tuple[Trace, Any]:
    """One training on eight prompts, as the worker runs it: the trace and the model."""
    from recipe_engine.runners.worker import seed_everything
    from recipe_engine.training.groups.loop import train_groups

    root.mkdir(parents=True, exist_ok=True)
    model = model if model is not None else fresh_model(root, folder)
    asked = request(root, kind, model, **given)
    tokenizer = open_tokenizer(folder)
    seed_everything(asked.seed)
    return train_groups(asked, prompts(tokenizer, 8), tokenizer, score or scoring(evenness)), model
