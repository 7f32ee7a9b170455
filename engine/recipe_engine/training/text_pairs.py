"""A question and an answer as an encoder reads them: one sequence, in its tokenizer's own form for two texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOME_TEXT = "a"


@dataclass(frozen=True, slots=True)
class PairText:
    """What an encoder reads.

    Attributes:
        ids: token ids.
        second: position where the second text begins.
    """

    ids: tuple[int, ...]
    second: int

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)


@dataclass(frozen=True, slots=True)
class PairTokens:
    """A question and an answer in tokens, with what the tokenizer puts around them.

    Attributes:
        ids: token ids.
        of_answer: for each token whether it is the answer's.
        question: tokens of the question.
        answer_at: position where the answer begins.
    """

    ids: tuple[int, ...]
    of_answer: tuple[bool, ...]
    question: int
    answer_at: int


class PairReader:
    """Reads pairs of texts.

    Args:
        tokenizer: of an encoder.

    Attributes:
        marks_answers: whether its tokens have two types, the second from the answer on.
        before: tokens that it puts before a question.
        around: tokens that it puts before and after a question, up to the answer.

    Raises:
        UnresolvedInput: where the tokenizer has no form for two texts, or one that is not known here.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        probe = tokenizer(_SOME_TEXT, _SOME_TEXT)
        parts = probe.sequence_ids(0)
        if 0 not in parts or 1 not in parts or parts.index(0) > parts.index(1):
            raise UnresolvedInput("The tokenizer has no form for a question and its answer.")
        self.before: int = parts.index(0)
        self.around: int = parts.index(1) - parts.count(0)
        types = probe.get("token_type_ids") or []
        self.marks_answers = 1 in types
        if self.marks_answers and types != [int(at >= parts.index(1)) for at in range(len(parts))]:
            raise UnresolvedInput(
                "The tokenizer gives types to tokens that are not those of a question and its answer."
            )

    def read(self, question: str, answer: str) -> PairTokens:
        """The pair in tokens, however many they are."""
        found = self._tokenizer(question, answer, verbose=False)
        parts = found.sequence_ids(0)
        asked = parts.count(0)
        return PairTokens(
            ids=tuple(found["input_ids"]),
            of_answer=tuple(part == 1 for part in parts),
            question=asked,
            answer_at=self.around + asked,
        )

    def read_within(self, question: str, answer: str, limit: int) -> PairText:
        """The pair in at most so many tokens: the question loses its start, and the answer its end only after that.

        Args:
            question: the question.
            answer: the answer.
            limit: tokens.
        """
        tokens = self.read(question, answer)
        excess = max(0, len(tokens.ids) - limit)
        of_question = min(excess, tokens.question)
        ids = list(tokens.ids)
        end = tokens.answer_at + sum(tokens.of_answer)
        del ids[end - (excess - of_question) : end]
        del ids[self.before : self.before + of_question]
        return PairText(tuple(ids), tokens.answer_at - of_question)
