"""A conversation as the tokenizer's chat template renders it, cut at the borders of the assistant's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Segment
from recipe_engine.errors import UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recipe_engine.methods.formats.messages import Message

_SOME_ANSWER = "?"


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
        ValueError: where the template rewrites what came before an answer, so that the answer has no place of its own.
        UnresolvedInput: where the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UnresolvedInput(
            "The tokenizer has no chat template.",
            'Give the text around the prompt in the data table: template = "### Instruction:\\n{prompt}\\n\\n'
            '### Response:\\n"',
        )
    positions = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
    segments: list[Segment] = []
    done = ""
    for position in positions[-1:] if last_only else positions:
        prompt, answer = _answer(messages, position, tokenizer, tools)
        if not prompt.startswith(done):
            raise ValueError(
                "the chat template rewrites earlier answers, so they cannot be learned where they stand; "
                'train_on = "last" learns the last one'
            )
        segments += [Segment(prompt[len(done) :], supervised=False), Segment(answer, supervised=True)]
        done = prompt + answer
    last = segments[-1].text
    if _first(last, special_tokens(tokenizer)) < 0:
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
    for token in special_tokens(tokenizer):
        if token in answer:
            raise ValueError(
                f"the answer contains the special token {token}, so what follows it would never be written"
            )


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts of all special tokens, the end-of-sequence token among them; the longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))


def _answer(messages: Sequence[Message], position: int, tokenizer: Any, tools: Sequence[Any] | None) -> tuple[str, str]:
    """All text before an answer, and the answer up to the special token that ends it."""
    content = messages[position].get("content") or ""
    check_answer(content, tokenizer)
    prompt = _render(messages[:position], tokenizer, tools, generation=True)
    whole = _render(messages[: position + 1], tokenizer, tools, generation=False)
    if not whole.startswith(prompt):
        raise ValueError("the chat template rewrites the prompt once it is answered")
    answer = whole[len(prompt) :]
    start = max(answer.find(content.strip()), 0) + len(content.strip())
    end = _first(answer[start:], special_tokens(tokenizer))
    return prompt, answer if end < 0 else answer[: start + end]


def _first(text: str, tokens: Iterable[str]) -> int:
    """Where the first of the tokens ends in the text; -1 where there is none."""
    found = [(text.index(token), -len(token)) for token in tokens if token in text]
    start, length = min(found, default=(-1, 0))
    return start - length if found else -1


def _render(messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] | None, *, generation: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=generation
        )
    except (TemplateError, TypeError) as error:
        raise ValueError(f"the chat template refuses it: {error}") from None
    return text
