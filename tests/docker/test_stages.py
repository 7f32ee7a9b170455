"""Stages in containers: the same bytes as outside, and nothing but what they were given."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.docker.conftest import LONG, METRICS
from tests.docker.going_on import goes_on
from tests.e2e.engine import Finished, Workspace, digests, write_plugin, write_workspace

from recipe_engine.runners.container import HOME_LABEL

pytestmark = pytest.mark.slow

PLUGIN = (Path(__file__).parent / "probes.py").read_text(encoding="utf-8")
EVALUATIONS = "[evaluate.perplexity]\n\n[evaluate.exact_match]\nmax_new_tokens = 8\n"
SAMPLES = "\n[evaluate.samples]\ncount = 2\nmax_new_tokens = 8\n"


def probe(workspace: Workspace, name: str) -> Workspace:
    """Let one of the probes be the only evaluation."""
    workspace.variables |= write_plugin(workspace.folder / "plugin", "probes", PLUGIN)
    workspace.edit(EVALUATIONS + SAMPLES, f"[evaluate.{name}]\n")
    return workspace


def facts_of(workspace: Workspace, node: str) -> dict[str, Any]:
    """What a node of the last run has recorded."""
    found = next(each for each in workspace.last_record()["nodes"] if each["id"] == node)
    facts: dict[str, Any] = found["facts"]
    return facts


@pytest.mark.parametrize(
    "table",
    ['[container]\nimage = "{image}"\n', '[container.train]\nimage = "{image}"\n'],
    ids=["every stage", "the training alone"],
)
def test_the_same_bytes_as_on_the_host(workspace: Workspace, on_host: Finished, image: str, table: str) -> None:
    workspace.append(METRICS + table.format(image=image))
    done = workspace.run()
    assert digests(done.result) == digests(on_host.result)
    keys = {node["id"]: node["key"] for node in done.result["nodes"]}
    outside = {node["id"]: node["key"] for node in on_host.result["nodes"]}
    assert keys["train"] != outside["train"]
    assert (keys["load"] == outside["load"]) == ("train]" in table)
    assert workspace.leftovers() == []
    again = workspace.run()
    assert {node["status"] for node in again.result["nodes"] if node["artifact"]} == {"cached"}


def test_what_a_stage_sees(boxed: Workspace) -> None:
    probe(boxed, "surroundings").edit("[container]", '[container]\nmemory = "3GiB"')
    boxed.variables["HF_TOKEN"] = "hf_secretprobe"
    boxed.run()
    seen = facts_of(boxed, "evaluate.surroundings@base")
    assert seen["capabilities"] == ["0000000000000000"] * 5
    assert seen["no_new_privileges"] == "1"
    assert 0 not in (seen["uid"], seen["gid"])
    assert seen["interfaces"] == ["lo"]
    assert seen["writable"] == ["/dev/shm", "/tmp"]
    assert seen["processes"] == "1024"
    assert seen["memory"] == str(3 << 30)
    assert seen["secrets"] == []
    assert seen["engine"] is False
    assert seen["network"] == "Network is unreachable"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("writer", "Read-only file system"),
        ("caller", "Network is unreachable"),
        ("bomb", "Resource temporarily unavailable"),
    ],
)
def test_a_stage_that_goes_too_far(boxed: Workspace, name: str, told: str) -> None:
    errors = probe(boxed, name).recipe("run", "tiny.toml")
    assert errors.code in (4, 5), errors.err
    assert told.lower() in errors.err.lower()
    assert boxed.last_record()["error"]["node"] == f"evaluate.{name}@base"


def test_memory_that_is_used_up(boxed: Workspace) -> None:
    probe(boxed, "glutton").edit("[container]", '[container]\nmemory = "1GiB"')
    errors = boxed.recipe("run", "tiny.toml").said(5)
    assert "The container used up its memory: container.memory is 1GiB, and the estimate was 0." in errors


def test_a_container_that_somebody_removes(boxed: Workspace, engine: Any, long_on_host: Finished) -> None:
    boxed.edit(*LONG)
    running = boxed.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 7)
    ours = {"label": f"{HOME_LABEL}={boxed.home}"}
    (container,) = engine.containers.list(filters=ours)
    container.remove(force=True)
    assert "The container is gone" in running.finish().said(5)
    goes_on(boxed, long_on_host)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_is_stopped_goes_on(boxed: Workspace, long_on_host: Finished, number: signal.Signals) -> None:
    boxed.edit(*LONG)
    running = boxed.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 7)
    running.signal(number)
    assert running.finish().code == (130 if number == signal.SIGINT else -number)
    goes_on(boxed, long_on_host)


def test_names_that_a_shell_would_read(tmp_path: Path, model: Path, image: str, engine: Any) -> None:
    del engine
    folder = tmp_path / "a:b $(touch pwned) \"q\" 'r' \\ \n;é"
    space = write_workspace(folder, model)
    space.append(f'[container]\nimage = "{image}"\n')
    space.edit('[data.eval]\nsource = "file:rows.jsonl"', "[data.eval]\nsource = 'file:$(touch pwned):ro.jsonl'")
    tiny.write_jsonl(space.folder / "$(touch pwned):ro.jsonl", tiny.instruction_rows(32))
    space.run()
    assert list(tmp_path.rglob("pwned")) == []


def test_a_plan_needs_no_engine(boxed: Workspace) -> None:
    boxed.recipe("lock", "tiny.toml").said(0)
    boxed.variables["DOCKER_HOST"] = "unix:///nowhere"
    done = boxed.recipe("plan", "tiny.toml", "--json")
    nodes = {node["id"]: node for node in json.loads(done.out)["nodes"]}
    assert nodes["load"]["state"] == "will run"
    assert nodes["load"]["container"]["HostConfig"]["ReadonlyRootfs"] is True
    errors = boxed.recipe("run", "tiny.toml").said(4)
    assert "The container engine's socket /nowhere is not there. Install Docker" in errors.replace("\n       ", " ")
