"""A conversation as the tokenizer's chat template renders it, cut at the borders of the assistant's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Segment
from recipe_engine.errors import UnresolvedInput
from recipe_engine.training.tokenizer import special_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.methods.formats.messages import Message

# Stands for an answer where only its surroundings are asked for; no template changes a plain word.
_SOME_ANSWER = "SomeAnswer"


def conversation(
    messages: Sequence[Message], tokenizer: Any, *, tools: Sequence[Any] | None = None, last_only: bool = False
) -> list[Segment]:
    """Segments in turn: what is given, and an answer that is learned.

    An answer ends with the special token that the template puts after its content (``<|im_end|>``, ``</s>``,
    ``<end_of_turn>``), which is learned too, as the model must learn to stop; the last answer gets the
    end-of-sequence token where the template puts none. What follows that token belongs to the next prompt, and is
    dropped at the end of the conversation.

    Args:
        messages: the conversation; it ends with an answer.
        tokenizer: has the chat template.
        tools: descriptions of functions that the assistant may call.
        last_only: learn the last answer alone; the earlier ones are part of what is given.

    Raises:
        ValueError: where the template refuses or leaves out a part of the conversation, or rewrites what came before
            an answer, so that the answer has no place of its own.
        UnresolvedInput: where the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UnresolvedInput(
            "The tokenizer has no chat template.",
            'Give the text around the prompt in the data table: template = "### Instruction:\\n{prompt}\\n\\n'
            '### Response:\\n"',
        )
    if tools and "tools" not in str(tokenizer.chat_template):
        raise ValueError("the chat template has no place for tools")
    positions = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
    segments: list[Segment] = []
    done = prompt = ""
    for position in positions[-1:] if last_only else positions:
        prompt, answer = _answer(messages, position, tokenizer, tools)
        if not prompt.startswith(done):
            raise ValueError(
                "the chat template rewrites earlier answers, so they cannot be learned where they stand; "
                'train_on = "last" learns the last one'
            )
        segments += [Segment(prompt[len(done) :], supervised=False), Segment(answer, supervised=True)]
        done = prompt + answer
    _check_given(messages, prompt)
    last = segments[-1].text
    if not last.endswith(tuple(special_tokens(tokenizer).values())):
        segments[-1] = Segment(last + tokenizer.eos_token, supervised=True)
    return segments


def opened(messages: Sequence[Message], tokenizer: Any) -> str:
    """The text before an answer to the last message."""
    asked = [*messages, {"role": "assistant", "content": _SOME_ANSWER}]
    return before_last(conversation(asked, tokenizer, last_only=True))


def before_last(segments: Sequence[Segment]) -> str:
    """All but the last answer."""
    return "".join(segment.text for segment in segments[:-1])


def check_answer(answer: str, tokenizer: Any) -> None:
    """An answer may hold no token that would end it.

    Raises:
        ValueError: where it does.
    """
    for token in special_tokens(tokenizer).values():
        if token in answer:
            raise ValueError(
                f"the answer contains the special token {token}, so what follows it would never be written"
            )


def _answer(messages: Sequence[Message], position: int, tokenizer: Any, tools: Sequence[Any] | None) -> tuple[str, str]:
    """All text before an answer, and the answer up to the special token that ends it."""
    content, calls = messages[position]["content"], messages[position].get("tool_calls")
    check_answer(content, tokenizer)
    end = _end_of_turn(messages[:position], tokenizer, tools)
    prompt = _render(messages[:position], tokenizer, tools, generation=True)
    whole = _render(messages[: position + 1], tokenizer, tools, generation=False)
    if not whole.startswith(prompt):
        raise ValueError("the chat template rewrites the prompt once it is answered")
    answer = whole[len(prompt) :]
    if not _holds(answer, content):
        raise ValueError("the chat template leaves out a part of the answer")
    if calls and end not in answer:
        # A template may end a call with another token than an answer in words.
        end = max(special_tokens(tokenizer).values(), key=answer.rfind)
    if not end or end not in answer:
        return prompt, answer
    stop = answer.rindex(end) if calls else answer.index(end)
    return prompt, answer[: stop + len(end)]


def _end_of_turn(messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] | None) -> str:
    """The special token that the template writes after the answer to the messages, ``""`` where it has none."""
    answered = [*messages, {"role": "assistant", "content": _SOME_ANSWER}]
    _before, found, tail = _render(answered, tokenizer, tools, generation=False).rpartition(_SOME_ANSWER)
    if not found:
        raise ValueError("the chat template has no place for the assistant's answer")
    # Of two at one place the longer.
    places = [(tail.index(token), -len(token), token) for token in special_tokens(tokenizer).values() if token in tail]
    return min(places)[2] if places else ""


def _check_given(messages: Sequence[Message], text: str) -> None:
    for number, message in enumerate(messages, 1):
        if message["role"] in ("system", "user") and not _holds(text, message["content"]):
            raise ValueError(f"the chat template leaves out message {number}, the {message['role']}'s")


def _holds(text: str, part: str) -> bool:
    """Whether a text holds a part, but for white space, which templates trim and add."""
    return "".join(part.split()) in "".join(text.split())


def _render(messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] | None, *, generation: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=generation
        )
    except (TemplateError, TypeError) as error:
        raise ValueError(f"the chat template refuses it: {error}") from None
    return text
