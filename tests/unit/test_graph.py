"""The graph of a recipe: its nodes, their order and what each builds on."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from tests.unit.written import HEAD, LOAD, RECIPES, SMALL, builtins, recipe_of

from recipe_engine.compose import compose
from recipe_engine.graph import build_graph
from recipe_engine.node import Node, needed_for, node_seed
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from tests.conftest import Golden


def nodes_of(text: str) -> dict[str, Node]:
    return {node.id: node for node in build_graph(recipe_of(text), builtins())}


def test_the_quickstarts_nodes_and_edges(golden: Golden) -> None:
    recipe = validate(compose(RECIPES / "quickstart.toml"), builtins())
    lines = []
    for node in build_graph(recipe, builtins()):
        marks = [f"source {node.source}"] if node.source else []
        marks += [f"{role} <- {source}" for role, source in node.inputs.items()]
        marks += ["consumes"] if node.consumes else []
        marks += ["on the host"] if node.on_host else []
        lines.append(f"{node.id}: {', '.join(marks)}".rstrip(": ") + "\n")
    golden("graph-quickstart.txt", "".join(lines))


def test_every_node_stands_after_what_it_builds_on() -> None:
    seen: set[str] = set()
    for node in build_graph(recipe_of(SMALL), builtins()):
        assert set(node.inputs.values()) <= seen
        seen.add(node.id)


def test_a_recipe_of_one_stage() -> None:
    assert list(nodes_of(LOAD)) == ["resolve", "tokenizer", "load"]


def test_evaluations_without_training_measure_the_base_alone() -> None:
    text = LOAD + '[evaluate.perplexity]\n[data.eval]\nsource = "file:e.jsonl"\nformat = "chat"\n'
    assert list(nodes_of(text)) == ["resolve", "tokenizer", "prepare.eval", "load", "evaluate.perplexity@base"]
    assert nodes_of(text)["evaluate.perplexity@base"].inputs == {
        "model": "load",
        "tokenizer": "tokenizer",
        "data.eval": "prepare.eval",
    }


PAIRS = """\
[adapt.lora]
[train.reward]
[evaluate.preference]
[data.train]
source = "file:pairs.jsonl"
format = "preference"
[data.eval]
source = "file:pairs.jsonl"
format = "preference"
"""


def test_what_measures_reward_models_alone_has_no_base_to_measure() -> None:
    nodes = nodes_of(LOAD + PAIRS)
    assert [name for name in nodes if name.startswith("evaluate")] == ["evaluate.preference@result"]
    assert nodes["evaluate.preference@result"].inputs["model"] == "train"


def test_a_data_set_of_another_name_is_prepared_under_it() -> None:
    text = SMALL.replace("[data.train]", "[data.poems]").replace("[train.sft]", '[train.sft]\ndata = "poems"')
    assert nodes_of(text)["train"].inputs["data.train"] == "prepare.poems"


def test_the_data_of_the_loss_during_training_is_an_input() -> None:
    nodes = nodes_of(SMALL.replace("[train.sft]", "[train.sft]\neval_steps = 5"))
    assert nodes["train"].inputs == {
        "model": "adapt",
        "tokenizer": "tokenizer",
        "data.train": "prepare.train",
        "data.eval": "prepare.eval",
    }


def test_an_instance_is_a_node_of_its_own() -> None:
    nodes = nodes_of(SMALL + '[evaluate.again]\nmethod = "perplexity"\nbatch_size = 2\n')
    again = nodes["evaluate.again@result"]
    assert (again.instance, again.method) == ("again", "perplexity")
    assert again.implementation == nodes["evaluate.perplexity@result"].implementation
    assert again.changed_options == {"batch_size": 2}


def test_rows_of_any_length_are_prepared_for_those_who_read_them() -> None:
    """A data set that a window reads and others too is prepared twice; one that only windows read, once."""
    windowed = SMALL.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nwindow = 64")
    nodes = nodes_of(windowed)
    assert [name for name in nodes if name.startswith("prepare.")] == [
        "prepare.train",
        "prepare.eval",
        "prepare.eval@whole",
    ]
    assert nodes["evaluate.perplexity@base"].inputs["data.eval"] == "prepare.eval@whole"
    assert nodes["answers.eval-64x32@base"].inputs["data.eval"] == "prepare.eval"
    whole = nodes["prepare.eval@whole"]
    assert (whole.instance, whole.source) == ("eval", "data.eval")
    assert whole.changed_options == {"format": "instruction", "max_length": 2**31 - 1}
    short = windowed.replace("eval.jsonl", 'eval.jsonl"\nmax_length = 9\noverlong = "drop')
    alone = nodes_of(short.replace("[evaluate.exact_match]\n", ""))
    assert "prepare.eval" not in alone
    assert alone["prepare.eval@whole"].changed_options == whole.changed_options, "max_length matters to nobody"


def test_every_id_is_one_that_programs_are_told_of() -> None:
    """The schema of what commands print says how the id of a node looks."""
    schema = json.loads((files("recipe_engine.cli") / "output.schema.json").read_text(encoding="utf-8"))
    pattern = schema["$defs"]["node_id"]["pattern"]
    nodes = nodes_of(SMALL.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nwindow = 64"))
    assert "prepare.eval@whole" in nodes
    assert [name for name in nodes if not re.search(pattern, name)] == []


def test_what_is_needed_for_a_target_and_nothing_else() -> None:
    nodes = build_graph(recipe_of(SMALL), builtins())

    def needed(*targets: str) -> list[str]:
        return [node.id for node in needed_for(nodes, frozenset(targets))]

    assert needed("prepare.train") == ["resolve", "tokenizer", "prepare.train"]
    assert needed("load") == ["resolve", "load"]
    assert needed("evaluate.perplexity@base") == [
        "resolve",
        "tokenizer",
        "prepare.eval",
        "load",
        "evaluate.perplexity@base",
    ]
    assert needed("prepare.eval", "adapt") == ["resolve", "tokenizer", "prepare.eval", "load", "adapt"]
    assert needed("resolve") == ["resolve"]
    assert needed() == []


def test_a_worker_is_told_all_options() -> None:
    told = nodes_of(HEAD + "[load.nf4]\ndouble_quant = false\n")["load"].to_json()
    assert told == {
        "id": "load",
        "stage": "load",
        "method": "nf4",
        "options": {"double_quant": False, "compute_dtype": "auto"},
        "inputs": {},
        "implementation": "recipe_engine.methods.load_nf4:LoadNf4",
        "source": "model",
        "sources": {},
        "consumes": False,
        "seed": node_seed(0, "load"),
    }
