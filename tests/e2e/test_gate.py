"""A result that is not good enough is published nowhere; what was computed stays."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.e2e.engine import NODES, Finished, Workspace, assert_output, ran, write_plugin

NUMBERLESS = """
from dataclasses import dataclass
from recipe_engine.contract import StageResult
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl

@dataclass(frozen=True)
class Options:
    pass

class Judge:
    def run(self, request):
        return StageResult(metrics={"points": float("nan")})

    def restore(self, request, artifact):
        return None

@hookimpl
def recipe_evaluate_methods():
    yield Method(name="judge", summary="Judges", options=Options, implementation="judge:Judge")
"""


@pytest.mark.slow
def test_a_rule_that_is_not_met_ends_the_run_before_anything_is_pushed(
    finished: Workspace, first_run: tuple[Workspace, Finished]
) -> None:
    shutil.rmtree(finished.folder / "export")
    finished.append('[gate]\nexact_match = ">= 0.9"\n"perplexity.loss" = "<= 1.0 * before"\n')
    before = first_run[1].result["metrics"]

    done = finished.recipe("run", "tiny.toml")

    value = before["exact_match.exact_match"]["after"]
    told = done.said(7).splitlines()
    assert told[0] == f"error: exact_match.exact_match is {value:.4g}, and must be >= 0.9. Nothing was published."
    assert "gate: exact_match.exact_match is" in done.out
    assert not (finished.folder / "export").exists()

    shown = json.loads(finished.recipe("show", "--json").out)
    assert_output("show", shown)
    assert (shown["status"], shown["error"]["type"], shown["error"]["exit_code"]) == ("failed", "GateNotMet", 7)
    assert [node["id"] for node in shown["nodes"]] == list(NODES[:-1])
    assert {node["status"] for node in shown["nodes"]} == {"cached"}
    loss = before["perplexity.loss"]
    assert shown["gates"] == [
        {
            "metric": "exact_match.exact_match",
            "rule": ">= 0.9",
            "value": value,
            "limit": 0.9,
            "met": False,
        },
        {
            "metric": "perplexity.loss",
            "rule": "<= 1.0 * before",
            "value": loss["after"],
            "limit": loss["before"],
            "met": True,
        },
    ]
    assert "and must be >= 0.9" in finished.recipe("show").out

    again = finished.run("--set", 'gate.exact_match=">= 0"')
    assert [gate["met"] for gate in again.result["gates"]] == [True, True]
    assert ran(again.result) == ["push.folder"]
    assert (finished.folder / "export" / "README.md").is_file()


def test_a_plan_shows_the_gate(finished: Workspace) -> None:
    finished.append('[gate]\nexact_match = ">= 0.9"\n')
    plan = json.loads(finished.recipe("plan", "--json", "tiny.toml").out)
    assert_output("plan", plan)
    assert {node["id"]: (node["state"], node["why"]) for node in plan["nodes"][-2:]} == {
        "gate": ("will run", "what was measured is judged each time"),
        "push.folder": ("depends on", "gate"),
    }


@pytest.mark.slow
def test_a_metric_that_a_plugin_does_not_measure_ends_the_run_before_training(workspace: Workspace) -> None:
    workspace.variables |= write_plugin(workspace.folder / "plugin", "judge", NUMBERLESS)
    workspace.append('[evaluate.judge]\n[gate]\n"judge.score" = "> 1"\n')
    done = workspace.recipe("run", "--json", "tiny.toml")
    assert done.code == 7, done.err
    assert done.result["error"]["message"] == "[gate] needs judge.score, and it measures points."
    assert "adapt" not in [node["id"] for node in done.result["nodes"]]

    done = workspace.recipe("run", "--json", "tiny.toml", "--set", 'gate={ "judge.points" = "> 1" }')
    assert done.code == 7, done.err
    assert [gate["value"] for gate in done.result["gates"]] == ["nan"]
