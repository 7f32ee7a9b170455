"""The next token from a model's logits: the likeliest, or one that is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from recipe_engine.training.choice import Decoding


def choose(logits: torch.Tensor, decoding: Decoding, draws: torch.Tensor | None) -> torch.Tensor:
    """A token for each row, (rows,).

    Args:
        logits: (rows, vocabulary).
        decoding: how.
        draws: of each row a number from 0 to 1, below 1, (rows,), in float64; ``None`` for the likeliest token.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.argmax(dim=1) if draws is None else drawn(probabilities(wide, decoding), draws)


def probabilities(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """The distribution that a token is drawn from, as transformers has it: (rows, vocabulary).

    Args:
        logits: (rows, vocabulary), in float32 or wider.
        decoding: with a temperature above 0.
    """
    scores = logits / decoding.temperature
    if decoding.top_k:
        last = scores.topk(min(decoding.top_k, scores.shape[1])).values[:, -1:]
        scores = scores.masked_fill(scores < last, -torch.inf)
    if decoding.top_p < 1.0:
        ordered, order = scores.sort(dim=1)
        unlikely = ordered.softmax(dim=1).cumsum(dim=1) <= 1.0 - decoding.top_p
        unlikely[:, -1] = False
        scores = scores.masked_fill(unlikely.scatter(1, order, unlikely), -torch.inf)
    return scores.softmax(dim=1)


def drawn(shares: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The token at which the sum of the shares so far passes a number, (rows,).

    One number for a row does what ``torch.multinomial`` draws one for each token for, which on a CPU takes longer than
    the model's head. The sums are in float64, so that the unlikeliest tokens keep their share.

    Args:
        shares: probabilities, (rows, vocabulary).
        draws: from 0 to 1, below 1, (rows,), in float64.
    """
    sums = shares.cumsum(dim=1, dtype=torch.float64)
    found = torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)
    return found[:, 0].clamp_(max=shares.shape[1] - 1)
