"""Answers to many prompts, token by token, through the unedited model's forward pass.

What differs from transformers' ``generate`` is how sequences lie in memory and what is computed for each token: there
is no padding, keys and values are written in place, an answer that ends makes room for the next prompt, and the head
sees the positions that predict. Which token comes next is decided as there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.training.batches import by_length
from recipe_engine.training.head import head_of
from recipe_engine.training.held_adapters import held_adapters
from recipe_engine.training.layout import layout_of
from recipe_engine.training.packed_weights import packed_weights
from recipe_engine.training.places import PASS, Arrival, Places, Step, attention_in_places
from recipe_engine.training.sampling import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.training.choice import Decoding

# Prompts that are read at once: enough for full products, few enough that their activations stay small.
_TOKENS_AT_ONCE = 4096
# Their angles depend on the longest sequence of a batch, so that a row's answer would depend on its neighbours.
_ROPES_OF_A_BATCH = frozenset({"dynamic", "longrope"})


def can_decode(config: Mapping[str, Any]) -> bool:
    """Whether a model's answers can be written here: its attention takes rows end to end, and keeps keys and values.

    Args:
        config: the model's config.json.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    return layout_of(config) == "packed" and not kinds & _ROPES_OF_A_BATCH


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    ends: Sequence[int],
    *,
    at_once: int,
    progress: Callable[[int, int], None],
) -> list[list[int]]:
    """An answer to each prompt.

    An answer depends on its prompt and its draws, not on the others: all draws are taken from the generator at the
    beginning, a number for each token that there may be.

    Args:
        model: a causal language model of transformers that :func:`can_decode`, or a PEFT model around one; in
            evaluation mode.
        prompts: token ids of each.
        decoding: how.
        ends: tokens that end an answer.
        at_once: answers that are written at once.
        progress: called with the finished and all prompts.

    Returns:
        Tokens of each answer, the one that ends it included.
    """
    writer = _Writer(model, prompts, decoding, ends)
    rows = min(at_once, len(prompts))
    with torch.no_grad(), held_adapters(model), packed_weights(model, rows), attention_in_places(model):
        return writer.write(at_once, progress)


class _Writer:
    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], decoding: Decoding, ends: Sequence[int]) -> None:
        language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._backbone = language_model.base_model
        self._head = head_of(language_model)
        self._device = language_model.device
        self._prompts = prompts
        self._decoding = decoding
        self._ends = torch.tensor(ends, device=self._device)
        self._ending = frozenset(ends)
        self._draws = None
        if decoding.temperature:
            shape = len(prompts), decoding.max_new_tokens
            self._draws = torch.rand(shape, dtype=torch.float64).to(self._device)
        self._written: list[list[int]] = [[] for _ in prompts]

    def write(self, at_once: int, progress: Callable[[int, int], None]) -> list[list[int]]:
        """All answers; see :func:`decode`."""
        waiting = deque(number for part in by_length(self._prompts, at_once) for number in part)
        places, done = Places(min(at_once, len(waiting))), 0
        sitting: list[int] = []
        while waiting or sitting:
            if waiting and len(sitting) < at_once:
                first = len(sitting)
                sitting += self._called(waiting, at_once - first)
                states = self._read(places, sitting[first:])
            else:
                first = 0
                states = self._go_on(places, sitting)
            self._choose(sitting[first:], states)
            ended = [place for place in range(first, len(sitting)) if self._has_ended(sitting[place])]
            for place in reversed(ended):
                places.leave(place)
                sitting[place] = sitting[-1]
                sitting.pop()
            done += len(ended)
            if ended:
                progress(done, len(self._prompts))
        return self._written

    def _called(self, waiting: deque[int], free: int) -> list[int]:
        """The next prompts: as many as there is room for, and one at least."""
        called = [waiting.popleft()]
        tokens = len(self._prompts[called[0]])
        while waiting and len(called) < free:
            tokens += len(self._prompts[waiting[0]])
            if tokens > _TOKENS_AT_ONCE:
                break
            called.append(waiting.popleft())
        return called

    def _read(self, places: Places, numbers: Sequence[int]) -> torch.Tensor:
        """Hidden states of the last tokens of some prompts, (prompts, width)."""
        prompts = [self._prompts[number] for number in numbers]
        lengths = [len(prompt) for prompt in prompts]
        tokens = [token for prompt in prompts for token in prompt]
        positions = torch.cat([torch.arange(length) for length in lengths])
        states = self._forward(tokens, positions.to(self._device), Arrival(places, lengths))
        return states[torch.tensor(lengths, device=self._device).cumsum(0) - 1]

    def _go_on(self, places: Places, numbers: Sequence[int]) -> torch.Tensor:
        """Hidden states of the last tokens of the answers, (answers, width)."""
        step = Step(places, self._device)
        return self._forward([self._written[number][-1] for number in numbers], step.positions, step)

    def _forward(self, tokens: Sequence[int], positions: torch.Tensor, forward: Arrival | Step) -> torch.Tensor:
        ids = torch.tensor(tokens, device=self._device)[None]
        found = self._backbone(input_ids=ids, position_ids=positions[None], use_cache=False, **{PASS: forward})
        states: torch.Tensor = found.last_hidden_state[0]
        return states

    def _choose(self, numbers: Sequence[int], states: torch.Tensor) -> None:
        """Write the next token of some answers, given what predicts it, (answers, width)."""
        logits = self._head(states)
        lengths = [len(self._written[number]) for number in numbers]
        early = [place for place, length in enumerate(lengths) if length < self._decoding.min_new_tokens]
        if early:
            logits[torch.tensor(early, device=self._device)[:, None], self._ends] = -torch.inf
        draws = self._draws[numbers, lengths] if self._draws is not None else None
        for number, token in zip(numbers, choose(logits, self._decoding, draws).tolist(), strict=True):
            self._written[number].append(token)

    def _has_ended(self, number: int) -> bool:
        written = self._written[number]
        return written[-1] in self._ending or len(written) == self._decoding.max_new_tokens
