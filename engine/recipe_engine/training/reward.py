"""Training of reward models: from pairs of a better and a worse answer to scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

from recipe_engine.training.layout import layout_of
from recipe_engine.training.loop import Task, Trace, train_task
from recipe_engine.training.prefixes import shares_on
from recipe_engine.training.reward_model import scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.contract import StageRequest
    from recipe_engine.training.options import TrainReward
    from recipe_engine.training.rows import Pair, Row
    from recipe_engine.training.scoring import Scoring

_MARGINS = "margins"


def train(
    request: StageRequest, model: Scoring[Any], pairs: Sequence[Pair], eval_pairs: Sequence[Pair], pad: int
) -> Trace:
    """Train a reward model in place; go on from the last checkpoint in the request's work area where there is one.

    Args:
        request: a request of ``train.reward``.
        model: what is trained.
        pairs: what is learned.
        eval_pairs: what the loss is measured on in between; may be empty.
        pad: id of the padding token.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: the loss is no number any more, or a row is longer than the model can read.
    """
    options: TrainReward = request.options
    layout = layout_of(model.config.to_dict(), options.layout)
    model.texts(_rows(pairs))  # before the first step: a row may be longer than the model can read

    def batch(positions: Sequence[int]) -> dict[str, Any]:
        chosen = [pairs[position] for position in positions]
        shared = shares_on(request.device)
        return model.lay(model.texts(_rows(chosen)), pad, layout, shared=shared) | {_MARGINS: _margins(chosen)}

    def eval_loss() -> float:
        found = pair_scores(model, eval_pairs, pad, batch_size=options.micro_batch_size or options.rows)
        return float(bradley_terry(*found, _margins(eval_pairs), options.centering).mean())

    task = Task(
        model=model,
        language_model=model.language_model,
        lengths=[len(pair.chosen.input_ids) + len(pair.rejected.input_ids) for pair in pairs],
        batch=batch,
        objective=BradleyTerry(options.centering),
        eval_loss=eval_loss,
        layout=layout,
        rows=[pair.chosen for pair in pairs],
    )
    return train_task(request, task)


class BradleyTerry:
    """The objective of reward models (:class:`~recipe_engine.training.trainer.Objective`); its items are pairs.

    Args:
        centering: see :func:`bradley_terry`.
    """

    def __init__(self, centering: float) -> None:
        self._centering = centering
        self._gaps: list[torch.Tensor] = []

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Summed over the pairs of a batch, whose better answers each come right before the worse ones."""
        chosen, rejected = model(batch).view(-1, 2).T
        self._gaps.append((chosen - rejected).detach())
        return bradley_terry(chosen, rejected, batch[_MARGINS], self._centering).sum()

    def items(self, batch: Mapping[str, Any]) -> int:
        """The pairs of a batch."""
        return len(batch[_MARGINS])

    def numbers(self) -> Mapping[str, float]:
        """``accuracy``, the share of pairs that are right, and ``margin``, the mean distance of their scores."""
        gaps, self._gaps = torch.cat(self._gaps), []
        return {"accuracy": (gaps > 0).float().mean().item(), "margin": gaps.mean().item()}


def bradley_terry(
    chosen: torch.Tensor, rejected: torch.Tensor, margins: torch.Tensor, centering: float
) -> torch.Tensor:
    """-log sigmoid(r_chosen - r_rejected - m) + c (r_chosen + r_rejected)^2 of each pair, in nats.

    Bradley and Terry, 1952; the margin as in Touvron et al., 2023 (Llama 2), equation 2; the second term, which fixes
    what the first leaves open, as in Eisenstein et al., 2023.

    Args:
        chosen: scores of the better answers, (pairs,).
        rejected: scores of the worse ones, (pairs,).
        margins: m, by how much the better ones should win, (pairs,).
        centering: c.

    Returns:
        (pairs,)
    """
    return -F.logsigmoid(chosen - rejected - margins) + centering * (chosen + rejected).square()


def pair_scores(
    model: Scoring[Any],
    pairs: Sequence[Pair],
    pad: int,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the better and of the worse answers, (pairs,) each, in float64; the model is left as it was.

    Args:
        model: the reward model.
        pairs: in any order.
        pad: id of the padding token.
        batch_size: pairs of one forward pass.
        progress: called with the finished and all answers.
    """
    found = scores(model, model.texts(_rows(pairs)), pad, batch_size=2 * batch_size, progress=progress)
    chosen, rejected = torch.tensor(found, dtype=torch.float64).view(-1, 2).T
    return chosen, rejected


def _rows(pairs: Sequence[Pair]) -> list[Row]:
    """Better and worse answers in turn, so that those to one prompt follow each other."""
    return [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]


def _margins(pairs: Sequence[Pair]) -> torch.Tensor:
    return torch.tensor([pair.margin for pair in pairs], dtype=torch.float32)
