"""Recipes that extend recipes, and recipes that start from another one's result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.written import builtins

from recipe_engine.compose import compose
from recipe_engine.errors import InvalidRecipe
from recipe_engine.graph import build_graph
from recipe_engine.lock import source_requests
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node

BASE = """\
version = 1
name = "base"
seed = 3
threads = 1

[model]
base = "file:model"

[data.train]
source = "file:rows.jsonl"
format = "instruction"
split = "train[:90%]"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4
alpha = 8

[train.sft]
learning_rate = 1e-3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


def recipe(file: str, *overrides: str) -> Recipe:
    return validate(compose(file, overrides), builtins())


def refusal(file: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidRecipe) as refused:
        recipe(file, *overrides)
    return str(refused.value).splitlines()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_tables_are_merged_and_anything_else_is_replaced(here: Path) -> None:
    write(here / "r.toml", 'extends = "base.toml"\nname = "r"\n[adapt.lora]\nrank = 8\ntarget_modules = ["q_proj"]\n')
    found = recipe("r.toml")
    assert (found.name, found.top.seed) == ("r", 3)
    assert found.adapt is not None
    options = found.adapt.options
    assert (options.rank, options.alpha, options.target_modules) == (8, 8.0, ("q_proj",))


def test_a_chain_and_an_override_on_top_of_it(here: Path) -> None:
    write(here / "mid.toml", 'extends = "base.toml"\nname = "mid"\nseed = 4\n[train.sft]\nepochs = 2\n')
    write(here / "r.json", '{"extends": "mid.toml", "name": "r"}')
    found = recipe("r.json", "train.sft.epochs=5")
    assert found.train is not None
    assert (found.name, found.top.seed, found.train.options.epochs, found.train.options.learning_rate) == (
        *("r", 4, 5),
        1e-3,
    )


def test_another_method_takes_the_place_of_the_first(here: Path) -> None:
    write(here / "r.toml", 'extends = "base.toml"\nname = "r"\n[load.nf4]\n')
    found = recipe("r.toml")
    assert found.load is not None
    assert found.load.method == "nf4"
    write(here / "other.toml", 'extends = "base.toml"\nname = "r"\n[load.full]\nmethod = "nf4"\n')
    assert recipe("other.toml").to_table()["load"]["full"]["method"] == "nf4"


def test_a_revision_belongs_to_its_model(here: Path) -> None:
    text = BASE.replace('base = "file:model"', 'base = "hub:a/b"\nrevision = "main"')
    write(here / "base.toml", text)
    write(here / "r.toml", 'extends = "base.toml"\nname = "r"\n[model]\nbase = "hub:a/c"\n')
    assert recipe("r.toml").model.revision is None
    write(here / "same.toml", 'extends = "base.toml"\nname = "r"\n[model]\nbase = "hub:a/b"\n')
    assert recipe("same.toml").model.revision == "main"


def test_paths_start_where_they_were_written(here: Path) -> None:
    write(here / "deep/er/r.toml", 'extends = "../../base.toml"\nname = "r"\n')
    found = recipe("deep/er/r.toml")
    assert found.model.base == "file:../../model"
    assert found.data["train"].table.source == "file:../../rows.jsonl"
    assert (found.folder / "../../model").resolve() == here / "model"


@pytest.mark.parametrize("reference", ["file:/models/m", "file:~/m", "hub:owner/name"])
def test_what_means_the_same_from_anywhere_stays(here: Path, reference: str) -> None:
    write(here / "base.toml", BASE.replace("file:model", reference))
    write(here / "deep/r.toml", 'extends = "../base.toml"\nname = "r"\n')
    assert recipe("deep/r.toml").model.base == reference


def test_the_folder_of_an_evaluation_starts_where_it_was_written(here: Path) -> None:
    write(here / "base.toml", BASE + '[evaluate.harness]\nfolder = "file:tasks"\n')
    write(here / "deep/r.toml", 'extends = "../base.toml"\nname = "r"\n')
    found = recipe("deep/r.toml")
    assert found.evaluate[-1].options.folder == "file:../tasks"
    request = source_requests(found, here)["evaluate.harness"]
    assert (request.folder / request.name).resolve() == here / "tasks"
    (kept,) = found.as_run(absolute=True).values()
    assert f'folder = "file:{here}/deep/../tasks"' in kept.decode()


