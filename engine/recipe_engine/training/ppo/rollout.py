"""Answers of the policy to the prompts of a step."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Answer
from recipe_engine.errors import StageFailed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import stopping_tokens, write
from recipe_engine.training.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from recipe_engine.training.on_policy import OnPolicy

    Writer = Callable[[Sequence[Sequence[int]], Decoding, Sequence[int]], list[list[int]]]
    """From tokens of prompts, how to answer, and the tokens that end an answer, to the tokens of the answers."""


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


@contextmanager
def open_writer(model: Any, tokenizer: Any, prompts: Sequence[Row], options: OnPolicy, work: Path) -> Iterator[Writer]:
    """What writes the answers of a training, for the time of the block.

    Args:
        model: a causal language model; the answers are always those of its weights as they are when one is asked for.
        tokenizer: its tokenizer.
        prompts: all of the data set.
        options: of the training.
        work: a folder for files of the moment.
    """
    if options.rollout == "model":
        yield partial(_write, model, tokenizer, options.generation_size)
        return
    from recipe_engine.training.ppo.vllm_writer import VllmWriter

    longest = max(len(row.input_ids) for row in prompts) + options.max_new_tokens
    writer = VllmWriter(model, work, longest=longest, memory=options.vllm_memory)
    try:
        yield writer
    finally:
        writer.close()


def write_answers(
    writer: Writer, model: Any, tokenizer: Any, prompts: Sequence[Row], options: OnPolicy
) -> list[Answer]:
    """Sample an answer to each prompt.

    Args:
        writer: of :func:`open_writer`.
        model: the causal language model that answers; it is left as it was.
        tokenizer: its tokenizer.
        prompts: that are answered.
        options: of the training.

    Returns:
        The answers in the order of the prompts; each has one token at least, and that may be the end-of-sequence.
    """
    decoding = Decoding(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        min_new_tokens=options.min_new_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    ends = stopping_tokens(model, tokenizer, decoding)
    written = writer([prompt.input_ids for prompt in prompts], decoding, ends)
    return [_answer(tokenizer, prompt, tokens, ends) for prompt, tokens in zip(prompts, written, strict=True)]


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


def _write(
    model: Any,
    tokenizer: Any,
    at_once: int | None,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    _ends: Sequence[int],
) -> list[list[int]]:
    """By the model itself."""
    return write(
        model, tokenizer, prompts, decoding, at_once=at_once or len(prompts), progress=lambda _done, _total: None
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
