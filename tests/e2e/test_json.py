"""What the command really prints for programs, against the schemas that it ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.engine import Finished, Workspace, assert_output, write_plugin


def test_events_of_a_run(first_run: tuple[Workspace, Finished]) -> None:
    events = first_run[1].events
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-1], kinds.count("result")) == ("run_started", "result", 1)
    of_nodes = {f"node_{kind}" for kind in ("started", "progress", "metrics", "message", "finished")}
    assert set(kinds) == {"run_started", *of_nodes, "result"}
    # A program can take the result of a node from its event or from the end: they are the same.
    at_the_end = {node["id"]: node for node in events[-1]["nodes"]}
    for event in events:
        if event["type"] == "node_finished":
            expected = at_the_end[event["node"]] | {"node": event["node"]}
            del expected["id"]
            assert {key: event[key] for key in expected} == expected


def test_events_are_kept_but_for_progress(first_run: tuple[Workspace, Finished]) -> None:
    workspace, done = first_run
    kept = (workspace.home / "runs" / done.result["run"] / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == [event for event in done.events if event["type"] != "node_progress"]


@pytest.mark.slow
def test_events_of_runs_that_fail(workspace: Workspace) -> None:
    (workspace.folder / "rows.jsonl").write_text("no row\n")
    done = workspace.recipe("run", "--json", "tiny.toml")
    assert done.code == 5
    failed = done.events[-2]
    assert (failed["type"], failed["node"]) == ("node_failed", "prepare.train")
    assert done.result["error"] == failed["error"]
    assert failed["error"]["exit_code"] == 5
    assert failed["error"]["message"].startswith("rows.jsonl:1:1: row 1 is not JSON")
    assert done.err == f"error: {failed['error']['message']}\n       {failed['error']['hint']}\n"
    told = workspace.recipe("show", "--json")
    assert_output("show", json.loads(told.out))


def test_show(finished: Workspace) -> None:
    shown = json.loads(finished.recipe("show", "--json").out)
    assert_output("show", shown)
    assert next(iter(shown)) == "schema_version"


def test_plans(finished: Workspace, workspace: Workspace) -> None:
    changed = ("--set", "train.sft.learning_rate=1e-4")
    states = set()
    for done in (
        workspace.recipe("plan", "--json", "tiny.toml"),
        finished.recipe("plan", "--json", "tiny.toml"),
        finished.recipe("plan", "--json", "tiny.toml", *changed),
        finished.recipe("plan", "--json", "tiny.toml", "--set", 'model.base="hub:owner/name"'),
    ):
        plan = json.loads(done.out)
        assert_output("plan", plan)
        states |= {node["state"] for node in plan["nodes"]}
    assert states == {"cached", "will run", "depends on", "unknown"}
    assert not workspace.home.exists()  # a plan writes nothing


def test_validate(workspace: Workspace) -> None:
    good = json.loads(workspace.recipe("validate", "--format", "json", "tiny.toml").out)
    assert_output("validate", good)
    assert good["valid"]
    assert good["resolved"]["train"]["sft"]["batch_size"] == 8
    assert json.loads(workspace.recipe("validate", "--json", "tiny.toml").out) == good
    workspace.edit("rank = 4", "rnk = 4")
    done = workspace.recipe("validate", "--format", "json", "tiny.toml", "--set", "seed=-1")
    bad = json.loads(done.out)
    assert_output("validate", bad)
    assert (done.code, done.err, bad["valid"], bad["resolved"]) == (2, "", False, None)
    assert [(problem["path"], problem["line"] > 0) for problem in bad["problems"]] == [
        ("seed", False),
        ("adapt.lora.rnk", True),
    ]


def test_plugins(workspace: Workspace, tmp_path: Path) -> None:
    workspace.variables |= write_plugin(tmp_path / "plugin", "broken", "import nothing_of_this_name\n")
    plugins = json.loads(workspace.recipe("plugins", "--json").out)
    assert_output("plugins", plugins)
    assert {(plugin["name"], plugin["error"] is None) for plugin in plugins["plugins"]} == {
        ("builtin", True),
        ("broken", False),
    }


def test_rows(finished: Workspace) -> None:
    lines = finished.recipe("data", "show", "tiny.toml", "--data", "eval", "--rows", "8", "--json").out.splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        assert_output("data_row", row)
        assert any(token["learned"] for token in row["tokens"])
    assert [row["row"] for row in rows] == list(range(25, 33))
