"""What the rewards of a training add to its node in the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine.options import REWARD, non_default, rewards_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.model import Recipe, StageTable
    from recipe_engine.plugins import Catalogue


@dataclass(slots=True)
class Judges:
    """What judges the answers of a node.

    Attributes:
        names: of the reward sources, one for each reward.
        inputs: role -> the node that made a reward model.
        sources: role -> the files that a reward reads.
        plugins: distribution of each plugin that brings one -> its sha256, where it is a single file.
        packages: distributions whose versions enter the key.
        revisions: of the sources, one for each reward.
    """

    names: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)

    def changed_options(self, options: object) -> Mapping[str, Any]:
        """The options of the training that enter its key; of each reward also the revision of its source."""
        changed = non_default(options)
        if not self.revisions:
            return changed
        rewards = zip(changed[REWARD], self.revisions, strict=True)
        return {**changed, REWARD: [{**reward, "revision": revision} for reward, revision in rewards]}


def judges_of(table: StageTable, recipe: Recipe, catalogue: Catalogue, prefix: str) -> Judges:
    """What judges the answers of a stage; nothing where it has no rewards.

    Args:
        table: of the stage.
        recipe: that it is in.
        catalogue: has the reward sources.
        prefix: of the recipe's nodes and sources.
    """
    found = Judges()
    for reward in rewards_of(table.options):
        registered = catalogue.rewards[reward.source]
        role = f"{REWARD}.{reward.name}"
        found.names.append(reward.source)
        found.revisions.append(registered.descriptor.revision)
        found.packages += registered.descriptor.packages
        if registered.plugin:
            found.plugins[registered.distribution] = registered.sha256
        if reward.reference:
            found.sources[role] = f"{prefix}{role}"
        if reward.name in recipe.rewards:
            found.inputs[role] = f"{recipe.rewards[reward.name].name}/train"
    return found
