"""Trainings in these tests are many and short."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cheap(cheap_collections: None) -> None:
    """Every test here."""
