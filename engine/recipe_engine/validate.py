"""A tree becomes a recipe, or all of its problems at once, each with its place and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from recipe_engine import options, schema
from recipe_engine.descriptors import SINGLE_STAGES, STAGES
from recipe_engine.errors import InvalidRecipe, Problem
from recipe_engine.gates import EXAMPLES, is_rule
from recipe_engine.model import (
    ContainerTable,
    DataSet,
    DataTable,
    ModelTable,
    Recipe,
    StageTable,
    TopTable,
    build_data_set,
)
from recipe_engine.rules import Draft, rule_problems
from recipe_engine.wording import did_you_mean, explained, show

if TYPE_CHECKING:
    from recipe_engine.compose import Composition
    from recipe_engine.document import KeyPath
    from recipe_engine.plugins import Catalogue

# Instances and data sets: part of node ids, of metrics' names and of file names.
_TABLE_NAME = re.compile(r"[A-Za-z0-9_-]+")


def validate(composition: Composition, catalogue: Catalogue) -> Recipe:
    """Check a recipe against the schemas of everything that is installed, and against the rules between tables.

    Raises:
        InvalidRecipe: with every problem found.
    """
    base: Recipe | None = None
    problems: list[Problem] = []
    if composition.base is not None:
        try:
            base = validate(composition.base, catalogue)
        except InvalidRecipe as error:
            problems += error.problems
    checker = _Checker(composition, catalogue)
    draft = checker.draft(base)
    problems += checker.problems + plugin_problems(composition, catalogue)
    problems += rule_problems(draft, composition, catalogue)
    if problems or draft.top is None or draft.model is None:
        raise InvalidRecipe(problems)
    return _recipe(draft, draft.top, draft.model, composition)


def _recipe(draft: Draft, top: TopTable, model: ModelTable, composition: Composition) -> Recipe:
    alone = len(composition.layers) == 1 and not composition.overrides
    single = {table.stage: table for table in draft.stages if table.stage in SINGLE_STAGES}
    return Recipe(
        file=composition.document.file,
        folder=composition.folder,
        text=composition.document.source if alone else None,
        written=composition,
        base=draft.base,
        pinned=composition.pinned,
        top=top,
        model=model,
        data=draft.data,
        evaluate=tuple(table for table in draft.stages if table.stage == "evaluate"),
        gates=draft.gates(),
        push=tuple(table for table in draft.stages if table.stage == "push"),
        container=draft.container,
        **single,
    )


def plugin_problems(composition: Composition, catalogue: Catalogue) -> list[Problem]:
    """Plugins that the recipe names and that are not there, or cannot be loaded."""
    named = composition.tree.get("plugins")
    problems = []
    for position, name in enumerate(named if isinstance(named, list) else ()):
        if isinstance(name, str):
            message, hint = catalogue.why_missing(name)
            if message:
                problems.append(composition.problem(("plugins", position), message, hint, value=True))
    return problems


class _Checker:
    """Walks the tree once, table by table: each is checked against its own closed schema, so messages stay exact."""

    def __init__(self, composition: Composition, catalogue: Catalogue) -> None:
        self._composition = composition
        self._catalogue = catalogue
        self.problems: list[Problem] = []

    def draft(self, base: Recipe | None) -> Draft:
        """The recipe as far as it is valid; what is not becomes a problem."""
        tree = self._composition.tree
        tables = {"model", "data", "gate", "container", *STAGES}
        top_level = {key: value for key, value in tree.items() if key not in {"$schema", *tables}}
        if not isinstance(tree.get("$schema", ""), str):
            self._problem(
                ("$schema",), f"expected a string, found {show(tree['$schema'])}", schema.SCHEMA_KEY, value=True
            )
        if "model" not in tree:
            self._problem(("model",), "the table [model] is missing", 'It names the model: base = "hub:owner/name".')
        return Draft(
            tree=tree,
            top=self._table((), top_level, TopTable, also_known=tables),
            model=self._table(("model",), tree["model"], ModelTable) if "model" in tree else None,
            container=self._table(("container",), tree["container"], ContainerTable) if "container" in tree else None,
            data=self._data_sets(tree.get("data", {})),
            stages=tuple(table for stage in STAGES for table in self._stage(stage, tree.get(stage, {}))),
            base=base,
            rules=self._gate(tree.get("gate", {})),
        )

    def _data_sets(self, tables: Any) -> dict[str, DataSet]:
        if not self._is_table(("data",), tables):
            return {}
        found = {name: self._data_set(name, table) for name, table in tables.items()}
        return {name: data_set for name, data_set in found.items() if data_set is not None}

    def _data_set(self, name: str, table: Any) -> DataSet | None:
        path = ("data", name)
        if not self._is_named_table(path, table, "A data set has a table of its own, such as [data.train]."):
            return None
        named = table.get("format")
        registered = self._catalogue.formats.get(named) if isinstance(named, str) else None
        if registered is None and isinstance(named, str):
            self._unknown_name((*path, "format"), named, "format", list(self._catalogue.formats))
        data_format = registered.descriptor if registered else None
        if named is None:
            self._misspelled(path, table)
        if not self._check(path, table, schema.data_schema(data_format)) or data_format is None:
            return None
        data_set = build_data_set(name, table, data_format.options)
        for part in (data_set.table, data_set.format_options):
            self._idle_options(path, table, part)
        return data_set

    def _misspelled(self, path: KeyPath, table: Mapping[str, Any]) -> None:
        """Without its format a data set may have any key; one that is nearly the core's is a mistake all the same."""
        core = [field.name for field in options.fields_of(DataTable)]
        for key in table:
            hint = did_you_mean(key, core) if key not in core else ""
            if hint:
                self._problem((*path, key), "unknown key", hint)

    def _gate(self, rules: Any) -> dict[str, str]:
        """The rules of ``[gate]`` that can be read."""
        if not self._is_table(("gate",), rules):
            return {}
        for name, rule in rules.items():
            path: KeyPath = ("gate", name)
            if isinstance(rule, Mapping):
                quoted = show(f"{name}.{next(iter(rule), 'metric')}")
                self._problem(path, "expected a rule, found a table", f"Write the metric's name in quotes: {quoted}.")
            elif not is_rule(rule):
                self._problem(
                    path, f"expected a rule, found {show(rule)}", f"Such as {' or '.join(EXAMPLES)}.", value=True
                )
        return {name: rule for name, rule in rules.items() if is_rule(rule)}

    def _stage(self, stage: str, tables: Any) -> list[StageTable]:
        if not self._is_table((stage,), tables):
            return []
        found = [self._method(stage, instance, table) for instance, table in tables.items()]
        if stage in SINGLE_STAGES:
            first, *others = [instance for instance, table in tables.items() if isinstance(table, Mapping)] or [""]
            for other in others:
                message = f"a second {stage} method, beside {stage}.{first}"
                self._problem((stage, other), message, f"A recipe has at most one [{stage}.…] table.")
        return [table for table in found if table is not None]

    def _method(self, stage: str, instance: str, table: Any) -> StageTable | None:
        path = (stage, instance)
        known = list(self._catalogue.of_stage(stage))
        hint = f"Options stand in the table of their method, such as [{stage}.{known[0]}]."
        if not self._is_named_table(path, table, hint):
            return None
        name = table.get("method", instance)
        registered = self._catalogue.methods.get((stage, name)) if isinstance(name, str) else None
        if registered is None:
            where = (*path, "method") if "method" in table else path
            self._unknown_name(where, name, f"{stage} method", known)
            return None
        method = registered.descriptor
        if not self._check(path, table, schema.method_schema(method)):
            return None
        given = {key: value for key, value in table.items() if key != "method"}
        stage_options = options.build(method.options, given)
        self._idle_options(path, given, stage_options)
        for key, message in method.check(stage_options):
            self._problem((*path, key), message)
        return StageTable(stage, instance, method.name, stage_options)

    def _idle_options(self, path: tuple[str, str], given: Mapping[str, Any], built: object) -> None:
        """Options that were given beside others that keep them from mattering."""
        for field in options.fields_of(type(built)):
            if field.name in given and not options.matters(built, field.about):
                self._problem(
                    (*path, field.name), f"it cannot matter here: it needs {schema.needed(field.about)}", "Remove it."
                )

    def _table(
        self,
        path: KeyPath,
        table: Any,
        options_type: type[options.T],
        also_known: Iterable[str] = (),
    ) -> options.T | None:
        table_schema = schema.schema_of(options_type)
        if not self._is_table(path, table) or not self._check(path, table, table_schema, also_known):
            return None
        return options.build(options_type, table)

    def _check(
        self,
        path: KeyPath,
        table: Mapping[str, Any],
        table_schema: Mapping[str, Any],
        also_known: Iterable[str] = (),
    ) -> bool:
        from jsonschema import Draft202012Validator

        before = len(self.problems)
        errors = list(Draft202012Validator(cast("dict[str, Any]", table_schema)).iter_errors(table))
        wrong_kind = [error.path for error in errors if error.validator == "type"]
        for error in errors:
            if error.validator == "type" or error.path not in wrong_kind:
                self.problems.extend(explained(error, path, self._composition, sorted(also_known)))
        return len(self.problems) == before

    def _is_table(self, path: KeyPath, value: Any, hint: str = "") -> bool:
        if isinstance(value, Mapping):
            return True
        self._problem(path, f"expected a table, found {show(value)}", hint, value=True)
        return False

    def _is_named_table(self, path: tuple[str, str], value: Any, hint: str) -> bool:
        if not self._is_table(path, value, hint):
            return False
        if _TABLE_NAME.fullmatch(path[1]):
            return True
        self._problem(path, f"{show(path[1])} cannot be a name", "Names are made of letters, digits, _ and -.")
        return False

    def _unknown_name(self, path: KeyPath, name: Any, what: str, known: Sequence[str]) -> None:
        hint = did_you_mean(str(name), known) or f"Installed: {', '.join(known)}."
        broken = [plugin for plugin in self._catalogue.broken if name in (plugin.name, plugin.distribution)]
        broken = broken or list(self._catalogue.broken)
        if broken:
            hint += f" The plugin {broken[0].distribution} could not be loaded: {broken[0].error}"
        elif hint.startswith("Installed"):
            hint += " A plugin that brings it is named in plugins."
        self._problem(path, f"unknown {what} {show(name)}", hint, value=path[-1] in ("format", "method"))

    def _problem(self, path: KeyPath, message: str, hint: str = "", *, value: bool = False) -> None:
        self.problems.append(self._composition.problem(path, message, hint, value=value))
