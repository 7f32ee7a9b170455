"""What ``auto`` stands for reaches the stage, the key and the record, and a plan and its run agree on it."""

from __future__ import annotations

import json
from typing import Any

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


def train(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    return next(node for node in nodes if node["id"] == "train")


def planned(workspace: Workspace, *arguments: str) -> dict[str, Any]:
    return train(json.loads(workspace.recipe("plan", "--json", "tiny.toml", *arguments).out)["nodes"])


def test_a_stage_is_told_what_auto_stands_for(workspace: Workspace) -> None:
    workspace.variables |= write_plugin(workspace.folder / "plugin", "told_plugin", TOLD)
    text = workspace.recipe_file.read_text(encoding="utf-8").replace("[train.sft]", "[train.told]")
    begin, _, rest = text.partition("[data.eval]")
    rest = rest[rest.index("[load.full]") : rest.index("[evaluate.perplexity]")]
    workspace.recipe_file.write_text(begin + rest, encoding="utf-8")
    for arguments, on in ((("--set", LONG_ROWS), True), ((), False)):
        first = train(workspace.run(*arguments).result["nodes"])
        assert first["metrics"] == {"on": float(on)}
        assert first["facts"]["decided"] == {"mixed_precision": "no", "gradient_checkpointing": on}
        found = planned(workspace, *arguments)
        assert (found["state"], found["key"]) == ("cached", first["key"])
        assert found["settled"]["gradient_checkpointing"] == str(on).lower()
        said = f"train.told.gradient_checkpointing={str(on).lower()}"
        assert planned(workspace, *arguments, "--set", said)["key"] == first["key"]
