"""Formats of rows without an answer, or with two: ``text``, ``prompt`` and ``preference``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Segment
from recipe_engine.methods.formats.conversation import conversation, opened
from recipe_engine.methods.formats.messages import (
    Message,
    answered,
    listed,
    messages_of,
    plain_text,
    text_of,
    tools_of,
    with_system,
)
from recipe_engine.methods.formats.templates import opening

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_engine.methods.options import FormatPreference, FormatPrompt, FormatText


class Text:
    """``format = "text"``: a text a row, all of it learned."""

    def segments(self, row: Mapping[str, Any], options: FormatText, tokenizer: Any) -> Sequence[Segment]:
        """The text and its end-of-sequence token, unless it ends with one.

        Special tokens inside of it are what it says: texts that a chat template has rendered are full of them.

        Raises:
            ValueError: for a missing or empty field.
        """
        text = text_of(row, options.field)
        if not text.strip():
            raise ValueError(f'the field "{options.field}" is empty')
        before = opening(tokenizer)
        before = "" if text.startswith(before) else before
        learned = Segment(text.removesuffix(tokenizer.eos_token) + str(tokenizer.eos_token), supervised=True)
        return (Segment(before, supervised=False), learned) if before else (learned,)

    def question(self, row: Mapping[str, Any], options: FormatText) -> str:
        """Nothing: a text replies to nobody."""
        del row, options
        return ""

    def prompt(self, messages: Sequence[Message], options: FormatText, tokenizer: Any) -> str:
        """The last message as it is: the model goes on from there."""
        del options
        return opening(tokenizer) + str(messages[-1]["content"])


class Prompt:
    """``format = "prompt"``: a question a row, as text or as the messages of a conversation."""

    def segments(self, row: Mapping[str, Any], options: FormatPrompt, tokenizer: Any) -> Sequence[Segment]:
        """What stands before the answer.

        Raises:
            ValueError: for a missing field, a conversation that ends with an answer, or one that a template of its own
                has no place for.
        """
        messages = _asked(row, options.field)
        if messages[-1]["role"] == "assistant":
            raise ValueError("the last message is the assistant's: nothing is left to answer")
        if options.template is not None and len(messages) > 1:
            raise ValueError("it has several messages, and the template has a place for one")
        return (Segment(self.prompt(messages, options, tokenizer), supervised=False),)

    def question(self, row: Mapping[str, Any], options: FormatPrompt) -> str:
        """The last message."""
        return str(_asked(row, options.field)[-1]["content"])

    def plain(self, row: Mapping[str, Any], options: FormatPrompt) -> str:
        """All messages, as an encoder that judges the answer reads them."""
        return plain_text(with_system(_asked(row, options.field), options.system))

    def prompt(self, messages: Sequence[Message], options: FormatPrompt, tokenizer: Any) -> str:
        """What stands before the answer to the last message; a template of its own knows no earlier ones."""
        if options.template is not None:
            return opening(tokenizer) + options.template.replace("{prompt}", str(messages[-1]["content"]))
        return opened(with_system(messages, options.system), tokenizer)


class Preference:
    """``format = "preference"``: a prompt, a better and a worse answer a row.

    Each is text, or a list of messages; the answers may repeat the prompt's messages, as TRL's implicit prompts do.
    """

    def pair(
        self, row: Mapping[str, Any], options: FormatPreference, tokenizer: Any
    ) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """The conversation with the better answer, and that with the worse one; only the last answer counts.

        Raises:
            ValueError: for a missing field, two equal answers, or answers to different prompts.
        """
        chosen, rejected = _both(row, options)
        tools = tools_of(row)
        better, worse = (
            conversation(messages, tokenizer, tools=tools, last_only=True) for messages in (chosen, rejected)
        )
        return better, worse

    def texts(self, row: Mapping[str, Any], options: FormatPreference) -> tuple[str, str, str]:
        """What both answers reply to, the better and the worse one, as plain text.

        Raises:
            ValueError: as in :meth:`pair`, and where a tool is called.
        """
        chosen, rejected = _both(row, options)
        if tools_of(row):
            raise ValueError("it has tools, for which there is no plain text")
        return plain_text(chosen[:-1]), plain_text(chosen[-1:]), plain_text(rejected[-1:])

    def margin(self, row: Mapping[str, Any], options: FormatPreference) -> float:
        """The number in its field, where one is named.

        Raises:
            ValueError: for a missing field, or one that holds no finite number.
        """
        field = options.fields.margin
        if field is None:
            return 0.0
        value = row.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f'the field "{field}" holds no finite number')
        return float(value)

    def question(self, row: Mapping[str, Any], options: FormatPreference) -> str:
        """What both answers reply to."""
        fields = options.fields
        return str(_whole(row, fields.prompt, fields.chosen, None)[-2]["content"])

    def prompt(self, messages: Sequence[Message], options: FormatPreference, tokenizer: Any) -> str:
        """What stands before the answer to the conversation's last message."""
        return opened(with_system(messages, options.system), tokenizer)


def _both(row: Mapping[str, Any], options: FormatPreference) -> tuple[list[Message], list[Message]]:
    """The conversation with the better answer, and that with the worse one."""
    fields = options.fields
    chosen, rejected = (
        _whole(row, fields.prompt, answer, options.system) for answer in (fields.chosen, fields.rejected)
    )
    if chosen[-1] == rejected[-1]:
        raise ValueError("its two answers are equal")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("its two answers are not to the same prompt")
    return chosen, rejected


def _asked(row: Mapping[str, Any], field: str) -> Sequence[Message]:
    if isinstance(row.get(field), list):
        return messages_of(row, field)
    text = text_of(row, field)
    if not text.strip():
        raise ValueError(f'the field "{field}" is empty')
    return [{"role": "user", "content": text}]


def _whole(row: Mapping[str, Any], prompt: str, answer: str, system: str | None) -> list[Message]:
    """The prompt's messages and the answer's, each once."""
    if isinstance(row.get(answer), list):
        given = listed(row, answer)
        before = list(_asked(row, prompt)) if row.get(prompt) is not None else []
        whole = given if given[: len(before)] == before else [*before, *given]
    else:
        whole = [*_asked(row, prompt), {"role": "assistant", "content": text_of(row, answer)}]
    return with_system(answered(messages_of({answer: whole}, answer)), system)
