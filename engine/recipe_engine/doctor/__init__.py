"""What this machine can do, found by probes that have a deadline, import no torch and never fail the command."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from recipe_engine.doctor.finding import Finding, ask_all

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.doctor.finding import Probe
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue

__all__ = ["Finding", "examine"]

SECONDS = 10.0
"""When what has not answered is unknown."""
_SOURCES = "sources"


def examine(home: Path, recipe: Recipe | None, catalogue: Catalogue) -> list[Finding]:
    """Look at everything at once.

    Args:
        home: of the registry, which need not be there yet.
        recipe: whose needs are held against the machine; ``None`` for none.
        catalogue: what is installed.

    Returns:
        The findings. One with the state ``problem`` means that the recipe, or without one any recipe, cannot run here.
    """
    from recipe_engine.doctor import fitness, machine, services, software

    probes: dict[str, Probe] = {
        "python": software.look_at_python,
        "extras": software.look_at_extras,
        "torch": software.look_at_torch,
        "cpu": machine.look_at_processor,
        "memory": machine.look_at_memory,
        "disk": partial(machine.look_at_disk, home),
        "gpu": machine.look_at_gpu,
        "containers": services.look_at_containers,
        "hub": services.look_at_hub,
    }
    if recipe is None:
        return ask_all(probes, SECONDS)
    sources = home / _SOURCES
    probes["recipe"] = partial(fitness.look_at_recipe, recipe, catalogue)
    probes["inputs"] = partial(fitness.look_at_inputs, recipe, catalogue, sources)
    findings = ask_all(probes, SECONDS)
    needed = fitness.indispensable(recipe, catalogue, sources)
    return [
        replace(finding, state="problem") if finding.name in needed and finding.state != "ok" else finding
        for finding in findings
    ]
