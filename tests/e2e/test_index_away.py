"""A run goes on while the database of its index is away, and is recorded once it is back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.engine import write_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["resolve", "train"])
def test_a_run_goes_on_without_the_database(
    tmp_path: Path, postgres: PostgresServer, database_url: str, lost: str
) -> None:
    """It is away from the beginning, or from the middle of the run on."""
    workspace = write_workspace(tmp_path / "work")
    workspace.variables["RECIPE_INDEX"] = database_url
    if lost == "resolve":
        postgres.stop()
    try:
        running = workspace.start()
        if lost != "resolve":
            running.until_started(lost)
            postgres.stop()
        done = running.finish()
    finally:
        postgres.start()
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "index" in line]
    assert line.startswith(f"warning: The run index at 127.0.0.1:{postgres.port}/")
    assert done.result["status"] == "succeeded"
    assert list((workspace.home / "runs" / ".dirty").iterdir())
    listed = json.loads(workspace.recipe("runs", "--json").out)["runs"]
    assert [(row["run"], row["status"]) for row in listed] == [(done.result["run"], "succeeded")]
    assert listed[0]["metrics"] == done.result["metrics"]
    assert list((workspace.home / "runs" / ".dirty").iterdir()) == []
