"""The marker that plugin authors import; importing it pulls in nothing else of the engine."""

from __future__ import annotations

import pluggy

PROJECT = "recipe_engine"

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of that name."""
