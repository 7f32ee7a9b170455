"""``train.dpo``: direct preference optimization. This module is imported to check a recipe, so it imports little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_dpo.options import TrainDpo
from recipe_engine.descriptors import Method, Requirement
from recipe_engine.hookmark import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@hookimpl
def recipe_train_methods() -> Iterator[Method]:
    """The one method of this package."""
    yield Method(
        name="dpo",
        summary="Direct preference optimization",
        options=TrainDpo,
        implementation="recipe_dpo.method:Dpo",
        seeded=True,
        requires=(
            Requirement(package="trl", specifier=">=1.16,<1.17", symbols=("trl:DPOConfig", "trl:DPOTrainer")),
            Requirement(package="peft", specifier=">=0.21"),
        ),
        packages=("torch", "transformers", "peft", "accelerate", "trl"),
        data=lambda options: {"train": options.data},
        data_kinds={"train": frozenset({"preference"})},
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda options: options.contradictions(),
        clashes=_clashes,
    )


def _clashes(_options: TrainDpo, before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """What dpo cannot do after some ways to adapt; options of other methods are there or not."""
    adapt, found = before.get("adapt"), []
    if getattr(adapt, "dropout", 0.0):
        found.append(("", "dpo trains without dropout, or policy and reference would differ by it", "adapt.dropout"))
    if "lm_head" in getattr(adapt, "target_modules", ()):
        found.append(("", "TRL multiplies by the head's own weight, past an adapter on it", "adapt.target_modules"))
    return found
