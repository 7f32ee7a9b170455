"""Task files, held to what is data: whatever would run code, or read a file that no key knows, is refused.

lm-eval lets a task name Python functions, data sets and metrics of the Hub. All that a task of a recipe can name is in
its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from recipe_engine.errors import DataRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASK_SUFFIX = ".yaml"
_FUNCTION = "!function"
_READERS = ("csv", "json", "parquet", "text")
"""What of the ``datasets`` library reads files without code of its own."""
_READ_HOW = frozenset({"data_files", "field", "delimiter", "encoding"})
_CODE = ("class", "custom_dataset", "process_docs", "process_results", "unsafe_code", "use_prompt")
_MAX_NAMED = 10


class _Loader(yaml.SafeLoader):
    """Plain YAML; a function is kept as a mark."""


class _Function(str):
    """The name of a function."""

    __slots__ = ()


_Loader.add_constructor(_FUNCTION, lambda _loader, node: _Function(node.value))


def check_tasks(reference: str, files: Mapping[str, Path], knows_metric: Callable[[str], bool]) -> None:
    """Whether every task file of a folder is data, and names nothing outside of the folder.

    Args:
        reference: of the folder, as it was written.
        files: all files of the folder: relative path -> where it is.
        knows_metric: whether lm-eval itself has a metric of that name.

    Raises:
        DataRejected: with every file that is not.
    """
    tasks = {name: path for name, path in files.items() if name.endswith(TASK_SUFFIX)}
    if not tasks:
        raise DataRejected(f"{reference} holds no task.", f"Expected files *{TASK_SUFFIX} as lm-eval reads them.")
    problems = [
        f"{reference}/{name}: {problem}."
        for name, path in sorted(tasks.items())
        for problem in _problems(PurePosixPath(name), path, files, knows_metric)
    ]
    if problems:
        more = [f"{len(problems) - _MAX_NAMED} more."] if len(problems) > _MAX_NAMED else []
        raise DataRejected(
            "\n".join([*problems[:_MAX_NAMED], *more]),
            "A task is data: templates, files beside it, lm-eval's own metrics.",
        )


def _problems(
    name: PurePosixPath, path: Path, files: Mapping[str, Path], knows_metric: Callable[[str], bool]
) -> Iterator[str]:
    try:
        tree = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 -- a loader of plain YAML
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        yield f"it is no plain YAML{f', line {mark.line + 1}' if mark else ''}"
        return
    if not isinstance(tree, dict):
        yield "it is no table"
        return
    yield from (f"it names the Python function {found}, and no code of a task is run" for found in _functions(tree))
    for table in _tables(tree):
        yield from (f"{key} is code, and no code of a task is run" for key in _CODE if key in table)
        yield from _includes(name, table, files)
        yield from _data(table, files)
        yield from _metrics(table, knows_metric)


def _functions(value: Any) -> Iterator[str]:
    """The functions that a tree names, wherever they stand."""
    if isinstance(value, _Function):
        yield str(value)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _functions(item)


def _tables(table: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A task or a group, and what it says of others in its lists."""
    yield table
    for key in ("task", "task_list"):
        members = table.get(key)
        for member in members if isinstance(members, list) else ():
            if isinstance(member, dict):
                yield from _tables(member)


def _includes(name: PurePosixPath, table: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[str]:
    for included in _listed(table.get("include", [])):
        path = _inside(name.parent, included)
        if path not in files or not path.endswith(TASK_SUFFIX):  # others are not checked themselves
            yield f"include: {included} is no file *{TASK_SUFFIX} of the folder"


def _data(table: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[str]:
    reader = table.get("dataset_path", _READERS[0])
    if reader not in _READERS:
        yield f"dataset_path: {reader} is no file; write one of {', '.join(_READERS)}, and dataset_kwargs.data_files"
    how = table.get("dataset_kwargs") or {}
    if not isinstance(how, dict):
        yield "dataset_kwargs is no table"
        return
    yield from (f"dataset_kwargs.{key} is not read here" for key in how if key not in _READ_HOW)
    named = how.get("data_files", [])
    for value in named.values() if isinstance(named, dict) else [named]:
        for file in _listed(value):
            if _inside(PurePosixPath(), file) not in files:
                yield f"data_files: {file} is no file of the folder"


def _metrics(table: Mapping[str, Any], knows_metric: Callable[[str], bool]) -> Iterator[str]:
    listed = table.get("metric_list") or []
    for metric in listed if isinstance(listed, list) else [listed]:
        name = metric.get("metric") if isinstance(metric, dict) else metric
        if not isinstance(metric, dict) or not isinstance(name, str) or not knows_metric(name):
            yield f"metric_list: {name} is no metric of lm-eval"
        elif metric.get("hf_evaluate"):
            yield f"metric_list: {name} would be fetched, and no code of a task is run"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _inside(folder: PurePosixPath, path: Any) -> str:
    """A path of a task file as one of the folder; one that leads out of it is no key of its files."""
    found = folder / str(path)
    parts: list[str] = []
    for part in found.parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
