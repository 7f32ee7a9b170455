"""The tokenizer that the engine took out of the base model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# A character that no vocabulary merges with the text after it.
_ANCHOR = "\n"


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of an artifact; it always has a padding token."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text that nothing stands before; no special token is added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def continued_ids(tokenizer: Any, before: str, text: str) -> list[int]:
    """Tokens of a text that goes on after another, without a merge over the border.

    SentencePiece's tokenizers (Llama 2, Mistral) put a space before whatever they are given, so a text on its own has
    other tokens than in its place: ``▁▁Paris`` for `` Paris``. Tokenized after a character that merges with nothing,
    it has those that generation writes.

    Args:
        tokenizer: of the base.
        before: the text that it follows; where that ends with a special token, it decides.
        text: the text.
    """
    if not before or not _marks_beginnings(tokenizer, len(tokenizer)):
        return token_ids(tokenizer, text)
    ends = [token for token in special_tokens(tokenizer).values() if before.endswith(token)]
    anchor = max(ends, key=len, default=_ANCHOR)
    whole, start = token_ids(tokenizer, anchor + text), token_ids(tokenizer, anchor)
    return whole[len(start) :] if whole[: len(start)] == start else token_ids(tokenizer, text)


def special_tokens(tokenizer: Any) -> Mapping[int, str]:
    """Every special token by its number, the end-of-sequence token among them."""
    return _special_tokens(tokenizer, len(tokenizer))


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: Any, _size: int) -> Mapping[int, str]:
    """The same of a tokenizer of this size; some have thousands of added tokens to look through."""
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return named | {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}


@lru_cache(maxsize=4)
def _marks_beginnings(tokenizer: Any, _size: int) -> bool:
    """Whether a tokenizer of this size gives a text other tokens where it begins than in the middle."""
    whole: Sequence[int] = token_ids(tokenizer, _ANCHOR + "a")
    return whole[len(token_ids(tokenizer, _ANCHOR)) :] != token_ids(tokenizer, "a")
