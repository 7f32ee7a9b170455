"""A recorded run once more, and what tells it from its record."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.e2e.engine import (
    COMMAND,
    Finished,
    Running,
    Workspace,
    assert_output,
    digests,
    statuses,
    wait_until_gone,
    write_workspace,
)
from tests.e2e.test_base_recipes import ON_TOP

from recipe_registry import NamedResult, Registry

EXTENDING = 'extends = "tiny.toml"\nname = "smaller"\n[adapt.lora]\nrank = 2\n[train.sft]\nepochs = 1\n'


def replayed(workspace: Workspace, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What ``recipe replay --verify --json`` says; it left nothing behind and pushed nothing."""
    shutil.rmtree(workspace.folder / "export", ignore_errors=True)
    runs = sorted((workspace.home / "runs").iterdir())
    done = workspace.recipe("replay", "--verify", "--json", *arguments)
    done.said(code)
    said: dict[str, Any] = json.loads(done.out)
    assert_output("replay", said)
    assert workspace.leftovers() == []
    assert sorted((workspace.home / "runs").iterdir()) == runs
    assert not (workspace.folder / "export").exists()
    assert not (workspace.home / "replays").exists()
    return said


def edit_record(workspace: Workspace, change: Any) -> Path:
    """Change the record of the newest run; its folder."""
    file = max((workspace.home / "runs").glob("*/run.json"))
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    return file.parent


@pytest.mark.slow
def test_a_run_is_made_again_to_the_bit(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    finished.variables["RECIPE_REMOTE"] = "nosuch://place"  # a run would ask it for results, and end here
    said = replayed(finished)
    assert (said["status"], said["difference"], said["environment"]) == ("identical", None, [])
    assert [node["id"] for node in said["nodes"]] == list(digests(first_run[1].result))
    assert {node["id"]: node["steps"] for node in said["nodes"] if node["steps"]} == {"train": 6}
    assert said["metrics"] == first_run[1].result["metrics"]


@pytest.mark.slow
def test_what_was_cached_is_computed_too_and_another_environment_is_told(finished: Workspace) -> None:
    again = finished.run()
    assert set(statuses(again.result).values()) == {"cached"}

    def older(record: dict[str, Any]) -> None:
        record["environment"]["packages"]["torch"]["version"] = "1.0"
        record["environment"]["cpu_flags"] = ["none"]

    edit_record(finished, older)
    done = finished.recipe("replay", again.result["run"], "--verify")
    assert (done.code, done.err) == (0, "")
    first = done.out.splitlines()
    assert first[0] == f"replay of run {again.result['run']} (tiny)"
    assert first[1] == "the environment is not that of the run:"
    assert first[2].startswith("  cpu_flags  none -> ")
    assert first[3] == f"  packages.torch.version  1.0 -> {version('torch')}"
    assert "train: started (replayed)" in first
    assert first[-1].startswith("identical: 14 nodes and 6 optimizer steps; replayed in ")
    assert finished.leftovers() == []


@pytest.mark.slow
def test_a_number_of_the_trace_that_is_another(finished: Workspace) -> None:
    file = next((finished.home / "runs").glob("*/train.trace.jsonl"))
    steps = [json.loads(line) for line in file.read_text().splitlines()]
    was = steps[3]["grad_norm"]
    assert [step["step"] for step in steps if "weights" in step] == [1, 5]
    steps[3]["grad_norm"] = was + 1e-12
    file.write_text("".join(json.dumps(step) + "\n" for step in steps))
    done = finished.recipe("replay", "--verify")
    told = f"error: train, step 4: grad_norm was {json.dumps(was + 1e-12)}, and is {json.dumps(was)} now.\n"
    assert done.said(6).startswith(told)
    assert finished.leftovers() == []


@pytest.mark.slow
def test_a_stored_weight_that_is_another(finished: Workspace) -> None:
    train = next(node for node in finished.last_record()["nodes"] if node["id"] == "train")
    stored = finished.home / "artifacts" / train["artifact"]["digest"].replace(":", "-") / "adapter_model.safetensors"
    tensors = load_file(stored)
    name = min(tensors)
    was = tensors[name].flatten()[5].item()
    tensors[name].view(-1)[5] += 1
    stored.chmod(0o644)
    save_file(tensors, stored, metadata={"format": "pt"})
    said = replayed(finished, code=6)
    difference = said["difference"]
    assert (difference["node"], difference["step"]) == ("train", None)
    assert difference["name"] == f"adapter_model.safetensors: {name}[5]"
    assert (difference["recorded"], difference["replayed"]) == (pytest.approx(was + 1), was)
    assert {node["id"] for node in said["nodes"] if node["verdict"] == "different"} == {"train"}


def test_a_data_file_that_is_another(finished: Workspace) -> None:
    # A run looks for its files where it was made, and this is a copy of that place.
    edit_record(finished, lambda record: record["facts"].update(folder=str(finished.folder)))
    rows = finished.folder / "rows.jsonl"
    before = hashlib.sha256(rows.read_bytes()).hexdigest()
    rows.write_text(rows.read_text().replace("What comes", "What goes", 1))
    after = hashlib.sha256(rows.read_bytes()).hexdigest()
    done = finished.recipe("replay", "--verify")
    told = f"file:rows.jsonl: rows.jsonl has the sha256 {after}, but the record says {before}."
    assert told in done.said(3)
    assert finished.leftovers() == []


def test_a_run_that_finished_nothing(finished: Workspace) -> None:
    folder = edit_record(finished, lambda record: record.update(nodes=record["nodes"][:1]))
    done = finished.recipe("replay")
    assert f"error: Run {folder.name} finished no node: there is nothing to replay." in done.said(2)


def test_a_device_that_is_not_here(finished: Workspace) -> None:
    folder = edit_record(finished, lambda record: record["environment"].update(device="cuda"))
    done = finished.recipe("replay")
    assert f"error: run {folder.name} was made on cuda, but " in done.said(4)
    assert done.out == ""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), [("smaller.toml", EXTENDING), ("top.toml", ON_TOP)])
