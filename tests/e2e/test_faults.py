"""What users and machines get wrong: one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Finished, Workspace, digests, disk, write_plugin, write_workspace


def test_a_read_only_registry(workspace: Workspace) -> None:
    workspace.before = disk(workspace.home, "-t tmpfs -o ro tmpfs")
    errors = workspace.recipe("run", "tiny.toml").said(4)
    first, second = errors.splitlines()
    assert first.startswith(f"error: {workspace.home}")
    assert first.endswith(" cannot be written: read-only file system.")
    assert second == "       The file system is read-only: point RECIPE_HOME at a folder that can be written."
    # What only reads goes on working.
    assert workspace.recipe("plan", "tiny.toml").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16k", "64k", "120k", "200k"])
def test_a_full_disk(workspace: Workspace, size: str) -> None:
    """Each size is full somewhere else, be it in the engine or in a library of the worker."""
    workspace.before = disk(workspace.home, f"-t tmpfs -o size={size} tmpfs")
    done = workspace.recipe("run", "--json", "tiny.toml")
    assert "cannot be written: no space left on device." in done.said(4)
    assert "The disk is full: free some space or point RECIPE_HOME at another disk, then run again." in done.err
    assert len(done.err.splitlines()) == 2
    if done.out:
        assert done.result["type"] == "result"
        assert (done.result["status"], done.result["error"]["exit_code"]) == ("failed", 4)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["commit.synced@3", "file.written@9", "line.written@4", "commit.durable@5"])
def test_the_disk_is_full_once(workspace: Workspace, first_run: tuple[Workspace, Finished], point: str) -> None:
    workspace.variables["RECIPE_FAULT"] = f"{point}:enospc"
    assert "The disk is full" in workspace.recipe("run", "--json", "tiny.toml").said(4)
    assert workspace.leftovers() == []
    del workspace.variables["RECIPE_FAULT"]
    assert digests(workspace.run().result) == digests(first_run[1].result)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["commit.renamed@2", "commit.sealed@12", "file.replaced@15"])
def test_the_engine_is_killed_while_it_writes(
    workspace: Workspace, first_run: tuple[Workspace, Finished], point: str
) -> None:
    workspace.variables["RECIPE_FAULT"] = point
    assert workspace.recipe("run", "tiny.toml").code == -9
    del workspace.variables["RECIPE_FAULT"]
    assert digests(workspace.run().result) == digests(first_run[1].result)
    assert workspace.leftovers() == []


def test_a_missing_data_file(workspace: Workspace) -> None:
    (workspace.folder / "rows.jsonl").unlink()
    done = workspace.recipe("run", "tiny.toml")
    assert done.said(3) == (
        "error: file:rows.jsonl: there is no rows.jsonl.\n       Paths are relative to the recipe.\n"
    )
    # Results are for standard output, errors for standard error.
    assert "error" not in done.out
    assert workspace.last_record()["error"]["node"] == "resolve"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "number", "problem"),
    [
        ('{"prompt": "What?"}', 5, 'the field "completion" is missing; the row has prompt'),
        ('["What?", "That."]', 7, "row 7 is not a JSON object."),
    ],
)
def test_a_bad_row(workspace: Workspace, line: str, number: int, problem: str) -> None:
    file = workspace.folder / "rows.jsonl"
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines))
    errors = workspace.recipe("run", "tiny.toml").said(5)
    assert errors.startswith(f"error: rows.jsonl:{number}:")
    assert problem in errors
    assert workspace.leftovers() == []


@pytest.mark.slow
def test_a_model_without_tokenizer(tmp_path: Path) -> None:
    space = write_workspace(tmp_path / "space", tokenizer=False)
    errors = space.recipe("run", "tiny.toml").said(3)
    assert errors.startswith("error: file:model holds no tokenizer.\n       Expected one of tokenizer.json, ")


@pytest.mark.slow
def test_a_model_without_chat_template(tmp_path: Path) -> None:
    space = write_workspace(tmp_path / "space", chat_template=None)
    errors = space.recipe("run", "tiny.toml").said(3)
    assert "The tokenizer has no chat template.\n       Give the text around the prompt in the data table: " in errors


@pytest.mark.slow
def test_a_model_with_pickled_weights_only(tmp_path: Path) -> None:
    space = write_workspace(tmp_path / "space", pickled=True)
    errors = space.recipe("run", "tiny.toml").said(3)
    assert errors.startswith("error: file:model holds no weights as *.safetensors or *.gguf.\n")
    assert "can run code and are never loaded" in errors


@pytest.mark.slow
@pytest.mark.parametrize("pad", ["own", "none"])
def test_other_ways_to_pad_give_the_same_numbers(
    tmp_path: Path, first_run: tuple[Workspace, Finished], pad: tiny.Padding
) -> None:
    """In the other tests the end-of-sequence token pads; that it is learned all the same, data show tells."""
    space = write_workspace(tmp_path / "space", pad=pad)
    assert space.run().result["metrics"] == first_run[1].result["metrics"]
    row = json.loads(space.recipe("data", "show", "tiny.toml", "--rows", "1", "--json").out)
    assert (row["tokens"][-1]["text"], row["tokens"][-1]["learned"]) == (tiny.END, True)


@pytest.mark.slow
def test_weights_that_are_no_numbers(workspace: Workspace) -> None:
    """An evaluation says so, in JSON that any program reads; training stops on it."""
    from safetensors.numpy import load_file, save_file

    weights = workspace.folder / "model" / "model.safetensors"
    (workspace.folder / "model").unlink()
    tiny.write_model(workspace.folder / "model")
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    done = workspace.recipe("run", "--json", "tiny.toml")
    assert "Lower learning_rate" in done.said(5)
    assert "NaN" not in done.out
    assert done.result["metrics"]["perplexity.loss"] == {"before": "nan"}
    assert workspace.recipe("show").code == 0


BUGGY = """
from dataclasses import dataclass
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl

