"""Keys and values of sequences that are being written, and attention over them, without padding.

A forward pass takes tokens end to end in one sequence of shape (1, tokens), as in training. Either they are prompts,
each with all its tokens, or one further token of each sequence that is being written. Keys and values of the sequences
lie side by side, written in place and never copied; how many of them a sequence sees is known to the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.training.packed_attention import attending, attention_by_row
from recipe_engine.training.segments import SEGMENTS, Segments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

NAME = "recipe_places"
PASS = "places_pass"  # noqa: S105 -- no password
"""The keyword by which a forward pass brings its :class:`Arrival` or :class:`Step` to every layer's attention."""


_BLOCK = 32  # tokens by which the room of all sequences grows


class Places:
    """Room for sequences; those that are being written are in the first places.

    Args:
        count: sequences at once.

    Attributes:
        lengths: tokens of the sequence in each place that is taken.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self.lengths: list[int] = []

    def of(self, layer: torch.nn.Module, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer keeps of all sequences: keys and values, each (places, key heads, room, width).

        All of the room is multiplied, as a CPU's products would copy a part of it.

        Args:
            layer: the attention of a layer.
            key: of some tokens, (1, key heads, tokens, width).
            value: as ``key``.
        """
        room = -(-max(self.lengths) // _BLOCK) * _BLOCK
        kept = self._kept.get(layer)
        if kept is None or kept[0].shape[2] < room:
            keys, values = kept if kept is not None else (None, None)
            self._kept[layer] = _grown(keys, key, self._count, room), _grown(values, value, self._count, room)
        return self._kept[layer]

    def leave(self, place: int) -> None:
        """Free a place; the sequence of the last place that is taken moves there."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if place == last:
            return
        self.lengths[place] = length
        for keys, values in self._kept.values():
            keys[place, :, :length] = keys[last, :, :length]
            values[place, :, :length] = values[last, :, :length]


def _grown(kept: torch.Tensor | None, like: torch.Tensor, count: int, room: int) -> torch.Tensor:
    """The same with more room: (places, key heads, room, width).

    Args:
        kept: so far; ``None`` for nothing.
        like: of some tokens, (1, key heads, tokens, width).
        count: places.
        room: tokens.
    """
    # What is not written yet must be a number, as it is multiplied with a weight of 0.
    grown = like.new_zeros(count, like.shape[1], room, like.shape[3])
    if kept is not None:
        grown[:, :, : kept.shape[2]] = kept
    return grown


class Arrival:
    """A pass over whole prompts, which take the next places.

    Args:
        places: where they go.
        lengths: tokens of each prompt.
    """

    def __init__(self, places: Places, lengths: Sequence[int]) -> None:
        self._places = places
        self._first = len(places.lengths)
        self._segments = Segments(lengths)
        places.lengths += lengths

    def attend(
        self, layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **asked: Any
    ) -> torch.Tensor:
        """Each prompt within itself: (1, tokens, heads, width)."""
        keys, values = self._places.of(layer, key, value)
        lengths = self._segments.lengths
        rows = zip(key[0].split(lengths, dim=1), value[0].split(lengths, dim=1), strict=True)
        for place, (row_keys, row_values) in enumerate(rows, start=self._first):
            keys[place, :, : row_keys.shape[1]] = row_keys
            values[place, :, : row_values.shape[1]] = row_values
        return attention_by_row(layer, query, key, value, None, **asked, **{SEGMENTS: self._segments})[0]


class Step:
    """A pass over one further token of each sequence.

    Args:
        places: of the sequences; each is a token longer afterwards.
        device: of the model.
    """

    def __init__(self, places: Places, device: torch.device) -> None:
        self._places = places
        self._at = torch.tensor(places.lengths, device=device)
        self._rows = torch.arange(len(places.lengths), device=device)
        self._masks: dict[tuple[int | None, torch.dtype], torch.Tensor] = {}
        places.lengths = [length + 1 for length in places.lengths]

    @property
    def positions(self) -> torch.Tensor:
        """Of the tokens in their sequences, (sequences,)."""
        return self._at

    def attend(
        self, layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **asked: Any
    ) -> torch.Tensor:
        """Each token to its own sequence: (1, sequences, heads, width)."""
        keys, values = self._places.of(layer, key, value)
        keys[self._rows, :, self._at] = key[0].transpose(0, 1)
        values[self._rows, :, self._at] = value[0].transpose(0, 1)
        _, heads, count, width = query.shape
        key_heads, room = keys.shape[1:3]
        # Query heads that share a key head are further rows of its product.
        queries = query[0].transpose(0, 1).reshape(count * key_heads, heads // key_heads, width)
        scaling, cap = asked.get("scaling"), asked.get("softcap")
        scores = torch.bmm(queries, keys[:count].flatten(0, 1).transpose(1, 2))
        scores *= scaling if scaling is not None else width**-0.5
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        scores = scores.view(count, heads, room) + self._mask(room, asked.get("sliding_window"), scores.dtype)
        weights = torch.softmax(scores, dim=-1).view(count * key_heads, heads // key_heads, room)
        out = torch.bmm(weights, values[:count].flatten(0, 1))
        return out.view(1, count, heads, -1)

    def _mask(self, room: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to scores: minus infinity where a token is not seen, (sequences, 1, room)."""
        if (window, dtype) not in self._masks:
            behind = self._at[:, None] - torch.arange(room, device=self._at.device)
            hidden = behind < 0
            if window is not None:
                hidden |= behind >= window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self._masks[window, dtype] = mask[:, None]
        return self._masks[window, dtype]


def attention_in_places(model: Any) -> AbstractContextManager[None]:
    """Let a model attend by what its forward pass brings as :data:`PASS`, for the time of the block."""
    return attending(model, NAME, _attention)


def _attention(
    layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: None, **asked: Any
) -> tuple[torch.Tensor, None]:
    """An attention function in the form that transformers calls.

    Raises:
        ValueError: where the model did not hand on the pass.
    """
    forward = asked.pop(PASS, None)
    if forward is None:
        raise ValueError("the model does not hand on where its sequences are")
    return forward.attend(layer, query, key, value, **asked), None