def test_a_composed_recipe(tmp_path: Path, model: Path, name: str, text: str) -> None:
    workspace = write_workspace(tmp_path / "w", model)
    (workspace.folder / name).write_text(text)
    made = workspace.run(recipe=name)
    # What the recipe was made of may be gone: the run kept its own.
    (workspace.folder / name).unlink()
    (workspace.folder / "tiny.toml").unlink()
    said = replayed(workspace)
    assert said["status"] == "identical"
    assert [node["id"] for node in said["nodes"]] == list(digests(made.result))


@pytest.mark.slow
def test_a_base_that_another_run_trained(tmp_path: Path, model: Path) -> None:
    """The numbers of its steps are in the record of that run, under another name."""
    workspace = write_workspace(tmp_path / "w", model)
    (workspace.folder / "top.toml").write_text(ON_TOP)
    workspace.run()
    assert statuses(workspace.run(recipe="top.toml").result)["tiny/train"] == "cached"
    said = replayed(workspace)
    assert {node["id"]: node["steps"] for node in said["nodes"] if node["steps"]} == {"tiny/train": 6, "train": 2}


@pytest.mark.slow
def test_a_named_result_is_taken_as_it_is(tmp_path: Path, model: Path) -> None:
    workspace = write_workspace(tmp_path / "w", model)
    made = workspace.run().result
    registry = Registry.open(workspace.home)
    trained = {"train": digests(made)["train"]}
    recipe = (workspace.folder / "tiny.toml").read_text().replace('"file:', f'"file:{workspace.folder}/')
    registry.names.add(
        NamedResult("tiny", "1.0", made["run"], trained, "recipe.toml", Path()), {"recipe.toml": recipe.encode()}
    )
    (workspace.folder / "top.toml").write_text(ON_TOP.replace('{ recipe = "tiny.toml" }', '"registry:tiny:latest"'))
    workspace.run(recipe="top.toml")
    said = replayed(workspace)
    assert said["status"] == "identical"
    assert "tiny/train" in [node["id"] for node in said["nodes"]]
    (given,) = [node for node in lineage_of(workspace) if node["id"] == "tiny/train"]
    assert (given["result"], given["artifact"], given["inputs"]) == ("registry:tiny:1.0", trained["train"], {})


def lineage_of(workspace: Workspace) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads(workspace.recipe("lineage", "--json").out)["nodes"]
    return nodes


@pytest.mark.slow
def test_what_a_stopped_run_had_finished(finished: Workspace) -> None:
    finished.edit("epochs = 2", "epochs = 30")
    running = finished.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 3)
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    said = replayed(finished)
    assert said["status"] == "identical"
    assert [node["id"] for node in said["nodes"]][-1] == "adapt"


@pytest.mark.slow
def test_what_is_kept_is_a_registry(finished: Workspace) -> None:
    done = finished.recipe("replay", "--keep", "--json")
    said = json.loads(done.out)
    assert_output("replay", said)
    assert (said["status"], said["nodes"]) == ("replayed", None)
    finished.variables["RECIPE_HOME"] = said["folder"]
    assert finished.recipe("show").code == 0
    assert finished.recipe("generate", "--prompt", "What comes after 3?", "--max-new-tokens", "2").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_replay_leaves_nothing(finished: Workspace, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [COMMAND, "replay", "--verify"],
        cwd=finished.folder,
        env=finished.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("load: started") for line in process.stdout)
    children = Running(process).children()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert children
    assert wait_until_gone(children) == []
    if number == signal.SIGINT:
        assert (process.returncode, error) == (130, "error: stopped.\n")
    else:
        assert [name.startswith("replay-") for name in finished.leftovers()] == [True]
        finished.run()  # clears away what nobody holds any more
    assert finished.leftovers() == []
    assert list((finished.home / "work").iterdir()) == []
