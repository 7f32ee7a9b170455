"""Rules between the tables of a recipe, which no schema of one table can express."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_containers import UnpinnedImage, parse_image
from recipe_engine.descriptors import SINGLE_STAGES, STAGES
from recipe_engine.document import dotted
from recipe_engine.model import CONTAINER_STAGES
from recipe_engine.options import REWARD, rewards_of
from recipe_engine.reward_tables import RECIPE, tables_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_engine.compose import Composition
    from recipe_engine.descriptors import DataKind, Method, ModelKind
    from recipe_engine.document import KeyPath
    from recipe_engine.errors import Problem
    from recipe_engine.model import ContainerTable, DataSet, ModelTable, Recipe, StageTable, TopTable
    from recipe_engine.options import Reward
    from recipe_engine.plugins import Catalogue

_NEEDS = {"adapt": "load", "train": "adapt", "evaluate": "load", "push": "train"}
"""Stage -> the stage whose result it works on."""
_DEFAULT_KINDS: frozenset[DataKind] = frozenset({"text"})
_CALLED: Mapping[ModelKind, str] = {
    "causal_lm": "a model with weights of full precision",
    "quantized_lm": "a quantized model",
    "adapter": "a model with adapters",
    "reward_model": "a reward model",
}
_VALUES = frozenset({"base", "source", "format", "image", "recipe", "model", "json_schema"})
"""Keys whose value is what a rule complains about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A recipe as far as its tables are valid.

    Attributes:
        tree: all of it, as it was written.
        top: the keys before the first table.
        model: the table.
        data: the valid data sets.
        stages: the valid stage tables, in the order in which they run.
        container: the table.
        folder: what relative paths are relative to.
        base: the recipe whose result this one starts from.
        rewards: where it names recipes whose results judge answers -> those that are valid.
    """

    tree: Mapping[str, Any]
    top: TopTable | None
    model: ModelTable | None
    data: Mapping[str, DataSet]
    stages: tuple[StageTable, ...]
    container: ContainerTable | None
    folder: Path
    base: Recipe | None
    rewards: Mapping[KeyPath, Recipe]

    def rewards_of(self, table: StageTable) -> Iterator[tuple[KeyPath, Reward]]:
        """The rewards of a stage, and where the table of each stands."""
        rewards = rewards_of(table.options)
        written = tables_in(self.tree[table.stage][table.instance][REWARD]) if rewards else ()
        for (place, _), reward in zip(written, rewards, strict=True):
            yield (table.stage, table.instance, REWARD, *place), reward

    def reward_recipes(self) -> dict[str, Recipe]:
        """The recipes that judge answers, by the names of their rewards."""
        found = [(reward.name, (*path, RECIPE)) for table in self.stages for path, reward in self.rewards_of(table)]
        return {name: self.rewards[path] for name, path in found if path in self.rewards}

    def has(self, stage: str) -> bool:
        """Whether there is a table of that stage, valid or not."""
        return bool(self.tree.get(stage))

    @property
    def is_whole(self) -> bool:
        """Whether every stage table is valid, so that what none of them says is not said at all."""
        tables = [self.tree.get(stage, {}) for stage in STAGES]
        return len(self.stages) == sum(len(table) if isinstance(table, dict) else 1 for table in tables)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule.

    Attributes:
        path: the key that breaks it.
        other: the key that it does not agree with; empty where there is none.
    """

    path: KeyPath
    message: str
    hint: str = ""
    other: KeyPath = ()


def rule_problems(draft: Draft, composition: Composition, catalogue: Catalogue) -> list[Problem]:
    """Every broken rule, as far as it can be told from the tables that are valid."""
    problems = []
    for rule in (_order, _sources, _data_sets, _kinds, _clashes, _base, _rewards, _part_names, _image):
        for found in rule(draft, catalogue):
            message = found.message
            if found.other:
                message += f"; see {dotted(found.other)} at {composition.place(found.other)}"
            value = len(found.path) > 1 and found.path[-1] in _VALUES
            problems.append(composition.problem(found.path, message, found.hint, value=value))
    return problems


def _order(draft: Draft, _catalogue: Catalogue) -> Iterator[Finding]:
    for stage, needed in _NEEDS.items():
        tables = draft.tree.get(stage)
        if draft.has(needed) or not isinstance(tables, dict):
            continue
        for instance in (name for name, table in tables.items() if isinstance(table, dict)):
            message = f"{stage} works on the result of {needed}, which this recipe has not"
            yield Finding((stage, instance), message, f"Add the table [{needed}.…].")
    if not any(draft.has(stage) for stage in STAGES):
        message = "the recipe has no stage, so there is nothing to run"
        yield Finding(("model",), message, "Add the table [load.full].")


