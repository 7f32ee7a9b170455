"""Rules between the tables of a recipe, which no schema of one table can express."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_containers import UnpinnedImage, parse_image
from recipe_engine.descriptors import ENCODERS, SINGLE_STAGES, STAGES
from recipe_engine.document import dotted
from recipe_engine.drafts import Draft, Finding, method_of
from recipe_engine.model import CONTAINER_STAGES
from recipe_engine.options import FOLDER, folder_of
from recipe_engine.relations import base_findings, gives_adapter, name_findings, reward_findings
from recipe_engine.wording import did_you_mean, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from recipe_engine.compose import Composition
    from recipe_engine.descriptors import DataKind, ModelKind
    from recipe_engine.document import KeyPath
    from recipe_engine.errors import Problem
    from recipe_engine.gates import Gate
    from recipe_engine.model import StageTable
    from recipe_engine.plugins import Catalogue

_NEEDS = {"adapt": "load", "train": "adapt", "evaluate": "load", "push": "train"}
"""Stage -> the stage whose result it works on."""
_DEFAULT_KINDS: frozenset[DataKind] = frozenset({"text"})
_CALLED: Mapping[ModelKind, str] = {
    "causal_lm": "a model with weights of full precision",
    "quantized_lm": "a quantized model",
    "adapter": "a model with adapters",
    "encoder": "an encoder",
    "encoder_adapter": "an encoder with adapters",
    "reward_model": "a reward model",
}
_ON_ENCODERS = (
    "An encoder gives a score and no text: it is trained by [train.reward] and measured by [evaluate.preference]."
)
_VALUES = frozenset({"base", "source", "format", "image", "recipe", "model", "json_schema"})
"""Keys whose value is what a rule complains about."""


def rule_problems(draft: Draft, composition: Composition, catalogue: Catalogue) -> list[Problem]:
    """Every broken rule, as far as it can be told from the tables that are valid."""
    problems = []
    rules = (
        _order,
        _sources,
        _folders,
        _data_sets,
        _kinds,
        _clashes,
        base_findings,
        reward_findings,
        name_findings,
        _gate,
        _image,
    )
    for rule in rules:
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


def _folders(draft: Draft, _catalogue: Catalogue) -> Iterator[Finding]:
    """The folders that evaluations read are of this machine, as no other source has any."""
    for table in draft.stages:
        folder = folder_of(table.options) if table.stage == "evaluate" else ""
        scheme, _, path = folder.partition(":")
        if folder and (scheme != "file" or not path.strip()):
            message = f'"{folder}" is no folder of this machine'
            yield Finding((table.stage, table.instance, FOLDER), message, "Write one like file:tasks.")


def _data_sets(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    used = set()
    for table in draft.stages:
        method = method_of(table, catalogue)
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
        method, path = method_of(table, catalogue), (table.stage, table.instance)
        if kind is not None and method.takes is not None and kind not in method.takes:
            takes = " or ".join(_CALLED[taken] for taken in sorted(method.takes))
            message = f"{table.method} works on {takes}, and {dotted(giver)} gives {_CALLED[kind]}"
            yield Finding(path, message, _ON_ENCODERS if kind in ENCODERS else "", giver)
        if table.stage in SINGLE_STAGES and method.gives is not None:
            kind, giver = method.kind_after(kind), path
        if table.stage == "load" and gives_adapter(draft.base, catalogue):
            kind, giver = "adapter", ("model", "base")


def _clashes(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    before: dict[str, StageTable] = {}
    base = {"base": draft.base} if gives_adapter(draft.base, catalogue) else {}
    for table in draft.stages:
        chosen = {stage: earlier.options for stage, earlier in before.items()} | base
        for key, message, other in method_of(table, catalogue).clashes(table.options, chosen):
            stage, _, other_key = other.partition(".")
            there: KeyPath = ("model", "base")
            if stage != "base":
                there = (stage, before[stage].instance, *([other_key] if other_key else []))
            yield Finding((table.stage, table.instance, *([key] if key else [])), message, "", there)
        if table.stage in SINGLE_STAGES:
            before[table.stage] = table


def _gate(draft: Draft, catalogue: Catalogue) -> Iterator[Finding]:
    if draft.rules and not draft.has("train"):
        yield Finding(("gate",), "it judges the result of train, which this recipe has not", "Remove it.")
    evaluations = {table.instance: table for table in draft.stages if table.stage == "evaluate"}
    tables = draft.tree.get("evaluate")
    written = tables if isinstance(tables, dict) else {}
    for gate in draft.gates():
        path: KeyPath = ("gate", gate.key)
        if gate.instance in evaluations:
            measured = method_of(evaluations[gate.instance], catalogue).metrics
            names = None if measured is None else [f"{gate.instance}.{name}" for name in measured]
            if names is not None and gate.metric not in names:
                has = f"It measures {', '.join(names)}." if names else "It measures nothing."
                message = f"evaluate.{gate.instance} does not measure {show(gate.metric)}"
                yield Finding(path, message, _relative(gate, written) or did_you_mean(gate.metric, names) or has)
        elif gate.instance not in written:
            message = f"it needs the evaluation [evaluate.{gate.instance}], which this recipe has not"
            near = _relative(gate, written) or did_you_mean(gate.instance, written)
            yield Finding(path, message, near or "Add it, or remove the rule.")


def _relative(gate: Gate, written: Iterable[str]) -> str:
    """What to write instead of the ratio of a metric to its value before; ``""`` where none is meant."""
    name = gate.key.removesuffix("_ratio")
    if name == gate.key or name.partition(".")[0] not in written:
        return ""
    rule = gate.rule if gate.rule.endswith("before") else f"{gate.rule} * before"
    return f"Write {dotted((name,))} = {show(rule)}."


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
