"""The Hub's token. The client gets it and nobody else: a ``.env`` file never becomes part of the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
NO_TOKEN = (
    "it needs a token of the Hub, and there is none.",
    "Log in with: hf auth login, or set HF_TOKEN in the environment or in a file .env beside the command.",
)
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*(['\"]?)(.*?)\2\s*")


def find_token(folder: Path) -> str | None:
    """The token, from the environment, the folder's ``.env`` or the Hub's own login, in this order.

    Args:
        folder: where the command is given.
    """
    from huggingface_hub import get_token

    found: str | None = _given(folder) or get_token()  # which renews a login that is about to expire
    return found


def hub_needs(_options: object) -> Sequence[tuple[str, str]]:
    """What a push to the Hub needs besides packages: a token. A plan asks, so the client is not."""
    there = _given(Path.cwd()) or _read(_login_file()).strip()
    return () if there else (NO_TOKEN,)


def _given(folder: Path) -> str:
    return _first(os.environ) or _first(_dotenv(folder / ".env"))


def _first(variables: Mapping[str, str]) -> str:
    return next((value for name in VARIABLES if (value := variables.get(name, "").strip())), "")


def _dotenv(file: Path) -> dict[str, str]:
    found = (_ASSIGNMENT.fullmatch(line) for line in _read(file).splitlines())
    return {match[1]: match[3] for match in found if match}


def _login_file() -> Path:
    """Where ``hf auth login`` keeps it (huggingface_hub/constants.py)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_TOKEN_PATH") or f"{home}/token")).expanduser()


def _read(file: Path) -> str:
    """The text of a file; nothing where there is none, or it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, RuntimeError):  # the latter: a home folder that nobody knows
        return ""
