"""Formats that the tokenizer's chat template turns into text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Segment
from recipe_engine.errors import UnresolvedInput

if TYPE_CHECKING:
    from recipe_engine.methods.options import FormatChat, FormatInstruction

Message = Mapping[str, str]
_SOME_ANSWER = "?"
_ROLES = ("system", "user", "assistant", "tool")


class Instruction:
    """``format = "instruction"``: one prompt and one answer a row."""

    def segments(self, row: Mapping[str, Any], options: FormatInstruction, tokenizer: Any) -> Sequence[Segment]:
        """The prompt in the chat template (or in ``options.template``), then the answer.

        Raises:
            ValueError: for a missing or empty field.
        """
        prompt, answer = _text(row, options.fields.prompt), _text(row, options.fields.completion)
        if not answer.strip():
            raise ValueError(f'the field "{options.fields.completion}" is empty')
        _check_end(answer, tokenizer)
        if options.template is not None:
            before = _opening(tokenizer) + options.template.replace("{prompt}", prompt)
            if not before:
                raise ValueError("nothing stands before the answer")
            return (
                Segment(before, supervised=False),
                Segment(answer + str(tokenizer.eos_token), supervised=True),
            )
        messages: list[Message] = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
        return conversation(_with_system(messages, options.system), tokenizer)

    def question(self, row: Mapping[str, Any], options: FormatInstruction) -> str:
        """The prompt."""
        return _text(row, options.fields.prompt)

    def prompt(self, messages: Sequence[Message], options: FormatInstruction, tokenizer: Any) -> str:
        """What stands before the answer to the last message; a template of its own knows no earlier ones."""
        if options.template is None:
            return _opened(_with_system([*messages], options.system), tokenizer)
        row = {options.fields.prompt: messages[-1]["content"], options.fields.completion: _SOME_ANSWER}
        return _before_last(self.segments(row, options, tokenizer))


class Chat:
    """``format = "chat"``: a list of messages a row."""

    def segments(self, row: Mapping[str, Any], options: FormatChat, tokenizer: Any) -> Sequence[Segment]:
        """Every message in the chat template; the assistant's are supervised.

        Raises:
            ValueError: for messages that are no conversation, or one without an answer.
        """
        messages = _messages(row, options.field)
        if messages[-1]["role"] != "assistant":
            raise ValueError("the last message is not the assistant's, so there is nothing to learn from it")
        return conversation(_with_system(messages, options.system), tokenizer)

    def question(self, row: Mapping[str, Any], options: FormatChat) -> str:
        """The last message that the assistant replies to."""
        return _messages(row, options.field)[-2]["content"]

    def prompt(self, messages: Sequence[Message], options: FormatChat, tokenizer: Any) -> str:
        """What stands before the answer to the conversation's last message."""
        return _opened(_with_system([*messages], options.system), tokenizer)


def conversation(messages: Sequence[Message], tokenizer: Any) -> list[Segment]:
    """Messages as the chat template renders them, cut at the borders of the assistant's answers.

    An answer ends with the end-of-sequence token, which is supervised too: the model must learn to stop. What the
    template puts after it belongs to the next prompt, and is dropped at the end of the conversation.

    Raises:
        ValueError: where the template rewrites earlier messages, so that no answer has a place of its own.
        UnresolvedInput: where the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UnresolvedInput(
            "The tokenizer has no chat template.",
            'Give the text around the prompt in the data table: template = "### Instruction:\\n{prompt}\\n\\n'
            '### Response:\\n"',
        )
    segments: list[Segment] = []
    done = ""
    for prompt, answer in _answers(messages, tokenizer):
        if not prompt.startswith(done):
            raise ValueError("the chat template rewrites earlier messages, so the answers cannot be told apart")
        segments += [Segment(prompt[len(done) :], supervised=False), Segment(answer, supervised=True)]
        done = prompt + answer
    last = segments[-1].text
    if tokenizer.eos_token not in last:
        segments[-1] = Segment(last + tokenizer.eos_token, supervised=True)
    return segments


def _answers(messages: Sequence[Message], tokenizer: Any) -> Iterator[tuple[str, str]]:
    """For each answer: all text before it, and the answer up to its end-of-sequence token."""
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        _check_end(message["content"], tokenizer)
        prompt = _render(messages[:position], tokenizer, generation=True)
        whole = _render(messages[: position + 1], tokenizer, generation=False)
        if not whole.startswith(prompt):
            raise ValueError("the chat template rewrites the prompt once it is answered")
        answer = whole[len(prompt) :]
        content, eos, _rest = answer.partition(tokenizer.eos_token)
        yield prompt, content + eos


def _check_end(answer: str, tokenizer: Any) -> None:
    if tokenizer.eos_token in answer:
        raise ValueError(
            f"the answer contains the end-of-sequence token {tokenizer.eos_token}, so what follows it would never be "
            "written"
        )


def _opened(messages: Sequence[Message], tokenizer: Any) -> str:
    """The text before an answer to the last message."""
    return _before_last(conversation([*messages, {"role": "assistant", "content": _SOME_ANSWER}], tokenizer))


def _before_last(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments[:-1])


def _render(messages: Sequence[Message], tokenizer: Any, *, generation: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {error}") from None
    return text


def _with_system(messages: list[Message], system: str | None) -> list[Message]:
    if system is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _messages(row: Mapping[str, Any], field: str) -> list[Message]:
    messages = row.get(field)
    if not isinstance(messages, list) or not messages:
        raise ValueError(f'the field "{field}" is not a list of messages')
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise ValueError(f"message {number} has no text in content")
        if message.get("role") not in _ROLES:
            raise ValueError(f'message {number} has the role "{message.get("role")}", not one of {", ".join(_ROLES)}')
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"message {number}, the assistant's, is empty")
    if messages[0]["role"] == "assistant":
        raise ValueError("the first message is the assistant's: nothing asks for it")
    return messages


def _text(row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        raise ValueError(f'the field "{field}" is missing; the row has {", ".join(sorted(row)) or "none"}')
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f'the field "{field}" is not text')
    return value


def _opening(tokenizer: Any) -> str:
    """The begin-of-sequence token, where the tokenizer puts one before plain text."""
    bos = tokenizer.bos_token_id
    starts_with_bos = bos is not None and list(tokenizer("")["input_ids"])[:1] == [bos]
    return str(tokenizer.bos_token) if starts_with_bos else ""
