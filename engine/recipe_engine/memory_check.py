"""Whether all that a run will hold fits, before any of it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.estimate.fitting import check_memory, device_memory, outlook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.journal import FinishedNode
    from recipe_engine.plan import Planner
    from recipe_engine.plugins import Catalogue


class MemoryCheck:
    """Looks once a run whether all that it will hold fits, before any of it is loaded.

    Args:
        catalogue: what is installed.

    Attributes:
        expected: bytes of the largest stage; 0 while that is not known.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.expected = 0

    def check(self, planner: Planner, done: Mapping[str, FinishedNode]) -> None:
        """Do so, once the model's files tell enough.

        Args:
            planner: of the run.
            done: its nodes that have ended.

        Raises:
            UnfitEnvironment: for the largest stage, where it does not fit.
        """
        if self.expected:
            return
        recipe = planner.recipe
        there = device_memory(recipe, planner.hardware.device)
        outline = planner.outline({name: node.artifact.digest for name, node in done.items() if node.artifact})
        prepared = {name: node.metrics for name, node in done.items() if node.node.stage == "prepare"}
        found = outlook(recipe, self._catalogue, outline, prepared, there, planner.hardware.device)
        check_memory(recipe, found)
        self.expected = found.needed
