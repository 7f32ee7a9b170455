"""A tree becomes a recipe, or all of its problems at once, each with its place and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from recipe_engine import options, schema
from recipe_engine.descriptors import SINGLE_STAGES, STAGES
from recipe_engine.drafts import Draft
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
from recipe_engine.options import FUNCTION, REWARD
from recipe_engine.reward_tables import build_reward, chosen_sources, tables_in, takes_rewards
from recipe_engine.rules import rule_problems
from recipe_engine.wording import did_you_mean, explained, show

if TYPE_CHECKING:
    from recipe_engine.compose import Composition
    from recipe_engine.descriptors import RewardSource
    from recipe_engine.document import KeyPath
    from recipe_engine.options import Reward
    from recipe_engine.plugins import Catalogue

# Instances and data sets: part of node ids, of metrics' names and of file names.
# What a method's schema refers to; each reward is checked against the schema of its own source.
_REWARDS = {"$defs": {REWARD: {"type": "object"}}}
_TABLE_NAME = re.compile(r"[A-Za-z0-9_-]+")


def validate(composition: Composition, catalogue: Catalogue) -> Recipe:
    """Check a recipe against the schemas of everything that is installed, and against the rules between tables.

    Raises:
        InvalidRecipe: with every problem found.
    """
    problems: list[Problem] = []

    def checked(other: Composition) -> Recipe | None:
        try:
            return validate(other, catalogue)
        except InvalidRecipe as error:
            problems.extend(error.problems)
            return None

    base = checked(composition.base) if composition.base is not None else None
    rewards = {path: recipe for path, other in composition.rewards.items() if (recipe := checked(other)) is not None}
    checker = _Checker(composition, catalogue)
    draft = checker.draft(base, rewards)
    problems += checker.problems + plugin_problems(composition, catalogue)
    problems += rule_problems(draft, composition, catalogue)
    if problems or draft.top is None or draft.model is None:
        raise InvalidRecipe(list(dict.fromkeys(problems)))
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
        rewards=draft.reward_recipes(),
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

    def draft(self, base: Recipe | None, rewards: Mapping[KeyPath, Recipe]) -> Draft:
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
            folder=self._composition.folder,
            base=base,
            rewards=rewards,
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
        if not self._check(path, table, {**schema.method_schema(method), **_REWARDS}):
            return None
        given = {key: value for key, value in table.items() if key != "method"}
        if takes_rewards(method.options) and REWARD in given:
            rewards = [self._reward((*path, REWARD, *place), reward) for place, reward in tables_in(given[REWARD])]
            if None in rewards:
                return None
            given[REWARD] = rewards if isinstance(given[REWARD], list) else rewards[0]
        stage_options = options.build(method.options, given)
        self._idle_options(path, given, stage_options)
        for key, message in method.check(stage_options):
            self._problem((*path, key), message)
        return StageTable(stage, instance, method.name, stage_options)

    def _reward(self, path: KeyPath, table: Mapping[str, Any]) -> Reward | None:
        sources = {name: found.descriptor for name, found in self._catalogue.rewards.items()}
        names = chosen_sources(table, sources)
        if not names:
            self._no_source(path, table, sources)
            return None
        for other in names[1:]:
            key = other if sources[other].has_key else FUNCTION
            self._problem(
                (*path, key),
                f"a second judge, beside {names[0]}",
                "Several rewards are a list of tables: [{ … }, { … }].",
            )
        source = sources[names[0]]
        if names[1:] or not self._check(path, table, schema.reward_schema(source)):
            return None
        reward = build_reward(table, source)
        for part in (reward.table, reward.options):
            self._idle_options(path, table, part)
        if reward.table.timeout is not None and not source.timed:
            self._problem((*path, "timeout"), f"it cannot matter here: {source.name} is not timed", "Remove it.")
        for key, message in source.check(reward.options):
            self._problem((*path, key), message, value=True)
        return reward

    def _no_source(self, path: KeyPath, table: Mapping[str, Any], sources: Mapping[str, RewardSource]) -> None:
        """A reward's table that names no source: a function that is not there, a misspelled key, or nothing."""
        if FUNCTION in table:
            functions = [name for name, source in sources.items() if not source.has_key]
            self._unknown_name((*path, FUNCTION), table[FUNCTION], "reward function", functions)
            return
        keys = [name for name, source in sources.items() if source.has_key]
        near = [(key, f'Write function = "{key}".') for key in table if key in sources]
        near = near or [(key, hint) for key in table if (hint := did_you_mean(key, [*keys, FUNCTION]))]
        for key, hint in near:
            self._problem((*path, key), "unknown key", hint)
        if not near:
            message = f"it does not say what judges: {', '.join(keys)} or {FUNCTION}"
            self._problem(path, message, 'Such as { pattern = "^Dear " }.')

    def _idle_options(self, path: KeyPath, given: Mapping[str, Any], built: object) -> None:
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
        hint = did_you_mean(str(name), known) or f"Installed: {', '.join(known) or 'none'}."
        broken = [plugin for plugin in self._catalogue.broken if name in (plugin.name, plugin.distribution)]
        broken = broken or list(self._catalogue.broken)
        if broken:
            hint += f" The plugin {broken[0].distribution} could not be loaded: {broken[0].error}"
        elif hint.startswith("Installed"):
            hint += " A plugin that brings it is named in plugins."
        self._problem(path, f"unknown {what} {show(name)}", hint, value=path[-1] in ("format", "method", FUNCTION))

    def _problem(self, path: KeyPath, message: str, hint: str = "", *, value: bool = False) -> None:
        self.problems.append(self._composition.problem(path, message, hint, value=value))
