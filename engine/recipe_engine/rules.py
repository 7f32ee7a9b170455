"""Rules between the tables of a recipe, which no schema of one table can express."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_containers import UnpinnedImage, parse_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recipe_engine.compose import Composition
    from recipe_engine.descriptors import DataKind
    from recipe_engine.document import KeyPath
    from recipe_engine.errors import Problem
    from recipe_engine.model import Recipe, StageTable
    from recipe_engine.plugins import Catalogue

_NEEDS = {"adapt": "load", "train": "adapt", "evaluate": "load", "push": "train"}
"""Stage -> the stage whose result it works on."""
_DEFAULT_KINDS: frozenset[DataKind] = frozenset({"text"})
_VALUES = frozenset({"base", "source", "format", "image"})
"""Keys whose value is what a rule complains about."""


def rule_problems(recipe: Recipe, composition: Composition, catalogue: Catalogue) -> list[Problem]:
    """Every broken rule of a recipe whose tables are each valid."""
    problems = []
    for rule in (_order, _sources, _data_sets, _image):
        for path, message, hint in rule(recipe, catalogue):
            problems.append(composition.problem(path, message, hint, value=path[-1] in _VALUES))
    return problems


Finding = tuple["KeyPath", str, str]


def _order(recipe: Recipe, _catalogue: Catalogue) -> Iterator[Finding]:
    present = {table.stage for table in recipe.stages()}
    for table in recipe.stages():
        needed = _NEEDS.get(table.stage)
        if needed is not None and needed not in present:
            yield (
                (table.stage, table.instance),
                f"{table.stage} works on the result of {needed}, which this recipe has not",
                f"Add the table [{needed}.…].",
            )
    if not present:
        yield ("model",), "the recipe has no stage, so there is nothing to run", "Add the table [load.full]."


def _sources(recipe: Recipe, catalogue: Catalogue) -> Iterator[Finding]:
    references: list[tuple[KeyPath, str]] = [(("model", "base"), recipe.model.base)]
    references += [(("data", name, "source"), data.table.source) for name, data in recipe.data.items()]
    for path, reference in references:
        scheme, colon, name = reference.partition(":")
        registered = catalogue.sources.get(scheme) if colon else None
        if registered is None:
            examples = ", ".join(source.descriptor.example for source in catalogue.sources.values())
            yield path, f'"{reference}" names no known kind of source', f"Write one of {examples}."
        elif wrong := registered.descriptor.check(name):
            yield path, wrong, f"Write it like {registered.descriptor.example}."


def _data_sets(recipe: Recipe, catalogue: Catalogue) -> Iterator[Finding]:
    used = set()
    for table in recipe.stages():
        method = catalogue.methods[table.stage, table.method].descriptor
        for role, name in method.data(table.options).items():
            used.add(name)
            kinds = method.data_kinds.get(role, _DEFAULT_KINDS)
            yield from _data_set(recipe, catalogue, table, name, kinds)
    for name in recipe.data:
        if name not in used:
            yield (
                ("data", name),
                "no stage of this recipe reads this data set",
                "Remove it, or name it in a stage.",
            )


def _data_set(
    recipe: Recipe, catalogue: Catalogue, table: StageTable, name: str, kinds: frozenset[DataKind]
) -> Iterable[Finding]:
    path: KeyPath = (table.stage, table.instance)
    if name not in recipe.data:
        yield (
            path,
            f"it reads the data set [data.{name}], which this recipe has not",
            f"Add the table [data.{name}].",
        )
    elif catalogue.formats[recipe.data[name].table.format].descriptor.kind not in kinds:
        found = recipe.data[name].table.format
        formats = [name for name, known in catalogue.formats.items() if known.descriptor.kind in kinds]
        yield (
            ("data", name, "format"),
            f'{table.stage}.{table.instance} cannot read the format "{found}"',
            f"It reads {', '.join(formats)}.",
        )


def _image(recipe: Recipe, _catalogue: Catalogue) -> Iterator[Finding]:
    if recipe.container is not None:
        try:
            parse_image(recipe.container.image)
        except UnpinnedImage as error:
            yield ("container", "image"), f'"{recipe.container.image}" does not pin an image: {error}', ""
