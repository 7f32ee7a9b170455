"""A whole run with tasks of lm-eval: before and after training, known by their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests import tiny
from tests.e2e.engine import ran, statuses

if TYPE_CHECKING:
    from tests.e2e.engine import Workspace

TABLE = """
[evaluate.harness]
folder = "file:tasks"

[gate]
"harness.capitals.acc" = ">= 0"
"""
TASK = """\
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: ["Paris", "Rome", "Bonn"]
doc_to_target: label
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
# Hides an installed package from whoever asks for its version.
HIDDEN = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "lm_eval":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


@pytest.fixture
def measured(workspace: Workspace) -> Workspace:
    """A place whose recipe has tasks."""
    (workspace.folder / "tasks").mkdir()
    (workspace.folder / "tasks" / "capitals.yaml").write_text(TASK)
    rows = [{"question": name, "label": label} for name, label in (("France?", 0), ("Italy?", 1), ("Lazio?", 1))]
    tiny.write_jsonl(workspace.folder / "tasks" / "capitals.jsonl", rows)
    workspace.append(TABLE)
    return workspace


@pytest.mark.slow
def test_tasks_before_and_after_training(measured: Workspace) -> None:
    nodes = ("evaluate.harness@base", "evaluate.harness@result")
    done = measured.run()
    assert set(nodes) <= set(ran(done.result))
    record = measured.last_record()
    for node in record["nodes"]:
        if node["id"] in nodes:
            assert set(node["metrics"]) == set(node["facts"]["stderr"]) == {"capitals.acc", "capitals.acc_norm"}
            assert node["facts"]["rows"] == {"capitals": 3}
    assert set(record["metrics"]["harness.capitals.acc"]) == {"before", "after"}
    shown = measured.recipe("show", record["id"]).out
    assert "harness.capitals.acc_norm" in shown
    assert "harness.capitals.acc is" in shown, "the gate has judged it"
    assert ran(measured.run().result) == []
    assert not list(measured.folder.rglob("*.arrow")), "lm-eval's copies of the data are gone"

    tiny.write_jsonl(measured.folder / "tasks" / "capitals.jsonl", [{"question": "Rome?", "label": 1}])
    plan = measured.recipe("plan", "tiny.toml").out
    assert "evaluate.harness" in plan
    assert set(ran(measured.run().result)) >= set(nodes)
    assert {node for node, status in statuses(measured.run().result).items() if status == "ran"} == set()


@pytest.mark.slow
def test_code_in_a_task_ends_the_run_before_the_training(measured: Workspace) -> None:
    (measured.folder / "tasks" / "mine.yaml").write_text("task: mine\ndoc_to_text: !function mine.text\n")
    (measured.folder / "tasks" / "mine.py").write_text("raise SystemExit('it was run')\n")
    errors = measured.recipe("run", "tiny.toml").said(5)
    assert "file:tasks/mine.yaml: it names the Python function mine.text, and no code of a task is run." in errors
    assert "train" not in {node["id"] for node in measured.last_record()["nodes"] if node["artifact"]}


def test_without_the_extra_a_plan_says_how_to_get_it(measured: Workspace) -> None:
    (measured.folder / "hidden").mkdir()
    (measured.folder / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    measured.variables["PYTHONPATH"] = str(measured.folder / "hidden")
    for command in (("plan",), ("run",)):
        assert measured.recipe(*command, "tiny.toml").said(4) == (
            'error: lm_eval is not installed.\n       Install it: pip install "recipe-engine[harness]"\n'
        )