@dataclass(frozen=True)
class Options:
    pass

class Buggy:
    def run(self, request):
        print("what the library printed")
        return {}["no such key"]

class Leaking:
    def run(self, request):
        import os
        os._exit(7)

class Pushing:
    def check(self, request):
        pass

    def is_current(self, request):
        return False

    def push(self, request):
        return {}["no such key"]

@hookimpl
def recipe_push_methods():
    yield Method(name="buggy", summary="Has a bug", options=Options, implementation="buggy:Pushing")

@hookimpl
def recipe_evaluate_methods():
    for name in ("Buggy", "Leaking"):
        yield Method(name=name.lower(), summary="Has a bug", options=Options, implementation=f"buggy:{name}",
                     data=lambda options: {"eval": "eval"})
"""


@pytest.fixture
def buggy(finished: Workspace) -> Workspace:
    """Everything is computed but the evaluation that cannot be."""
    finished.variables |= write_plugin(finished.folder / "plugin", "buggy", BUGGY)
    return finished


@pytest.mark.slow
def test_a_bug_in_a_stage(buggy: Workspace) -> None:
    buggy.edit("[evaluate.samples]\ncount = 2\nmax_new_tokens = 8\n", "[evaluate.buggy]\n")
    done = buggy.recipe("run", "tiny.toml")
    assert done.code == 5
    assert "Traceback (most recent call last):" in done.err
    assert 'return {}["no such key"]' in done.err
    assert "error: KeyError: 'no such key'" in done.err
    assert "This is a bug of the plugin buggy, not of the recipe." in done.err
    record = buggy.last_record()
    log = buggy.home / "runs" / record["id"] / "worker.log"
    assert str(log) in done.err
    assert "what the library printed" in log.read_text()
    assert (record["status"], record["error"]["node"]) == ("failed", "evaluate.buggy@base")
    assert buggy.leftovers() == []


@pytest.mark.slow
def test_a_bug_in_a_push(buggy: Workspace) -> None:
    buggy.edit('[push.folder]\npath = "export"\n', "[push.buggy]\n")
    done = buggy.recipe("run", "tiny.toml")
    assert done.code == 5
    assert 'return {}["no such key"]' in done.err
    assert "error: KeyError: 'no such key'" in done.err
    assert "This is a bug of the plugin buggy, not of the recipe." in done.err
    record = buggy.last_record()
    assert (record["status"], record["error"]["node"]) == ("failed", "push.buggy")


@pytest.mark.slow
def test_a_stage_that_ends_its_process(buggy: Workspace) -> None:
    buggy.edit("[evaluate.samples]\ncount = 2\nmax_new_tokens = 8\n", "[evaluate.leaking]\n")
    errors = buggy.recipe("run", "tiny.toml").said(5)
    assert "error: The worker ended with status 7.\n       See " in errors
    assert buggy.leftovers() == []


MEDDLING = """
from recipe_engine.hookmark import hookimpl

