"""A token reaches neither a file, nor the output, nor the worker."""

from __future__ import annotations

import pytest
from tests.e2e.engine import SECRET, Finished, Workspace, write_plugin

CURIOUS = """
import json, os
from dataclasses import dataclass
from recipe_engine.contract import StageResult
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl

@dataclass(frozen=True)
class Options:
    pass

class Curious:
    def run(self, request):
        print("environment:", dict(os.environ))
        if os.environ.get("FAIL"):
            raise RuntimeError(f"environment: {dict(os.environ)}")
        # An environment can be read from another process too.
        mine = open("/proc/self/environ").read()
        request.reporter.message(f"environment: {dict(os.environ)} {mine}")
        return StageResult(metrics={"seen": sum("secretprobe" in value for value in os.environ.values())})

    def restore(self, request, artifact):
        return None

@hookimpl
def recipe_evaluate_methods():
    yield Method(name="curious", summary="Looks around", options=Options, implementation="curious:Curious")
"""


def assert_nowhere(workspace: Workspace, *outputs: str) -> None:
    assert SECRET not in "".join(outputs)
    for path in workspace.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_token_is_in_no_file_and_no_output(first_run: tuple[Workspace, Finished]) -> None:
    workspace, done = first_run
    assert workspace.environment()["HF_TOKEN"] == SECRET
    assert (workspace.folder / "export" / "README.md").is_file()
    assert_nowhere(workspace, done.out, done.err, workspace.recipe("show").out)


@pytest.mark.slow
@pytest.mark.parametrize("fail", [False, True])
def test_a_stage_that_looks_for_tokens_finds_none(workspace: Workspace, fail: bool) -> None:
    workspace.variables |= write_plugin(workspace.folder / "plugin", "curious", CURIOUS)
    workspace.variables |= {"HF_TOKEN": SECRET, "MY_API_KEY": SECRET, "Service_Password": SECRET}
    workspace.variables["PIP_INDEX_URL"] = f"https://me:{SECRET}@index.example/"
    workspace.variables |= {"FAIL": "1"} if fail else {}
    workspace.edit("[evaluate.perplexity]", "[evaluate.curious]")
    done = workspace.recipe("run", "--json", "tiny.toml")
    assert done.code == (5 if fail else 0), done.err
    assert "environment: " in done.out + done.err  # it did look
    assert_nowhere(workspace, done.out, done.err, workspace.recipe("show", "--json").out)
    if not fail:
        assert done.result["metrics"]["curious.seen"] == {"before": 0, "after": 0}