def test_a_mistake_is_told_where_it_was_written(here: Path) -> None:
    write(here / "base.toml", BASE.replace("rank = 4", "rnk = 4"))
    write(here / "sub/r.toml", 'extends = "../base.toml"\nname = "r"\n[train.sft]\nepochs = 0\n')
    assert refusal("sub/r.toml") == [
        "sub/../base.toml:18:1: adapt.lora.rnk: unknown key. Did you mean rank?",
        "sub/r.toml:4:10: train.sft.epochs: expected at least 1, found 0. Passes over the data (epochs).",
        "2 problems",
    ]


AT = "r.toml:1:11: extends: "
RELATIVE = "The path is relative to the file that names it."
CIRCLE = "extends: the recipes refer to each other in a circle: "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends = 3\n", f'{AT}expected the path of a recipe. Such as extends = "base.toml".'),
        ('extends = "no.toml"\n', f"{AT}no.toml: there is no such file. {RELATIVE}"),
        ('extends = "."\n', f"{AT}.: this is a directory. {RELATIVE}"),
        ('extends = "r.toml"\n', f"r.toml:1:11: {CIRCLE}r.toml -> r.toml."),
        ('extends = "a.toml"\n', f"b.toml:1:11: {CIRCLE}r.toml -> a.toml -> b.toml -> r.toml."),
        ('extends = "torn.toml"\n', "torn.toml:1:4: expected a value, found the end of the line. Text goes in"),
    ],
)
def test_what_cannot_be_extended(here: Path, text: str, says: str) -> None:
    write(here / "r.toml", text)
    write(here / "a.toml", 'extends = "b.toml"\n')
    write(here / "b.toml", 'extends = "r.toml"\n')
    write(here / "torn.toml", "a =\n")
    assert refusal("r.toml")[0].startswith(says)


def test_a_command_line_cannot_say_what_is_extended(here: Path) -> None:
    assert (
        refusal("base.toml", "extends=a.toml")[0] == "--set extends=a.toml: a recipe's own file says what it extends."
    )


def test_one_tree_is_one_recipe_however_it_is_written(here: Path) -> None:
    write(here / "plain.toml", BASE.replace('"base"', '"r"').replace("rank = 4", "rank = 8"))
    write(here / "r.toml", 'extends = "base.toml"\nname = "r"\n[adapt.lora]\nrank = 8.0\nalpha = 8\n')
    write(here / "r.json", '{"extends": "base.toml", "name": "r", "adapt": {"lora": {"alpha": 8.0, "rank": 8}}}')
    assert recipe("plain.toml").digest() == recipe("r.toml").digest() == recipe("r.json").digest()
    assert recipe("plain.toml").digest() != recipe("base.toml").digest()


ON_TOP = """\
version = 1
name = "top"
threads = 1

[model]
base = { recipe = "base.toml" }

[data.train]
source = "file:more.jsonl"
format = "instruction"

[load.full]
dtype = "float32"

[adapt.lora]
[train.sft]
[evaluate.perplexity]
data = "train"
"""


def test_a_recipe_on_top_of_another_is_one_graph(here: Path) -> None:
    write(here / "top.toml", ON_TOP)
    found = recipe("top.toml")
    nodes = {node.id: node for node in build_graph(found, builtins())}
    assert list(nodes) == [
        *("resolve", "tokenizer", "base/prepare.train", "prepare.train"),
        *("base/load", "base/adapt", "base/train"),
        *("load", "attach.base", "evaluate.perplexity@base", "adapt", "train", "evaluate.perplexity@result"),
    ]
    assert nodes["attach.base"].inputs == {"model": "load", "adapter": "base/train"}
    assert nodes["evaluate.perplexity@base"].inputs["model"] == nodes["adapt"].inputs["model"] == "attach.base"
    assert nodes["base/prepare.train"].source == "base/data.train"
    assert found.source == "file:model"


def test_a_node_of_a_base_is_the_node_of_its_own_run(here: Path) -> None:
    """Its key does not name the recipe that it is part of, so nothing is trained twice."""
    write(here / "top.toml", ON_TOP)
    within = {node.name: node for node in build_graph(recipe("top.toml"), builtins()) if node.id.startswith("base/")}
    alone = {node.id: node for node in build_graph(recipe("base.toml"), builtins())}

    def identity(node: Node) -> tuple[object, ...]:
        return (node.stage, node.method, node.seed, node.changed_options, node.revision)

    assert {name: identity(node) for name, node in within.items()} == {name: identity(alone[name]) for name in within}


