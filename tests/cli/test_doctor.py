"""``recipe doctor`` on this machine, with sockets and a Hub of the test."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.engine import SECRET, Workspace, assert_output
from tests.hub.server import Hub

from recipe_engine.doctor.machine import look_at_disk
from recipe_engine.doctor.services import look_at_containers

RECIPE = """\
version = 1
name = "looked-at"
device = "cpu"
[model]
base = "hub:me/tiny"
[load.full]
"""
NAMES = ["python", "extras", "torch", "cpu", "memory", "disk", "gpu"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "repository").mkdir()
    account = {"name": "me", "auth": {"accessToken": {"role": "write"}}}
    with Hub(tmp_path / "repository", token=SECRET, account=account) as server:
        yield server


@pytest.fixture
def space(tmp_path: Path, hub: Hub) -> Workspace:
    """A machine without an engine, with a Hub and without a token."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return Workspace(tmp_path, hub.variables() | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})


def looked(space: Workspace, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """The findings by name."""
    done = space.recipe("doctor", "--json", *arguments)
    assert done.said(code) == ""
    told = json.loads(done.out)
    assert_output("doctor", told)
    assert told["fit"] is (code == 0)
    return {finding["name"]: finding for finding in told["findings"]}


def test_without_a_recipe(space: Workspace) -> None:
    found = looked(space)
    assert list(found) == [*NAMES, "containers", "hub", "token"]
    assert found["containers"]["state"] == "warning"
    assert found["containers"]["text"].endswith("none.sock is not there.")
    assert found["containers"]["mend"].startswith("Install Docker")
    assert (found["hub"]["state"], found["token"]["state"]) == ("ok", "warning")
    assert found["token"]["mend"] == "Log in with: hf auth login"
    assert not space.home.exists()


def test_as_people_read_it(space: Workspace) -> None:
    space.variables["HF_TOKEN"] = SECRET
    done = space.recipe("doctor", "tiny.toml")
    assert done.said(0) == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("python      ok       3.")
    assert "token       ok       of me, it may write" in lines
    assert "inputs      ok       to be fetched when it runs: model" in lines
    assert any(line.startswith("recipe      ok       looked-at runs on cpu with ") for line in lines)
    assert len(lines) < 24
    assert SECRET not in done.out
    assert "\x1b" not in done.out


def test_a_token_that_is_refused(space: Workspace) -> None:
    space.variables["HF_TOKEN"] = f"{SECRET}-of-yesterday"
    done = space.recipe("doctor", "tiny.toml", "--json")
    assert '"the Hub refuses it: it has expired or was revoked"' in done.out
    assert SECRET not in done.out


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_is_needed_and_away(space: Workspace, hub: Hub, offline: bool) -> None:
    if offline:
        space.variables["HF_HUB_OFFLINE"] = "1"
    else:
        hub.stop()
    space.variables["HF_TOKEN"] = SECRET
    found = looked(space, "tiny.toml", code=4)
    assert found["hub"]["state"] == "problem"
    assert ("HF_HUB_OFFLINE" if offline else "does not answer") in found["hub"]["text"]
    assert found["token"]["state"] == "unknown"
    assert hub.asked == []


def test_a_hub_that_is_broken_and_not_needed(space: Workspace, hub: Hub) -> None:
    hub.broken = 503
    space.edit("hub:me/tiny", "file:model")
    found = looked(space, "tiny.toml", code=4)
    assert (found["hub"]["state"], found["hub"]["text"]) == ("warning", f"{hub.url} answers with status 503")
    assert found["inputs"]["state"] == "problem"
    assert "there is no" in found["inputs"]["text"]


def test_a_recipe_that_needs_what_is_not_here(space: Workspace) -> None:
    space.edit('"cpu"', '"cuda"')
    space.edit("[load.full]\n", f'[load.full]\n[container]\nimage = "cuda@sha256:{"0" * 64}"\n')
    found = looked(space, "tiny.toml", code=4)
    assert found["containers"]["state"] == "problem"
    if not Path("/proc/driver/nvidia/version").exists():
        assert found["recipe"]["state"] == "problem"
        assert "asks for a GPU" in found["recipe"]["text"]


def test_what_cannot_be_looked_at(space: Workspace) -> None:
    assert space.recipe("doctor", "none.toml").said(3)
    assert "There is no recipe to override" in space.recipe("doctor", "--set", "seed=1").said(2)
    space.edit("version = 1", "version = 2")
    assert "tiny.toml:1:11" in space.recipe("doctor", "tiny.toml").said(2)


@contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """Root may do everything, so a user without rights does it; the folder can be reached."""
    for part in (folder, *list(folder.parents)[:3]):
        part.chmod(part.stat().st_mode | 0o111)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


def test_a_socket_that_this_user_may_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        path.chmod(0)
        with somebody_else(tmp_path):
            (found,) = look_at_containers()
    assert found.state == "warning"
    assert found.text.endswith("closed.sock may not be used by this user.")
    assert found.mend.startswith("Join its group")


def test_a_folder_that_this_user_may_not_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with somebody_else(tmp_path):
        (found,) = look_at_disk(tmp_path / "home")
    tmp_path.chmod(0o755)
    assert (found.state, found.text) == ("problem", f"{tmp_path} may not be written")
    assert found.mend == "Name a folder of yours in RECIPE_HOME."