@hookimpl
def recipe_after_stage(node):
    if node.id.startswith("evaluate"):
        raise LookupError("nobody is there")
"""


@pytest.mark.slow
def test_a_bug_in_a_hook_names_its_plugin(finished: Workspace) -> None:
    finished.variables |= write_plugin(finished.folder / "plugin", "meddling", MEDDLING)
    done = finished.recipe("run", "tiny.toml", "--set", "evaluate.exact_match.max_new_tokens=3")
    assert done.code == 5
    assert "the hook recipe_after_stage of the plugin meddling:meddling raised LookupError: nobody is there" in done.err
    assert 'raise LookupError("nobody is there")' in done.err


@pytest.mark.slow
def test_a_bug_in_the_hook_of_a_failure_does_not_hide_it(finished: Workspace) -> None:
    code = MEDDLING.replace("recipe_after_stage", "recipe_stage_failed").replace('"evaluate"', '"answers"')
    finished.variables |= write_plugin(finished.folder / "plugin", "meddling", code)
    (finished.folder / "occupied").write_text("")
    failing = ("--set", 'push.folder.path="occupied/folder"')
    assert "is a file where a folder is needed" in finished.recipe("run", "tiny.toml", *failing).said(4)
    finished.variables |= {"RECIPE_FAULT": "commit.synced:enospc"}
    done = finished.recipe("run", "tiny.toml", "--set", "evaluate.exact_match.max_new_tokens=3")
    assert done.code == 4
    assert "error: " in done.err
    assert "The disk is full" in done.err
    assert "the hook recipe_stage_failed of the plugin meddling:meddling raised LookupError" in done.err


def test_a_run_that_is_not_there(workspace: Workspace) -> None:
    assert workspace.recipe("show").said(2).startswith(f"error: There are no runs in {workspace.home} yet.")
    assert workspace.recipe("generate", "--prompt", "x").said(2)
    assert not workspace.home.exists()


def test_a_run_without_a_model(workspace: Workspace) -> None:
    (workspace.folder / "rows.jsonl").unlink()
    workspace.recipe("run", "tiny.toml").said(3)
    errors = workspace.recipe("generate", "--prompt", "x").said(2)
    assert "has no result of train.\n       Give a run that has succeeded.\n" in errors


@pytest.mark.slow
def test_a_base_model_that_is_gone(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    """Its artifact only refers to it, and says so instead of taking another model."""
    (finished.folder / "model").unlink()
    assert "model" in finished.recipe("run", "tiny.toml").said(3)


def test_a_damaged_artifact(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    digest = digests(first_run[1].result)["train"].replace(":", "-")
    weights = finished.home / "artifacts" / digest / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])
    errors = finished.recipe("run", "tiny.toml").said(8)
    assert f"error: Artifact {digest} is damaged: adapter_model.safetensors has " in errors


def test_the_registry_can_be_moved(finished: Workspace) -> None:
    (finished.folder / "home").rename(finished.folder / "moved")
    finished.variables["RECIPE_HOME"] = str(finished.folder / "moved")
    told = json.loads(finished.recipe("show", "--json").out)
    paths = [Path(node["artifact"]["path"]) for node in told["nodes"] if node["artifact"]]
    assert all(path.is_dir() and path.is_relative_to(finished.home) for path in paths)