def test_three_recipes_on_top_of_each_other(here: Path) -> None:
    write(here / "top.toml", ON_TOP)
    write(here / "last.toml", ON_TOP.replace('"top"', '"last"').replace("base.toml", "top.toml"))
    nodes = {node.id: node for node in build_graph(recipe("last.toml"), builtins())}
    assert nodes["top/attach.base"].inputs == {"model": "top/load", "adapter": "base/train"}
    assert nodes["attach.base"].inputs == {"model": "load", "adapter": "base/train"}
    assert nodes["attach.top"].inputs == {"model": "attach.base", "adapter": "top/train"}
    assert nodes["adapt"].inputs["model"] == "attach.top"


def test_problems_of_both_recipes_are_told(here: Path) -> None:
    write(here / "base.toml", BASE.replace("rank = 4", "rank = 0"))
    write(here / "top.toml", ON_TOP.replace("[train.sft]", "[train.sft]\nepochs = 0"))
    lines = refusal("top.toml")
    assert lines[0].startswith("base.toml:18:8: adapt.lora.rank: expected at least 1")
    assert lines[1].startswith("top.toml:17:10: train.sft.epochs: expected at least 1")


@pytest.mark.parametrize(
    ("base", "top", "says"),
    [
        (BASE, ON_TOP.replace("base.toml", "no.toml"), "there is no such file"),
        (BASE, ON_TOP.replace("base.toml", "top.toml"), "in a circle: top.toml -> top.toml"),
        (BASE.partition("[data")[0] + "[load.full]\n", ON_TOP, "base.toml trains nothing"),
        (BASE.replace("threads = 1", "threads = 2"), ON_TOP, "base.toml says threads = 2 and this recipe 1"),
        (BASE.replace('"base"', '"top"'), ON_TOP, "have one name. Rename one"),
        (BASE, ON_TOP + "[push.folder]\n", "the adapter of this recipe works on top of that of its base only"),
        (BASE, ON_TOP.replace("[adapt.lora]", "[adapt.lora]\ndora = true"), "do not work on top of another recipe's"),
        (BASE, ON_TOP.replace("[adapt.lora]", "[adapt.full]"), "model.base gives a model with adapters"),
        (BASE, ON_TOP.replace("{ recipe", "{ recipes"), "model.base.recipes: unknown key. Did you mean recipe?"),
    ],
)
def test_what_cannot_be_a_base(here: Path, base: str, top: str, says: str) -> None:
    write(here / "base.toml", base)
    write(here / "top.toml", top)
    assert any(says in line for line in refusal("top.toml")), refusal("top.toml")


def test_what_a_run_keeps_gives_the_same_recipe_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "top.toml", ON_TOP)
    write(here / "last.toml", ON_TOP.replace('"top"', '"last"').replace("base.toml", "top.toml"))
    kept = recipe("last.toml").as_run()
    assert list(kept) == ["recipe.toml", "bases/top.toml", "bases/base.toml"]
    for name, text in kept.items():
        write(here / "kept" / name, text.decode())
    monkeypatch.chdir(here / "kept")
    again = recipe("recipe.toml")
    assert [part.name for part in again.lineage()] == ["base", "top", "last"]
    for before, after in zip(recipe("../last.toml").lineage(), again.lineage(), strict=True):
        one, other = before.to_table(), after.to_table()
        one["model"].pop("base"), other["model"].pop("base")
        assert one == other


def test_what_is_no_table_is_left_to_the_validation(here: Path) -> None:
    write(here / "deep/base.toml", BASE.replace('[model]\nbase = "file:model"', "model = 3"))
    write(here / "r.toml", 'extends = "deep/base.toml"\nname = "r"\n')
    assert refusal("r.toml")[0].startswith("deep/base.toml:6:9: model: expected a table, found 3")


def test_the_base_of_a_base_is_named_from_the_recipe_that_extends_it(here: Path) -> None:
    write(here / "top.toml", ON_TOP)
    write(here / "deep/r.toml", 'extends = "../top.toml"\nname = "r"\n')
    found = recipe("deep/r.toml")
    assert found.to_table()["model"]["base"] == {"recipe": "../base.toml"}
    assert [part.name for part in found.lineage()] == ["base", "r"]


def test_a_plugin_that_is_no_text_is_a_mistake(here: Path) -> None:
    write(here / "r.toml", 'extends = "base.toml"\nname = "r"\nplugins = [3]\n')
    assert refusal("r.toml")[0].startswith("r.toml:3:12: plugins[0]: expected a string, found 3")