def _sources(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    references: list[tuple[KeyPath, str, Any]] = []
    if draft.model is not None and isinstance(draft.model.base, str) and draft.base is None:
        references.append((("model", "base"), draft.model.base, draft.model))
    references += [(("data", name, "source"), data.table.source, data.table) for name, data in draft.data.items()]
    for table in draft.stages:
        for place, reward in draft.rewards_of(table):
            keys = [key for key, value in vars(reward.options).items() if value == reward.reference and value]
            references += [((*place, key), reward.reference, reward.options) for key in keys]
    for path, reference, table in references:
        scheme, colon, name = reference.partition(":")
        registered = catalogue.sources.get(scheme) if colon else None
        if registered is None:
            examples = ", ".join(source.descriptor.example for source in catalogue.sources.values())
            yield Finding(path, f'"{reference}" names no known kind of source', f"Write one of {examples}.")
        elif wrong := registered.descriptor.check(name):
            yield Finding(path, wrong, f"Write it like {registered.descriptor.example}.")
        elif not registered.descriptor.revisions:
            for key in ("revision", "subset"):
                if getattr(table, key, None) is not None:
                    message = f"it cannot matter here: {scheme}: has no {key}s"
                    yield Finding((*path[:-1], key), message, "Remove it.", path)


def _data_sets(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    used = set()
    for table in draft.stages:
        method = _method(table, catalogue)
        for role, name in method.data(table.options).items():
            used.add(name)
            kinds = method.data_kinds.get(role, _DEFAULT_KINDS)
            yield from _data_set(draft, catalogue, table, name, kinds)
    for name in draft.data if draft.is_whole else ():
        if name not in used:
            message = "no stage of this recipe reads this data set"
            yield Finding(("data", name), message, "Remove it, or name it in a stage.")


def _data_set(
    draft: Draft, catalogue: Catalogue, table: StageTable, name: str, kinds: frozenset[DataKind]
) -> Iterator[Finding]:
    path: KeyPath = (table.stage, table.instance)
    tables = draft.tree.get("data", {})
    if isinstance(tables, dict) and name not in tables:
        message = f"it reads the data set [data.{name}], which this recipe has not"
        yield Finding(path, message, f"Add the table [data.{name}].")
    elif name in draft.data and catalogue.formats[draft.data[name].table.format].descriptor.kind not in kinds:
        message = f'{dotted(path)} cannot read the format "{draft.data[name].table.format}"'
        formats = [name for name, known in catalogue.formats.items() if known.descriptor.kind in kinds]
        yield Finding(("data", name, "format"), message, f"It reads {', '.join(formats)}.", path)


def _kinds(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    """Follow the model from stage to stage: each must take what it gets."""
    kind: ModelKind | None = None
    giver: KeyPath = ()
    for table in draft.stages:
        method, path = _method(table, catalogue), (table.stage, table.instance)
        if kind is not None and method.takes is not None and kind not in method.takes:
            takes = " or ".join(_CALLED[taken] for taken in sorted(method.takes))
            message = f"{table.method} works on {takes}, and {dotted(giver)} gives {_CALLED[kind]}"
            yield Finding(path, message, "", giver)
        if table.stage in SINGLE_STAGES and method.gives is not None:
            kind, giver = method.gives, path
        if table.stage == "load" and draft.base is not None:
            kind, giver = "adapter", ("model", "base")


def result_kind(recipe: Recipe, catalogue: Catalogue) -> ModelKind | None:
    """The kind of the model that a recipe makes; ``None`` where its methods do not say."""
    kind: ModelKind | None = None
    for table in recipe.stages():
        if table.stage in SINGLE_STAGES:
            kind = _method(table, catalogue).gives or kind
        if table.stage == "load" and recipe.base is not None:
            kind = "adapter"
    return kind


def _clashes(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    before: dict[str, StageTable] = {}
    base = {"base": draft.base} if draft.base else {}
    for table in draft.stages:
        chosen = {stage: earlier.options for stage, earlier in before.items()} | base
        for key, message, other in _method(table, catalogue).clashes(table.options, chosen):
            stage, _, other_key = other.partition(".")
            there: KeyPath = ("model", "base")
            if stage != "base":
                there = (stage, before[stage].instance, *([other_key] if other_key else []))
            yield Finding((table.stage, table.instance, *([key] if key else [])), message, "", there)
        if table.stage in SINGLE_STAGES:
            before[table.stage] = table


def _rewards(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    """What must hold between a recipe and those whose results judge its answers."""
    for path, recipe in draft.rewards.items():
        if result_kind(recipe, catalogue) != "reward_model":
            yield Finding(path, f"the result of {recipe.file} is no reward model", "Make one with [train.reward].")
        elif _start(draft, catalogue) != _start(recipe, catalogue):
            message = (
                f"{recipe.file} does not start from the model of this recipe, whose tokens it would be asked about"
            )
            hint = "Start both from one model, or export that one and name it: reward = { model = … }."
            yield Finding(path, message, hint)
        yield from _of_one_run(draft, recipe, path)
    names = dict.fromkeys(reward.name for table in draft.stages for _, reward in draft.rewards_of(table))
    for table in draft.stages:
        for place, reward in draft.rewards_of(table):
            if reward.name in names:
                del names[reward.name]
            else:
                message = f"two rewards are called {reward.name}"
                yield Finding(place, message, 'Give one a name of its own: name = "…".')


def _start(recipe: Draft | Recipe, catalogue: Catalogue) -> tuple[object, ...]:
    """The model that everything starts from, and the tokens that it gets: what a tokenizer follows from."""
    while recipe.base is not None:
        recipe = recipe.base
    stages = recipe.stages if isinstance(recipe, Draft) else recipe.stages()
    tokens = [
        token
        for table in stages
        if table.stage == "adapt"
        for token in _method(table, catalogue).new_tokens(table.options)
    ]
    base, revision = (recipe.model.base, recipe.model.revision) if recipe.model else ("", None)
    if isinstance(base, str) and base.startswith("file:"):
        base = os.path.realpath(recipe.folder / Path(base.removeprefix("file:")).expanduser())
    return base, revision, tokens


def _of_one_run(draft: Draft, other: Recipe, path: KeyPath) -> Iterator[Finding]:
    """What one run has one of; of a named result nothing is computed."""
    for key in () if other.pinned else ("threads", "device"):
        theirs, ours = getattr(other.top, key), getattr(draft.top, key, None)
        if draft.top is not None and theirs != ours:
            message = f"{other.file} says {key} = {_said(theirs)} and this recipe {_said(ours)}: one run has one"
            yield Finding(path, message, "Write the same in both.")


def _part_names(draft: Draft, _catalogue: Catalogue) -> Iterator[Finding]:
    """The recipes of one run have names of their own."""
    others = {("model", "base"): draft.base, **draft.rewards}
    files = {draft.top.name: ""} if draft.top else {}
    for path, other in others.items():
        parts = other.parts() if other is not None else ()
        for part in parts:
            file = os.path.realpath(part.file)
            if files.setdefault(part.name, file) != file:
                names = ", ".join([*(each.name for each in parts), *([draft.top.name] if draft.top else [])])
                message = f"two of the recipes {names} have one name"
                yield Finding(path, message, "Rename one: nodes are named by it.")
                return


def _base(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    """What must hold between a recipe and the one whose result it starts from."""
    base, path = draft.base, ("model", "base")
    if base is None:
        return
    message, hint = _no_base(base, catalogue)
    if message:
        yield Finding(path, message, hint)
    yield from _of_one_run(draft, base, path)
    for table in draft.stages:
        if table.stage == "adapt" and _method(table, catalogue).new_tokens(table.options):
            message = "only the first of several recipes can add tokens: its data is prepared with them too"
            yield Finding((table.stage, table.instance), message, "", path)
        payload = _method(table, catalogue).payload(table.options)
        if table.stage == "push" and payload == "adapter":
            message = "the adapter of this recipe works on top of that of its base only"
            yield Finding((table.stage, table.instance), message, "Write merged = true.", path)


def _no_base(base: Recipe, catalogue: Catalogue) -> tuple[str, str]:
    """Why nothing can start from a recipe's result, and a hint; two empty texts where it can."""
    if base.train is None or base.adapt is None:
        return f"{base.file} trains nothing, so it has no result to start from", ""
    if result_kind(base, catalogue) == "reward_model":
        return f"the result of {base.file} is a reward model, which gives no answers to start from", ""
    if catalogue.methods["adapt", base.adapt.method].descriptor.gives != "adapter":
        return f"the result of {base.file} is no adapter", "Export it merged, and name the folder."
    return "", ""


def _image(draft: Draft, _catalogue: Catalogue) -> Iterator[Finding]:
    container = draft.container
    if container is None:
        return
    tables = {("container",): container} | {
        ("container", stage): table for stage in CONTAINER_STAGES if (table := getattr(container, stage)) is not None
    }
    for path, table in tables.items():
        if len(path) > 1 and not draft.has(path[1]):
            yield Finding(path, f"there is no [{path[1]}.…] that it would be for", "Remove it.")
        try:
            parse_image(table.image or container.image or "")
        except UnpinnedImage as error:
            if table.image is not None:
                yield Finding(
                    (*path, "image"), f'"{table.image}" does not pin an image: {error}', _digest_of(table.image)
                )
            elif len(path) > 1 and container.image is None:
                yield Finding(path, "it has no image", 'Write image = "name@sha256:…" here or in [container].')
    if container.image is None and len(tables) == 1:
        yield Finding(("container",), "it has no image", 'Write image = "name@sha256:…".')


def _digest_of(image: str) -> str:
    """What to write instead of a tag, as far as it is known here."""
    from recipe_containers.pins import pinned_name

    found = pinned_name(image)
    return f'Write image = "{found}".' if found else ""


def _method(table: StageTable, catalogue: Catalogue) -> Method:
    return catalogue.methods[table.stage, table.method].descriptor


def _said(value: Any) -> str:
    return "nothing" if value is None else str(value)
