"""Recipes that start from a named result, from the text to the plan."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.written import SMALL, builtins, small_inputs

from recipe_engine.compose import NamedResultReader, compose
from recipe_engine.errors import InvalidRecipe, UnresolvedInput
from recipe_engine.graph import build_graph
from recipe_engine.lock import Hardware, peek, source_requests
from recipe_engine.lockfile import make_lock
from recipe_engine.model import Pinned, Recipe
from recipe_engine.plan import make_plan
from recipe_engine.validate import validate
from recipe_registry import Registry

CPU = Hardware("cpu", 1, ("avx2",))
DIGEST = "sha256:" + "1" * 64
TOP = """\
version = 1
name = "top"
plugins = ["pluggy"]
[model]
base = "registry:small:latest"
[data.more]
source = "file:train.jsonl"
format = "instruction"
[load.full]
[adapt.lora]
[train.sft]
data = "more"
"""


def written(folder: Path) -> Path:
    """The recipe behind the name, and one that starts from it."""
    small_inputs(folder)
    (folder / "small.toml").write_text(SMALL)
    (folder / "top.toml").write_text(TOP.replace('plugins = ["pluggy"]\n', ""))
    return folder


def reader(folder: Path, digest: str = DIGEST) -> NamedResultReader:
    return lambda _reference: (folder / "small.toml", Pinned("registry:small:1.0", {"train": digest}))


def top(folder: Path, digest: str = DIGEST) -> Recipe:
    return validate(compose(folder / "top.toml", (), reader(folder, digest)), builtins())


def test_nothing_of_a_named_result_is_computed_or_read(tmp_path: Path) -> None:
    recipe = top(written(tmp_path))
    assert recipe.pinned_nodes() == {"small/train": DIGEST}
    assert set(source_requests(recipe, tmp_path)) == {"model", "data.more"}
    nodes = {node.id: node for node in build_graph(recipe, builtins())}
    assert list(nodes) == [
        *("resolve", "tokenizer", "prepare.more", "small/train", "load", "attach.small", "adapt", "train")
    ]
    assert (nodes["small/train"].pinned, nodes["small/train"].inputs) == (DIGEST, {})


def test_threads_need_not_agree_with_what_was_computed_long_ago(tmp_path: Path) -> None:
    folder = written(tmp_path)
    top(folder)  # small.toml says threads = 1, this one nothing
    (folder / "top.toml").write_text(
        (folder / "top.toml").read_text().replace('"registry:small:latest"', '{ recipe = "small.toml" }')
    )
    with pytest.raises(InvalidRecipe, match="says threads = 1"):
        validate(compose(folder / "top.toml"), builtins())


def test_a_wrong_reference_has_its_place(tmp_path: Path) -> None:
    folder = written(tmp_path)

    def refuse(reference: str) -> tuple[Path, Pinned]:
        raise ValueError(f"there is no {reference}")

    with pytest.raises(InvalidRecipe) as caught:
        compose(folder / "top.toml", (), refuse)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path, problem.message) == (
        *(4, "model.base"),
        "there is no registry:small:latest.",
    )
    with pytest.raises(InvalidRecipe, match="names no known kind of source"):
        validate(compose(folder / "top.toml"), builtins())


def test_the_digest_of_a_recipe_is_that_of_what_its_base_stands_for(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert top(folder).digest() == top(folder).digest()
    assert top(folder).digest() != top(folder, "sha256:" + "2" * 64).digest()


def test_files_for_another_folder(tmp_path: Path) -> None:
    folder = written(tmp_path)
    recipe = top(folder)
    # As it is run, the recipe is its own text; for another folder it names the version and whole paths.
    assert recipe.as_run() == {str(folder / "top.toml"): (folder / "top.toml").read_bytes()}
    (content,) = recipe.as_run(absolute=True).values()
    table = tomllib.loads(content.decode())
    assert table["model"]["base"] == "registry:small:1.0"
    assert table["data"]["more"]["source"] == f"file:{folder}/train.jsonl"


def test_paths_are_made_absolute_and_a_home_stays_one(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "small.toml").write_text(SMALL.replace('"file:model"', '"file:~/model"'))
    recipe = validate(compose(folder / "small.toml"), builtins())
    recipe = replace(recipe, top=replace(recipe.top, plugins=("./mine.py", "recipe-dpo")))
    (content,) = recipe.as_run(absolute=True).values()
    table = tomllib.loads(content.decode())
    assert table["model"]["base"] == "file:~/model"
    assert table["plugins"] == [f"{folder}/mine.py", "recipe-dpo"]


def test_the_plan_takes_the_artifact_or_says_how_to_get_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "recipe")
    registry = Registry.open(tmp_path / "home")
    staging = registry.artifacts.stage("train")
    (staging / "content").write_text("adapter")
    digest = registry.artifacts.commit(staging).digest
    planned = {node.node.id: node for node in make_plan(top(folder, digest), builtins(), registry, CPU)}
    assert (planned["small/train"].state, planned["small/train"].artifact) == ("cached", digest)
    with pytest.raises(UnresolvedInput, match=r"small/train: the registry does not hold .* recipe registry pull"):
        make_plan(top(folder), builtins(), registry, CPU)


def test_the_lock_says_which_version_it_is(tmp_path: Path) -> None:
    recipe = top(written(tmp_path))
    nodes = build_graph(recipe, builtins())
    lock = make_lock(recipe, peek(recipe, builtins(), tmp_path), CPU, nodes)
    assert lock.results == {"registry:small:latest": "registry:small:1.0"}
