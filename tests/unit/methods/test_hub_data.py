"""Data sets of the Hub through the real command and the real client, against a Hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, assert_output
from tests.hub.server import COMMIT, Hub
from tests.unit.training.test_reading import write_parquet

pytestmark = pytest.mark.slow

RECIPE = f"""\
version = 1
name = "rows-of-the-hub"
threads = 1
device = "cpu"
[model]
base = "file:model"
[data.eval]
source = "hub:me/rows"
revision = "{COMMIT}"
split = "test[:50%]"
format = "instruction"
[load.full]
dtype = "float32"
[evaluate.perplexity]
"""
ROWS = tiny.instruction_rows(8)
FILES = {"README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A data set with large files and a small one, a script and a picture."""
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", ROWS)
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", ROWS)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Rows\n")
    (folder / "rows.py").write_text("raise SystemExit('run')\n")
    (folder / "picture.png").write_bytes(b"png")
    with Hub(folder, name="me/rows", kind="datasets") as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path, hub: Hub) -> Workspace:
    folder = tmp_path / "space"
    folder.mkdir()
    tiny.write_model(folder / "model")
    (folder / "tiny.toml").write_text(RECIPE)
    return Workspace(folder, hub.variables() | {"HOME": str(tmp_path / "home")})


def shown(workspace: Workspace) -> list[int]:
    """Numbers of the rows that ``data show`` shows."""
    done = workspace.recipe("data", "show", "tiny.toml", "--rows", "9", "--json")
    assert done.said(0) == ""
    rows = [json.loads(line) for line in done.out.splitlines()]
    for row in rows:
        assert_output("data_row", row)
    return [row["row"] for row in rows]


def refusal(workspace: Workspace) -> str:
    return workspace.recipe("data", "show", "tiny.toml").said(3).splitlines()[0].removeprefix("error: ")


@pytest.mark.slow
def test_a_data_set_is_fetched_once_and_then_needs_no_network(hub: Hub, workspace: Workspace, tmp_path: Path) -> None:
    assert shown(workspace) == [1, 2, 3, 4]
    assert hub.fetched() == FILES
    record = workspace.last_record()["inputs"]["data.eval"]
    assert {file["path"]: file["sha256"] for file in record["files"]} == {
        name: digest for name, digest in tiny.folder_digests(hub.folder).items() if name in FILES
    }
    assert not (tmp_path / "home").exists(), "no library keeps a cache of its own"
    hub.stop()
    assert shown(workspace) == [1, 2, 3, 4]
    workspace.edit("test[:50%]", "train[6:]")
    assert shown(workspace) == [7, 8]


@pytest.mark.parametrize(("suffix", "name"), [(".parquet", "data/test-00000-of-00001.parquet"), (".md", "README.md")])
def test_a_file_that_is_not_what_the_hub_says_is_refused(
    suffix: str, name: str, hub: Hub, workspace: Workspace
) -> None:
    hub.damaged = (suffix,)
    assert refusal(workspace) == f"hub:me/rows: {name} was damaged on its way."


def test_a_missing_data_set(hub: Hub, workspace: Workspace) -> None:
    workspace.edit("hub:me/rows", "hub:me/other")
    assert refusal(workspace) == "the Hub has no data set me/other, or this account may not see it."


def test_a_data_set_without_rows(hub: Hub, workspace: Workspace) -> None:
    for path in (hub.folder / "data").iterdir():
        path.unlink()
    assert refusal(workspace) == "hub:me/rows holds no rows as *.jsonl, *.json, *.csv or *.parquet."


@pytest.mark.slow
def test_a_missing_split(hub: Hub, workspace: Workspace) -> None:
    workspace.edit("test[:50%]", "validation")
    message = workspace.recipe("data", "show", "tiny.toml").said(5).splitlines()
    assert message[0].endswith("hub:me/rows has no split validation.")
    assert message[1].strip() == "It has train, test."
