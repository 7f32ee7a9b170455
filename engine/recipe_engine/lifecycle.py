"""Telling plugins what happens to a node."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.contract import NodeInfo
    from recipe_engine.plugins import Catalogue


def tell(catalogue: Catalogue, hook: str, **arguments: Any) -> None:
    """Call a lifecycle hook of every plugin that has it.

    Raises:
        StageFailed: where a plugin has a bug; the message names it.
        RecipeError: whatever a plugin raises on purpose.
    """
    call = getattr(catalogue.hooks, hook)
    try:
        call(**arguments)
    except errors.RecipeError:
        raise
    except Exception as error:
        frames = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
        guilty = [found.plugin_name for found in call.get_hookimpls() if found.function.__code__ in frames]
        failed = errors.StageFailed(
            f"the hook {hook} of the plugin {', '.join(guilty)} raised {type(error).__name__}: {error}",
            "This is a bug of the plugin, not of the recipe.",
        )
        failed.add_note("".join(traceback.format_exception(error)))
        raise failed from error


@contextmanager
def failures_told(catalogue: Catalogue, node: NodeInfo) -> Iterator[None]:
    """Tell the plugins of whatever ends the block; Ctrl-C becomes ``Interrupted``."""
    try:
        yield
    except KeyboardInterrupt:
        stopped = errors.Interrupted("stopped.")
        _tell_failure(catalogue, node, stopped)
        raise stopped from None
    except Exception as error:
        _tell_failure(catalogue, node, error)
        raise


def _tell_failure(catalogue: Catalogue, node: NodeInfo, error: Exception) -> None:
    try:
        tell(catalogue, "recipe_stage_failed", node=node, error=error)
    except errors.RecipeError as more:
        # What ended the node is what the user must hear of.
        error.add_note(str(more))
