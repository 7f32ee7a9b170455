"""What is trained, what it is held to, and what both make of answers that lie in memory."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

from recipe_engine.training.adapters import ADAPTER
from recipe_engine.training.batches import IGNORE, collate, collate_packed
from recipe_engine.training.loss import on_device
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.prefixes import shares_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.training.layout import Layout
    from recipe_engine.training.rows import Row

_ACTIVE = "_active_adapter"  # where a layer of PEFT's has the names of its adapters that are at work


class Policy(torch.nn.Module):
    """A language model and its value head: a linear layer in float32 on the last hidden states, which starts at 0.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        width = model.config.get_text_config().hidden_size
        dtype = torch.promote_types(model.dtype, torch.float32)
        self.value: Any = torch.nn.utils.skip_init(torch.nn.Linear, width, 1, dtype=dtype, device=model.device)
        torch.nn.init.zeros_(self.value.weight)
        torch.nn.init.zeros_(self.value.bias)

    def values(self, states: torch.Tensor) -> torch.Tensor:
        """(positions,) from the hidden states (positions, width)."""
        found: torch.Tensor = self.value(states.to(self.value.weight.dtype))[:, 0]
        return found


class Reference:
    """The policy as it was before its training: with its own adapter off, or a frozen copy where it has none.

    The adapters of the recipe that it builds on stay at work. A copy shares the weights that are not trained.

    Args:
        model: what is about to be trained.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._copy = None
        if ADAPTER not in getattr(model, "peft_config", {}):
            shared = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
            self._copy = copy.deepcopy(model, shared).requires_grad_(requires_grad=False)

    @contextmanager
    def at_hand(self, layout: Layout) -> Iterator[Any]:
        """The model to ask, for the time of the block."""
        if self._copy is not None:
            with packed_attention(self._copy) if layout == "packed" else nullcontext():
                yield self._copy
            return
        with ExitStack() as afterwards:
            for module in self._model.modules():
                active = vars(module).get(_ACTIVE)
                if active is not None:
                    afterwards.callback(setattr, module, _ACTIVE, active)
                    names = [active] if isinstance(active, str) else active
                    setattr(module, _ACTIVE, [name for name in names if name != ADAPTER])
            yield self._model


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers with their prompts as a model takes them.

    Attributes:
        inputs: of the backbone.
        predicting: positions whose states predict the tokens of the answers, in the states end to end, (tokens,).
        targets: those tokens, (tokens,).
        last: positions of the last token of each answer, (answers,).
    """

    inputs: dict[str, Any]
    predicting: torch.Tensor
    targets: torch.Tensor
    last: torch.Tensor


def collate_answers(rows: Sequence[Row], layout: Layout, pad: int, device: Any) -> Batch:
    """A batch of rows, whose answers are their supervised tokens.

    Args:
        rows: each has a prompt of one token at least, and an answer of one token at least.
        layout: end to end, or side by side.
        pad: id of the padding token.
        device: where it goes.
    """
    batch = collate_packed(rows, shared=shares_on(device)) if layout == "packed" else collate(rows, pad)
    labels = batch.pop("labels")
    predicting = (F.pad(labels[:, 1:], (0, 1), value=IGNORE) != IGNORE).flatten().nonzero()[:, 0]
    lengths = torch.tensor([sum(row.supervised) for row in rows])
    last = predicting[lengths.cumsum(0) - 1] + 1
    found = (part.to(device) for part in (predicting, labels[labels != IGNORE], last))
    return Batch(on_device(batch, device), *found)


def hidden_states(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states of all positions, those of a padded batch row by row: (positions, width).

    Args:
        model: a causal language model of transformers, or a PEFT model around one; for a packed batch within
            :func:`~recipe_engine.training.packed_attention.packed_attention`.
        batch: of :func:`collate_answers`.
    """
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    states: torch.Tensor = language_model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    return states.flatten(0, 1)
