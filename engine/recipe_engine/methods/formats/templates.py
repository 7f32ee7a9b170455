"""Formats of rows that hold answers: ``instruction`` and ``chat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Segment
from recipe_engine.methods.formats.conversation import before_last, check_answer, conversation, opened
from recipe_engine.methods.formats.messages import Message, answered, messages_of, text_of, tools_of, with_system

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_engine.methods.options import FormatChat, FormatInstruction

_SOME_ANSWER = "?"


class Instruction:
    """``format = "instruction"``: one prompt and one answer a row."""

    def segments(self, row: Mapping[str, Any], options: FormatInstruction, tokenizer: Any) -> Sequence[Segment]:
        """The prompt in the chat template (or in ``options.template``), then the answer.

        Raises:
            ValueError: for a missing or empty field.
        """
        prompt, answer = text_of(row, options.fields.prompt), text_of(row, options.fields.completion)
        if not answer.strip():
            raise ValueError(f'the field "{options.fields.completion}" is empty')
        check_answer(answer, tokenizer)
        if options.template is not None:
            before = opening(tokenizer) + options.template.replace("{prompt}", prompt)
            if not before:
                raise ValueError("nothing stands before the answer")
            return (
                Segment(before, supervised=False),
                Segment(answer + str(tokenizer.eos_token), supervised=True),
            )
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return conversation(with_system(messages, options.system), tokenizer)

    def question(self, row: Mapping[str, Any], options: FormatInstruction) -> str:
        """The prompt."""
        return text_of(row, options.fields.prompt)

    def prompt(self, messages: Sequence[Message], options: FormatInstruction, tokenizer: Any) -> str:
        """What stands before the answer to the last message; a template of its own knows no earlier ones."""
        if options.template is None:
            return opened(with_system(messages, options.system), tokenizer)
        row = {options.fields.prompt: messages[-1]["content"], options.fields.completion: _SOME_ANSWER}
        return before_last(self.segments(row, options, tokenizer))


class Chat:
    """``format = "chat"``: a list of messages a row."""

    def segments(self, row: Mapping[str, Any], options: FormatChat, tokenizer: Any) -> Sequence[Segment]:
        """Every message in the chat template; the assistant's are supervised, or the last of them.

        Raises:
            ValueError: for messages that are no conversation, or one without an answer.
        """
        messages = with_system(answered(messages_of(row, options.field)), options.system)
        return conversation(messages, tokenizer, tools=tools_of(row), last_only=options.train_on == "last")

    def question(self, row: Mapping[str, Any], options: FormatChat) -> str:
        """The last message that the assistant replies to."""
        return str(messages_of(row, options.field)[-2]["content"])

    def prompt(self, messages: Sequence[Message], options: FormatChat, tokenizer: Any) -> str:
        """What stands before the answer to the conversation's last message."""
        return opened(with_system(messages, options.system), tokenizer)


def opening(tokenizer: Any) -> str:
    """The begin-of-sequence token, where the tokenizer puts one before plain text."""
    bos = tokenizer.bos_token_id
    starts_with_bos = bos is not None and list(tokenizer("")["input_ids"])[:1] == [bos]
    return str(tokenizer.bos_token) if starts_with_bos else ""
