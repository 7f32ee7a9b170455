"""What tells two runs apart, and what a result was made from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.engine import Finished, Workspace, assert_output, digests, write_workspace
from tests.e2e.test_base_recipes import ON_TOP

SECOND = "29991231-235959-ffff"


def another_run(workspace: Workspace, old: str, new: str) -> str:
    """A second run without the seconds: the record of the first under another id, with a change in its recipe."""
    first = workspace.last_record()["id"]
    folder = workspace.home / "runs" / SECOND
    shutil.copytree(workspace.home / "runs" / first, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "id": SECOND}))
    recipe = (folder / "recipe.toml").read_text()
    assert old in recipe
    (folder / "recipe.toml").write_text(recipe.replace(old, new))
    return str(first)


def json_of(workspace: Workspace, name: str, *arguments: str) -> dict[str, Any]:
    done = workspace.recipe(name, "--json", *arguments)
    assert (done.code, done.err) == (0, "")
    said: dict[str, Any] = json.loads(done.out)
    assert_output(name, said)
    return said


@pytest.mark.slow
def test_runs_whose_recipes_differ_in_one_key(finished: Workspace) -> None:
    first = another_run(finished, "learning_rate = 1e-3", "learning_rate = 5e-4")
    said = json_of(finished, "diff", first, SECOND)
    assert (said["first"]["run"], said["second"]["run"]) == (first, SECOND)
    assert said["recipe"] == [{"path": "train.sft.learning_rate", "before": 1e-3, "after": 5e-4}]
    assert (said["sources"], said["environment"], said["keys"]) == ([], [], [])
    assert [(losses["node"], losses["first_difference"]) for losses in said["losses"]] == [("train", None)]


@pytest.mark.slow
def test_losses_that_part(finished: Workspace) -> None:
    first = another_run(finished, "seed = 7", "seed = 8")
    file = finished.home / "runs" / SECOND / "train.trace.jsonl"
    steps = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [step["loss"] for step in steps]
    steps[2]["loss"] += 0.25
    steps[4]["loss"] -= 0.5
    file.write_text("".join(json.dumps(step) + "\n" for step in steps[:5]))
    (course,) = json_of(finished, "diff", first, SECOND)["losses"]
    assert course["first"] == {"steps": 6, "loss": losses[5]}
    assert course["second"] == {"steps": 5, "loss": steps[4]["loss"]}
    assert course["first_difference"] == 3
    assert course["largest_difference"] == {"step": 5, "loss": pytest.approx(0.5)}


def test_sources_environment_and_nodes_that_differ(finished: Workspace) -> None:
    first = another_run(finished, "seed = 7", "seed = 7")
    file = finished.home / "runs" / SECOND / "run.json"
    record = json.loads(file.read_text())
    record["inputs"]["data.train"]["files"][0]["sha256"] = "0" * 64
    record["environment"]["packages"]["torch"]["version"] = "99"
    record["nodes"] = [node for node in record["nodes"] if node["id"] != "push.folder"]
    next(node for node in record["nodes"] if node["id"] == "train")["artifact"]["digest"] = "sha256:" + "1" * 64
    file.write_text(json.dumps(record))
    said = json_of(finished, "diff", first, SECOND)
    assert [(change["source"], change["file"], change["after"]) for change in said["sources"]] == [
        ("data.train", "rows.jsonl", "0" * 64)
    ]
    assert [change["path"] for change in said["environment"]] == ["packages.torch.version"]
    assert {entry["node"]: entry["why"] for entry in said["keys"]} == {"train": ["the same key gave another result"]}


@pytest.mark.slow
def test_two_runs_as_a_person_reads_them(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    first = first_run[1].result
    second = finished.run("--set", "train.sft.learning_rate=5e-4").result
    done = finished.recipe("diff", first["run"], second["run"])
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    assert lines[0] == f"{first['run']} (tiny, succeeded) -> {second['run']} (tiny, succeeded)"
    assert lines[1:5] == [
        "recipe",
        "  train.sft.learning_rate  0.001  ->  0.0005",
        "keys",
        "  train                        learning_rate 0.001 -> 0.0005",
    ]
    assert "  evaluate.perplexity@result   train changed" in lines
    assert re.search(r"^  perplexity\.loss before +6\.\d+ +-> +6\.\d+ +equal$", done.out, re.MULTILINE)
    assert re.search(r"^  perplexity\.loss after +6\.\d+ +-> +6\.\d+ +[+-]0\.\d+$", done.out, re.MULTILINE)
    assert re.search(r"^  train  6\.\d+ after 6 steps -> 6\.\d+ after 6 steps; the first", done.out, re.MULTILINE)
    assert lines[-1] == "equal: sources, environment"


def test_what_a_run_was_made_from(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    result = first_run[1].result
    said = json_of(finished, "lineage")
    nodes = {node["id"]: node for node in said["nodes"]}
    assert {name: node["artifact"] for name, node in nodes.items() if node["artifact"]} == digests(result)
    assert {node["made_by"] for node in nodes.values()} == {result["run"]}
    assert nodes["train"]["inputs"] == {"model": "adapt", "tokenizer": "tokenizer", "data.train": "prepare.train"}
    assert [source["name"] for source in said["sources"]] == ["model", "data.train", "data.eval"]
    assert said["sources"][1]["files"][0]["path"] == "rows.jsonl"
    assert nodes["push.folder"]["receipt"]["folder"].endswith("/export")
    lines = finished.recipe("lineage").out.splitlines()
    assert lines[0] == f"run {result['run']} of tiny"
    assert lines[1].startswith("push.folder  ")
    assert lines[2] == f"├── {told(nodes['train'])}"
    assert lines[3] == f"│   ├── {told(nodes['adapt'])}"
    assert lines[4] == f"│   │   └── {told(nodes['load'])}"
    assert lines[5].startswith("│   │       └── model  file:model  ")
    assert lines[-3:] == ["├── load  (above)", "├── tokenizer  (above)", "└── prepare.eval  (above)"]


def told(node: dict[str, Any]) -> str:
    key, artifact = (node[name].removeprefix("sha256:")[:12] for name in ("key", "artifact"))
    return f"{node['id']}  key {key}  artifact {artifact}  run {node['made_by']}"


@pytest.mark.slow
def test_what_an_artifact_was_made_from(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    adapt = digests(first_run[1].result)["adapt"]
    for prefix in (adapt, adapt[:15], adapt.removeprefix("sha256:")[:8]):
        said = json_of(finished, "lineage", prefix)
        assert [node["id"] for node in said["nodes"]] == ["load", "adapt"]
        assert [source["name"] for source in said["sources"]] == ["model"]
    error = finished.recipe("lineage", "sha256:000000").said(2)
    assert "No run has an artifact 'sha256:000000'." in error
    assert "There is no run 'nothing'." in finished.recipe("lineage", "nothing").said(2)
    assert "two forms of one thing" in finished.recipe("lineage", "--dot", "--json").said(2)


def parsed(dot: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Node -> label, and the edges, of as much of Graphviz's language as is written here."""
    text = r'"(?:[^"\\]|\\.)*"'
    nodes, edges, depth = {}, [], 0
    for line in dot.splitlines():
        if node := re.fullmatch(rf"\s+({text}) \[shape=\w+, label=({text})\];", line):
            nodes[json.loads(node[1])] = json.loads(node[2])
        elif edge := re.fullmatch(rf"\s+({text}) -> ({text});", line):
            edges.append((json.loads(edge[1]), json.loads(edge[2])))
        elif re.fullmatch(rf"(digraph {text}|\s+subgraph cluster_\d+) {{", line):
            depth += 1
        elif line.strip() == "}":
            depth -= 1
        else:
            assert re.fullmatch(rf"\s+(rankdir=LR|label={text});", line), line
    assert depth == 0
    return nodes, edges


