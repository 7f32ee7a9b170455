"""Digests depend on content only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe_registry import canonical_json, digest_of, sha256_bytes, sha256_file
from recipe_registry.digests import CHUNK_BYTES, hex_of
from recipe_registry.documents import json_safe

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_key_order_does_not_matter(value: Any) -> None:
    assert canonical_json(reversed_keys(value)) == canonical_json(value)


def test_canonical_json_is_rfc_8785() -> None:
    assert (
        canonical_json({"b": 1.0, "a": [1e21, 0.000001, "é", None]}) == '{"a":[1e+21,0.000001,"é",null],"b":1}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: 2}, "\ud800", {"\ud800": 1}, {1, 2}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"surrogate|codepoints|domain|JCS|strings|type"):
        canonical_json(value)


def test_digest_carries_its_algorithm() -> None:
    assert digest_of({}) == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"


def test_file_and_bytes_agree_and_progress_adds_up(tmp_path: Path) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 256) + b"tail"
    path = tmp_path / "file"
    path.write_bytes(data)
    seen: list[int] = []
    assert sha256_file(path, seen.append) == sha256_file(path) == sha256_bytes(data)
    assert seen == [CHUNK_BYTES, 4]


@pytest.mark.parametrize(
    "text", ["", "sha256:", "../../etc", "a" * 63, "A" * 64, f"sha512:{'a' * 64}", "a" * 64 + "\n"]
)
def test_only_a_digest_becomes_part_of_a_path(text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256 digest"):
        hex_of(text)
    assert hex_of(f"sha256:{'a' * 64}") == hex_of("a" * 64) == "a" * 64


def test_what_json_cannot_hold_is_left_for_the_encoder_to_refuse() -> None:
    assert json_safe({"a": (1, float("inf"))}) == {"a": [1, "inf"]}
    nothing = object()
    assert json_safe([nothing]) == [nothing]
