"""How the tokens of an answer are chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: where an answer is cut.
        temperature: 0 for the most likely answer, more for a random one.
        stops: tokens that end an answer, besides those that tokenizer and model name.
        min_new_tokens: before which no answer ends.
        top_k: draw from so many most likely tokens; 0 for all.
        top_p: draw from the fewest tokens that are together this likely; 1 for all.
    """

    max_new_tokens: int
    temperature: float = 0.0
    stops: tuple[int, ...] = ()
    min_new_tokens: int = 0
    top_k: int = 0
    top_p: float = 1.0
