"""Paths that people write in recipes."""

from __future__ import annotations

from pathlib import Path

from recipe_engine.errors import UnresolvedInput


def expanded(text: str, subject: str) -> Path:
    """The path with ``~`` replaced by the home folder that it means.

    Args:
        text: as written in the recipe.
        subject: what the message of an error begins with.

    Raises:
        UnresolvedInput: where it names a user that does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        hint = "A name that begins with ~ is written ./~."
        raise UnresolvedInput(f"{subject}: there is no user {user}.", hint) from None
