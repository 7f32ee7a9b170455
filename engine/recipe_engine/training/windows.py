"""Rows that are longer than what a model reads, in windows that overlap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipe_engine.training.rows import Row


def windows(row: Row, length: int | None, stride: int | None) -> list[Row]:
    """Cut a row so that each token that counts is measured once, with as much before it as its window holds.

    A window begins ``stride`` tokens behind the one before it, and measures the tokens that are new in it (the method
    that the documentation of transformers calls "perplexity of fixed-length models"). Windows without such a token
    are left out.

    Args:
        row: in which ``supervised`` marks the tokens that count; the first has nothing before it and never does.
        length: tokens of a window; a row that is no longer is a window as it is, and any is where ``None``.
        stride: less than ``length``; half of it where ``None``.

    Returns:
        The windows as rows; ``supervised`` marks what is measured in each.
    """
    tokens = len(row.input_ids)
    if length is None or tokens <= length:
        return [row]
    found, measured = [], 1
    for start in range(0, tokens, stride or length // 2):
        end = min(start + length, tokens)
        new = tuple(row.supervised[at] and at >= measured for at in range(start, end))
        if any(new):
            found.append(replace(row, input_ids=row.input_ids[start:end], supervised=new))
        measured = end
        if end == tokens:
            break
    return found


def longest_input(model: Any) -> int | None:
    """Tokens that a model was made to read at once; ``None`` where it does not say."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found
