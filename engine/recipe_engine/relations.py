"""Rules between a recipe and the others that it builds on: those that it starts from, and those that judge answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import SINGLE_STAGES
from recipe_engine.drafts import Draft, Finding, method_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import ModelKind
    from recipe_engine.document import KeyPath
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue

_STARTS: frozenset[ModelKind | None] = frozenset({"adapter", "causal_lm"})
"""What an adapt method gives that another recipe can start from."""


def result_kind(recipe: Recipe, catalogue: Catalogue) -> ModelKind | None:
    """The kind of the model that a recipe makes; ``None`` where its methods do not say."""
    kind: ModelKind | None = None
    for table in recipe.stages():
        if table.stage in SINGLE_STAGES:
            kind = method_of(table, catalogue).kind_after(kind)
        if table.stage == "load" and gives_adapter(recipe.base, catalogue):
            kind = "adapter"
    return kind


def gives_adapter(base: Recipe | None, catalogue: Catalogue) -> bool:
    """Whether a base is a recipe whose result is an adapter; it may be none, or one that trains whole models."""
    return base is not None and result_kind(base, catalogue) == "adapter"


def loads_encoder(recipe: Recipe, catalogue: Catalogue) -> bool:
    """Whether a recipe starts from an encoder, which has a tokenizer of its own and reads pairs of texts."""
    return recipe.load is not None and method_of(recipe.load, catalogue).gives == "encoder"


def whole_base(recipe: Recipe, catalogue: Catalogue) -> Recipe | None:
    """The recipe whose result a recipe loads: the last of its bases that trained a whole model, if one did."""
    base = recipe.base
    while base is not None and gives_adapter(base, catalogue):
        base = base.base
    return base


def adapters_below(recipe: Recipe, catalogue: Catalogue) -> tuple[Recipe, ...]:
    """The recipes whose adapters lie on what a recipe loads, the first first."""
    below: tuple[Recipe, ...] = ()
    base = recipe.base
    while base is not None and gives_adapter(base, catalogue):
        below, base = (base, *below), base.base
    return below


def base_findings(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    """What must hold between a recipe and the one whose result it starts from."""
    base, path = draft.base, ("model", "base")
    if base is None:
        return
    message, hint = _no_base(base, catalogue)
    if message:
        yield Finding(path, message, hint)
    yield from _of_one_run(draft, base, path)
    for table in draft.stages:
        if table.stage == "adapt" and method_of(table, catalogue).new_tokens(table.options):
            message = "only the first of several recipes can add tokens: its data is prepared with them too"
            yield Finding((table.stage, table.instance), message, "", path)
        payload = method_of(table, catalogue).payload(table.options)
        if table.stage == "push" and payload == "adapter" and gives_adapter(base, catalogue):
            message = "the adapter of this recipe works on top of that of its base only"
            # A reward model cannot be merged: what it is for is another recipe.
            scores = any(method_of(other, catalogue).gives == "reward_model" for other in draft.stages)
            hint = (
                'Name this recipe where it is asked: reward = { recipe = "…" }.' if scores else "Write merged = true."
            )
            yield Finding((table.stage, table.instance), message, hint, path)


def _no_base(base: Recipe, catalogue: Catalogue) -> tuple[str, str]:
    """Why nothing can start from a recipe's result, and a hint; two empty texts where it can."""
    if base.train is None or base.adapt is None:
        return f"{base.file} trains nothing, so it has no result to start from", ""
    if result_kind(base, catalogue) == "reward_model":
        return f"the result of {base.file} is a reward model, which gives no answers to start from", ""
    if loads_encoder(base, catalogue) or method_of(base.adapt, catalogue).gives not in _STARTS:
        return f"the result of {base.file} is neither an adapter nor a whole model", "Export it, and name the folder."
    return "", ""


def reward_findings(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    """What must hold between a recipe and those whose results judge its answers."""
    for path, recipe in draft.rewards.items():
        if result_kind(recipe, catalogue) != "reward_model":
            yield Finding(path, f"the result of {recipe.file} is no reward model", "Make one with [train.reward].")
        elif not loads_encoder(recipe, catalogue) and _start(draft, catalogue) != _start(recipe, catalogue):
            message = (
                f"{recipe.file} does not start from the model of this recipe, whose tokens it would be asked about"
            )
            hint = (
                "Start both from one model, make a reward model of an encoder with [load.encoder], or export that one "
                "and name it: reward = { model = … }."
            )
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
        for token in method_of(table, catalogue).new_tokens(table.options)
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


def name_findings(draft: Draft, _catalogue: Catalogue) -> Iterator[Finding]:
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


def _said(value: Any) -> str:
    return "nothing" if value is None else str(value)