def test_the_graph_for_graphviz(finished: Workspace) -> None:
    done = finished.recipe("lineage", "--dot")
    nodes, edges = parsed(done.out)
    graph = json_of(finished, "lineage")
    assert set(nodes) == {node["id"] for node in graph["nodes"]} | {source["name"] for source in graph["sources"]}
    expected = {(source, node["id"]) for node in graph["nodes"] for source in node["inputs"].values()}
    assert set(edges) == expected | {(node["source"], node["id"]) for node in graph["nodes"] if node["source"]}
    assert nodes["data.train"].startswith("file:rows.jsonl\nsha256:")


@pytest.mark.slow
def test_a_recipe_on_top_of_another_ones_result(tmp_path: Path, model: Path) -> None:
    workspace = write_workspace(tmp_path / "w", model)
    (workspace.folder / "top.toml").write_text(ON_TOP)
    below = workspace.run().result
    top = workspace.run(recipe="top.toml").result
    said = json_of(workspace, "lineage")
    assert [recipe["name"] for recipe in said["recipes"]] == ["tiny", "top"]
    nodes = {node["id"]: node for node in said["nodes"]}
    assert nodes["attach.tiny"]["inputs"] == {"model": "load", "adapter": "tiny/train"}
    assert (nodes["tiny/train"]["recipe"], nodes["tiny/train"]["made_by"]) == ("tiny", below["run"])
    assert (nodes["train"]["recipe"], nodes["train"]["made_by"]) == ("top", top["run"])
    lines = workspace.recipe("lineage").out.splitlines()
    assert lines[0] == f"run {top['run']} of top on tiny"
    assert any(line.endswith(told(nodes["tiny/train"])) for line in lines)
    _, edges = parsed(workspace.recipe("lineage", "--dot").out)
    assert ("tiny/train", "attach.tiny") in edges
    changed = {change["path"] for change in json_of(workspace, "diff", below["run"], top["run"])["recipe"]}
    assert {"name", "adapt.lora.rank", "base.adapt.lora.rank", "model.base"} <= changed
