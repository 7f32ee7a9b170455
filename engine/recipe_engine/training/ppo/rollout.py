"""Answers of the policy to the prompts of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Answer
from recipe_engine.errors import StageFailed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import stopping_tokens, write
from recipe_engine.training.rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.training.on_policy import OnPolicy


def check_room(model: Any, prompts: Sequence[Row], max_new_tokens: int) -> None:
    """Whether every prompt leaves room for an answer.

    Raises:
        StageFailed: with the number of a row that does not.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(prompts, key=lambda row: len(row.input_ids))
    length = len(longest.input_ids)
    if limit is not None and length + max_new_tokens > limit:
        raise StageFailed(
            f"train: row {longest.number}: a prompt of {length} tokens and an answer of {max_new_tokens} are more than "
            f"the {limit} tokens that the model reads.",
            "Lower max_new_tokens, or max_length of the prompts.",
        )


def write_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Row], positions: Sequence[int], options: OnPolicy
) -> list[Answer]:
    """Sample an answer to each prompt.

    Args:
        model: a causal language model; it is left as it was.
        tokenizer: its tokenizer.
        prompts: all of the data set.
        positions: of those that are answered.
        options: of the training.

    Returns:
        The answers in the order of ``positions``; each has one token at least, and that may be the end-of-sequence.
    """
    decoding = Decoding(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        min_new_tokens=options.min_new_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    chosen = [prompts[position].input_ids for position in positions]
    at_once = options.generation_size or len(chosen)
    written = write(model, tokenizer, chosen, decoding, at_once=at_once, progress=lambda _done, _total: None)
    ends = stopping_tokens(model, tokenizer, decoding)
    return [
        _answer(tokenizer, prompts[position], tokens, ends) for position, tokens in zip(positions, written, strict=True)
    ]


def as_row(answer: Answer) -> Row:
    """The answer with its prompt, as a row whose answer is learned."""
    prompt, length = answer.prompt_tokens, len(answer.tokens) - answer.prompt_tokens
    return Row(
        number=answer.row,
        input_ids=answer.tokens,
        supervised=(False,) * prompt + (True,) * length,
        prompt_length=prompt,
        question=answer.question,
        reference="",
    )


def _answer(tokenizer: Any, prompt: Row, tokens: list[int], ends: Sequence[int]) -> Answer:
    ended = tokens[-1] in ends
    return Answer(
        question=prompt.question,
        prompt=tokenizer.decode(prompt.input_ids),
        text=tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True),
        tokens=(*prompt.input_ids, *tokens),
        prompt_tokens=len(prompt.input_ids),
        ended=ended,
        row=prompt.number,
    )
