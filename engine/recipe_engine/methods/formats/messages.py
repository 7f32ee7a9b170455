"""Messages of a conversation: what a row may hold, and what is wrong with it otherwise."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
_ROLES = ("system", "user", "assistant", "tool")


def text_of(row: Mapping[str, Any], field: str) -> str:
    """The text in a field of a row.

    Raises:
        ValueError: where there is none.
    """
    if field not in row:
        raise ValueError(f'the field "{field}" is missing; the row has {", ".join(sorted(row)) or "none"}')
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f'the field "{field}" is not text')
    return value


def messages_of(row: Mapping[str, Any], field: str) -> list[Message]:
    """The conversation in a field of a row.

    Raises:
        ValueError: where it is no conversation.
    """
    messages = listed(row, field)
    for number, (one, other) in enumerate(itertools.pairwise(messages), 1):
        if one["role"] == other["role"] and one["role"] != "tool":
            raise ValueError(f"messages {number} and {number + 1} are both the {one['role']}'s")
    if messages[0]["role"] == "assistant":
        raise ValueError("the first message is the assistant's: nothing asks for it")
    return messages


def listed(row: Mapping[str, Any], field: str) -> list[Message]:
    """The messages in a field of a row, which may be a part of a conversation; keys that hold nothing are left out.

    Raises:
        ValueError: where there are none.
    """
    messages = row.get(field)
    if not isinstance(messages, list) or not messages:
        raise ValueError(f'the field "{field}" is not a list of messages')
    return [_checked(number, message) for number, message in enumerate(messages, 1)]


def tools_of(row: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The functions that the assistant may call: a list of schemas, or the same as JSON text.

    Raises:
        ValueError: where the field ``tools`` is neither.
    """
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError:
            raise ValueError('the field "tools" is not JSON') from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError('the field "tools" is not a list of function schemas')
    return tools


def answered(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation, which ends with an answer.

    Raises:
        ValueError: where it does not.
    """
    if messages[-1]["role"] != "assistant":
        raise ValueError("the last message is not the assistant's, so there is nothing to learn from it")
    return messages


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The conversation with a system message, unless it has one or none is wanted."""
    if system is None or messages[0]["role"] == "system":
        return [*messages]
    return [{"role": "system", "content": system}, *messages]


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation for a model without a chat template: one message as it is, several each after its role.

    Raises:
        ValueError: where a tool is called.
    """
    if any(message.get("tool_calls") for message in messages):
        raise ValueError("it calls a tool, for which there is no plain text")
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{str(message['role']).capitalize()}: {message['content']}" for message in messages)


def _checked(number: int, message: Any) -> Message:
    # Columns of a table hold None where a row has nothing.
    kept = {key: value for key, value in message.items() if value is not None} if isinstance(message, Mapping) else {}
    calls = kept.get("tool_calls")
    if calls:
        kept.setdefault("content", "")
    if not isinstance(kept.get("content"), str):
        raise ValueError(f"message {number} has no text in content")
    role = kept.get("role")
    if role not in _ROLES:
        raise ValueError(f'message {number} has the role "{role}", not one of {", ".join(_ROLES)}')
    if role == "system" and number > 1:
        raise ValueError(f"message {number} is the system's, which only the first can be")
    if role == "assistant" and not calls and not kept["content"].strip():
        raise ValueError(f"message {number}, the assistant's, is empty")
    return kept
