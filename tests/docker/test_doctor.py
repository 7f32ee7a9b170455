"""``recipe doctor`` beside a real container engine."""

from __future__ import annotations

from typing import Any

import pytest

from recipe_engine.doctor.services import look_at_containers

pytestmark = pytest.mark.slow


def test_the_engine_is_named_with_its_version(engine: Any) -> None:
    found = look_at_containers()[0]
    assert (found.name, found.state, found.mend) == ("containers", "ok", "")
    assert engine.version()["Version"] in found.text
