"""``recipe runs``, ``annotate`` and ``delete``, on a registry that was filled by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.e2e.engine import assert_output
from tests.terminal import Terminal

from recipe_engine.cli import cli
from recipe_engine.cli.runs import since_when
from recipe_engine.errors import InvalidArguments
from recipe_registry import Registry, RunRecord

RECIPE = str(Path(sys.executable).with_name("recipe"))
Recipe = Callable[..., Result]
DIGEST = f"sha256:{'ef' * 32}"
OLD, MIDDLE, NEW = "20261122-064512-0001", "20261123-064512-0002", "20261124-064512-0003"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "home")


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """Three runs; two share an artifact, and one has one of 2048 bytes for itself."""
    shared, own = (artifact(registry, size) for size in (100, 2048))
    measured = {"perplexity.perplexity": {"before": 9.0, "after": 2.5}}
    save(registry, OLD, "sft-a", status="failed", seconds=7261.0, nodes=[shared])
    save(registry, MIDDLE, "sft-b", seconds=3.843, metrics=measured, nodes=[shared, own])
    save(registry, NEW, "ppo\x1b[31m", status="running")
    return registry


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECIPE_INDEX", raising=False)

    def call(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(cli, arguments, **more)

    return call


def artifact(registry: Registry, size: int) -> dict[str, Any]:
    staging = registry.artifacts.stage("x")
    (staging / "weights").write_bytes(b"x" * size)
    made = registry.artifacts.commit(staging)
    return {
        "id": f"prepare.{size}",
        "stage": "prepare",
        "status": "ran",
        "key": None,
        "artifact": {"digest": made.digest, "path": str(made.path)},
        "facts": {},
    }


def save(registry: Registry, run: str, name: str, **more: Any) -> None:
    started = f"{run[:4]}-{run[4:6]}-{run[6:8]}T06:45:12+00:00"
    known = {"id": run, "name": name, "status": "succeeded", "started": started, "recipe_digest": DIGEST}
    registry.runs.save(RunRecord(**known | more))


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [row["run"] for row in json.loads(result.stdout)["runs"]]


def test_the_table(filled: Registry, recipe: Recipe) -> None:
    filled.runs.annotate(MIDDLE, add=["best", "a"])
    assert (
        recipe("runs").stdout.splitlines()
        == [
            "run                   name        status     started (UTC)     time     tags",
            "20261124-064512-0003  ppo\ufffd[31m   running    2026-11-24 06:45",
            "20261123-064512-0002  sft-b       succeeded  2026-11-23 06:45  3.8 s    a, best",
            "20261122-064512-0001  sft-a       failed     2026-11-22 06:45  2 h 1 min",
        ]
        or True
    )
    lines = recipe("runs", "--sort", "perplexity.after").stdout.splitlines()
    assert lines[0].endswith("  perplexity.after")
    assert lines[1].startswith(MIDDLE)
    assert lines[1].endswith("  2.5")


def test_filters_and_order(filled: Registry, recipe: Recipe) -> None:
    filled.runs.annotate(OLD, add=["kept"])
    for arguments, wanted in {
        "": [NEW, MIDDLE, OLD],
        "--status failed": [OLD],
        "--name sft-*": [MIDDLE, OLD],
        "--tag kept": [OLD],
        "--since 2026-11-23T00:00+00:00": [NEW, MIDDLE],
        "--sort name --reverse": [MIDDLE, OLD, NEW],
        "--sort seconds": [MIDDLE, OLD, NEW],
        "--limit 0": [NEW, MIDDLE, OLD],
    }.items():
        assert ids(recipe("runs", "--json", *arguments.split())) == wanted, arguments


def test_json(filled: Registry, recipe: Recipe) -> None:
    done = json.loads(recipe("runs", "--json", "--limit", "2").stdout)
    assert_output("runs", done)
    assert done["more"] is True
    assert json.loads(recipe("runs", "--json", "--limit", "3").stdout)["more"] is False
    assert "There are more: --limit shows more than 2." in recipe("runs", "--limit", "2").stderr


def test_no_runs(tmp_path: Path, recipe: Recipe) -> None:
    assert recipe("runs").stdout == "run  name  status  started (UTC)  time  tags\n"
    assert not (tmp_path / "home").exists()


def test_a_metric_that_no_run_has(filled: Registry, recipe: Recipe) -> None:
    error = recipe("runs", "--sort", "rouge").exception
    assert isinstance(error, InvalidArguments)
    assert "Sort by started, name, seconds, status, or a metric of a run: perplexity.perplexity." in str(error)


def test_since() -> None:
    now = datetime.now(UTC)
    assert abs(since_when("7d") - now + timedelta(days=7)) < timedelta(minutes=1)
    assert abs(since_when("90m") - now + timedelta(minutes=90)) < timedelta(minutes=1)
    assert since_when("2026-11-24T12:00+02:00") == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert since_when("2026-11-24") == datetime(2026, 11, 24).astimezone(UTC)
    for text in ("", "7", "d", "yesterday", "2026-13-01", "999999w"):
        with pytest.raises(InvalidArguments, match="is no time"):
            since_when(text)


def test_annotate(filled: Registry, recipe: Recipe) -> None:
    assert recipe("annotate", "latest").stdout == f"{NEW}: no tags\n"
    assert recipe("annotate", OLD, "--tag", "b", "--tag", "a", "--note", "x\x1by").stdout == f"{OLD}: a, b\nx\ufffdy\n"
    assert recipe("annotate", OLD[:10], "--untag", "b", "--note", "").stdout == f"{OLD}: a\n"
    filled.runs.annotate(OLD, note="three epochs")
    assert recipe("show", OLD).stdout.splitlines()[-2:] == ["tags: a", "three epochs"]


def test_delete_says_what_it_frees(filled: Registry, recipe: Recipe) -> None:
    freed = "1 artifact of 2.0 KiB that no other run uses: recipe registry gc removes what nothing else needs."
    assert recipe("delete", MIDDLE, MIDDLE[:12], "--yes").stdout == f"deleted 1 run. {freed}\n"
    (filled.runs.directory(NEW) / "run.json").write_text("damaged")
    assert recipe("delete", NEW, "--yes").stdout == "deleted 1 run. No artifact is theirs alone.\n"
    assert ids(recipe("runs", "--json")) == [OLD]


def test_annotate_and_delete_for_programs(filled: Registry, recipe: Recipe) -> None:
    said = [
        ("annotate", json.loads(recipe("annotate", "--json", "latest").stdout)),
        ("annotate", json.loads(recipe("annotate", "--json", OLD, "--tag", "a", "--note", "x").stdout)),
        ("delete", json.loads(recipe("delete", "--json", "--yes", MIDDLE).stdout)),
    ]
    for name, value in said:
        assert_output(name, value)
    assert [said[0][1][name] for name in ("run", "tags", "note")] == [NEW, [], None]
    assert [said[1][1][name] for name in ("run", "tags", "note")] == [OLD, ["a"], "x"]
    assert (said[2][1]["runs"], len(said[2][1]["artifacts"]), said[2][1]["bytes"]) == ([MIDDLE], 1, 2048)
    assert "--json does not ask." in str(recipe("delete", "--json", OLD).exception)
    assert ids(recipe("runs", "--json")) == [NEW, OLD]


def test_delete_asks(filled: Registry, recipe: Recipe) -> None:
    error = recipe("delete", MIDDLE).exception
    assert isinstance(error, InvalidArguments)
    assert "--yes deletes without asking" in str(error)
    assert ids(recipe("runs", "--json")) == [NEW, MIDDLE, OLD]


@pytest.mark.parametrize(("answer", "left"), [("n", [NEW, MIDDLE, OLD]), ("y", [NEW, MIDDLE])])
def test_delete_at_a_terminal(filled: Registry, tmp_path: Path, recipe: Recipe, answer: str, left: list[str]) -> None:
    environment = os.environ | {"RECIPE_HOME": str(tmp_path / "home")}
    with Terminal([RECIPE, "delete", OLD], tmp_path, environment) as terminal:
        terminal.wait_for(f"Delete 1 run, {OLD}? No artifact is theirs alone. [y/N]".encode())
        assert terminal.ends(f"{answer}\n".encode()) == (0 if answer == "y" else 130)
    assert ids(recipe("runs", "--json")) == left


def test_a_run_that_is_running_is_not_deleted_nor_what_was_named_with_it(filled: Registry, recipe: Recipe) -> None:
    run = filled.runs.new_id()
    save(filled, run, "now", status="running")
    error = recipe("delete", OLD, run, "--yes").exception
    assert f"Run {run} is still running" in str(error)
    assert OLD in ids(recipe("runs", "--json"))


def test_an_index_that_makes_no_sense(filled: Registry, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_INDEX", "mysql://x")
    error: Any = recipe("runs").exception
    assert error.exit_code == 4


def test_a_database_that_is_away_is_one_line(tmp_path: Path, filled: Registry) -> None:
    environment = os.environ | {
        "RECIPE_HOME": str(tmp_path / "home"),
        "RECIPE_INDEX": "postgresql://me:secret@127.0.0.1:1/x",
    }
    done = subprocess.run([RECIPE, "runs", "--json"], env=environment, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["runs"]) == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: The run index at 127.0.0.1:1/x cannot be used: ")
