"""Canonical JSON and SHA-256. Nothing here touches a clock, an environment variable or a locale."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK_BYTES = 1 << 20
_DIGESTS = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value (RFC 8785): key order and number spelling do not matter.

    Args:
        value: None, bool, int within +-(2**53 - 1), finite float, str, list, tuple, dict with str keys.

    Raises:
        ValueError: the value has no canonical form (NaN, infinity, a larger integer, another type, a lone
            surrogate).
    """
    return rfc8785.dumps(value)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's content as 64 lowercase hexadecimal digits, in constant memory.

    Args:
        path: the file.
        progress: called after each chunk with the number of bytes in that chunk.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if progress is not None:
                progress(count)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """``"sha256:<hex>"`` of the canonical JSON of ``value``.

    Raises:
        ValueError: see :func:`canonical_json`.
    """
    return f"sha256:{sha256_bytes(canonical_json(value))}"


def digests_in(text: str) -> tuple[str, ...]:
    """All digests that stand somewhere in a text, ``"sha256:<hex>"``."""
    return tuple(_DIGESTS.findall(text))


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a digest or key, given with or without ``"sha256:"``.

    Raises:
        ValueError: it is neither; such a string must never become part of a path.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"not a sha256 digest: {digest!r}")
    return match.group(1)
