"""What ``auto`` stands for reaches the stage, the key and the record, and a plan and its run agree on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.engine import Workspace, write_plugin

# A training that writes down what it was told, beside the built-in one's options.
TOLD = """
from dataclasses import replace

from recipe_engine.contract import StageResult
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import builtin


class Told:
    def run(self, request):
        found = request.options.gradient_checkpointing, request.options.mixed_precision
        (request.output / "told.txt").write_text(f"{found}")
        return StageResult(metrics={"on": float(found[0] is True)})

    def restore(self, request, artifact):
        raise AssertionError("nobody asks for it")


@hookimpl
def recipe_train_methods():
    sft = next(method for method in builtin.recipe_train_methods() if method.name == "sft")
    return [replace(sft, name="told", implementation="told_plugin:Told")]
"""
LONG_ROWS = "data.train.max_length=4000000"  # longer than any machine bears, of whatever model


def node_of(said: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in said["nodes"] if node["id"] == name)
    return found


def planned(workspace: Workspace, name: str, *arguments: str) -> dict[str, Any]:
    return node_of(json.loads(workspace.recipe("plan", "--json", "tiny.toml", *arguments).out), name)


@pytest.mark.slow
def test_a_stage_is_told_what_auto_stands_for(workspace: Workspace) -> None:
    workspace.variables |= write_plugin(workspace.folder / "plugin", "told_plugin", TOLD)
    text = workspace.recipe_file.read_text(encoding="utf-8").replace("[train.sft]", "[train.told]")
    begin, _, rest = text.partition("[data.eval]")
    rest = rest[rest.index("[load.full]") : rest.index("[evaluate.perplexity]")]
    workspace.recipe_file.write_text(begin + rest, encoding="utf-8")
    for arguments, on in ((("--set", LONG_ROWS), True), ((), False)):
        first = node_of(workspace.run(*arguments).result, "train")
        assert first["metrics"] == {"on": float(on)}
        assert first["facts"]["decided"] == {"mixed_precision": "no", "gradient_checkpointing": on}
        found = planned(workspace, "train", *arguments)
        assert (found["state"], found["key"]) == ("cached", first["key"])
        assert found["settled"]["gradient_checkpointing"] == str(on).lower()
        said = f"train.told.gradient_checkpointing={str(on).lower()}"
        assert planned(workspace, "train", *arguments, "--set", said)["key"] == first["key"]


# As if the processor had the instructions for bfloat16 where it has none, and had none where it has them.
OTHER_PROCESSOR = """
from recipe_engine import decisions

known = decisions.computes_in_bfloat16
decisions.computes_in_bfloat16 = lambda flags: not known(flags)
"""


@pytest.mark.slow
def test_a_replay_decides_as_its_run_did(workspace: Workspace) -> None:
    workspace.edit('dtype = "float32"\n', "")
    here = planned(workspace, "load")["settled"].get("dtype", "bfloat16")  # named where it is not the usual
    there = write_plugin(workspace.folder / "plugin", "other_processor", OTHER_PROCESSOR)
    workspace.variables |= there
    load = node_of(workspace.run("--set", LONG_ROWS).result, "load")
    for name in there:
        del workspace.variables[name]
    assert {here, load["facts"]["decided"]["dtype"]} == {"float32", "bfloat16"}
    done = workspace.recipe("replay", "--verify", "--json")
    done.said(0)
    said = json.loads(done.out)
    assert (said["status"], said["difference"]) == ("identical", None)
