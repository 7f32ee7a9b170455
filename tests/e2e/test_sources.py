"""The source ``wheel:``, fetched by the real pip: from a folder that the test fills, or from nowhere."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests import tiny
from tests.e2e.engine import wait_until_gone

if TYPE_CHECKING:
    from tests.e2e.engine import Workspace

MEMBER = "tiny_rows/rows.jsonl"
ROWS = "".join(json.dumps(row) + "\n" for row in tiny.instruction_rows(32)).encode()
SHA256 = hashlib.sha256(ROWS).hexdigest()


def write_wheel(folder: Path) -> Path:
    """A wheel with data in it, by hand."""
    folder.mkdir()
    files = {
        MEMBER: ROWS,
        "tiny_rows-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-rows\nVersion: 1.0\n",
        "tiny_rows-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files["tiny_rows-1.0.dist-info/RECORD"] = f"{record}tiny_rows-1.0.dist-info/RECORD,,\n".encode()
    path = folder / "tiny_rows-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def cached_files(workspace: Workspace) -> list[str]:
    folder = workspace.home / "sources"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def wheels(workspace: Workspace) -> Workspace:
    """A recipe whose data is in a wheel, and pip confined to a folder that holds it."""
    write_wheel(workspace.folder / "wheels")
    workspace.edit("file:rows.jsonl", f"wheel:tiny-rows==1.0/{MEMBER}#sha256={SHA256}")
    workspace.variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(workspace.folder / "wheels")}
    return workspace


@pytest.mark.slow
def test_a_file_of_a_wheel(wheels: Workspace) -> None:
    unknown = json.loads(wheels.recipe("plan", "--json", "tiny.toml").out)
    assert unknown["nodes"][0]["state"] == "will run"
    rows = wheels.recipe("data", "show", "tiny.toml", "--rows", "1")
    assert rows.code == 0, rows.err
    assert "What comes after 0?" in rows.out
    assert cached_files(wheels) == [f"{SHA256}/rows.jsonl"]
    # From here on nobody needs an index.
    del wheels.variables["PIP_FIND_LINKS"]
    assert wheels.recipe("data", "show", "tiny.toml").code == 0
    known = json.loads(wheels.recipe("plan", "--json", "tiny.toml").out)
    assert [node["state"] for node in known["nodes"][:3]] == ["cached"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SHA256, "0" * 64, f"the file's sha256 is {SHA256}, not the pinned one."),
        ("rows.jsonl#", "nothing.jsonl#", "the wheel holds no tiny_rows/nothing.jsonl."),
        ("==1.0", "==2.0", "pip could not fetch it: No matching distribution found for tiny-rows==2.0."),
    ],
)
def test_what_a_wheel_does_not_hold(wheels: Workspace, old: str, new: str, message: str) -> None:
    wheels.edit(old, new)
    errors = wheels.recipe("run", "tiny.toml").said(3)
    assert errors.startswith("error: wheel:tiny-rows==")
    assert message in errors
    assert len(errors.splitlines()) <= 2
    assert cached_files(wheels) == []


@pytest.mark.slow
def test_a_damaged_wheel(wheels: Workspace) -> None:
    (wheels.folder / "wheels" / "tiny_rows-1.0-py3-none-any.whl").write_bytes(b"no zip")
    errors = wheels.recipe("run", "tiny.toml").said(3)
    assert errors.startswith("error: wheel:tiny-rows==1.0/")
    assert cached_files(wheels) == []


def test_without_a_network(wheels: Workspace) -> None:
    wheels.variables = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/",  # nobody listens there
        "PIP_RETRIES": "0",
        "PIP_TIMEOUT": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    errors = wheels.recipe("run", "tiny.toml").said(3)
    lines = errors.splitlines()
    assert lines[0].startswith("error: wheel:tiny-rows==1.0/tiny_rows/rows.jsonl#sha256=")
    assert "pip could not fetch it: No matching distribution found for tiny-rows==1.0." in lines[0]
    assert lines[1].strip() == "Check the name and version, and that this machine reaches its package index."
    assert len(lines) == 2
    assert cached_files(wheels) == []


def test_ctrl_c_while_something_is_fetched(wheels: Workspace) -> None:
    """The index takes the call and never answers; pip is ended too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        wheels.variables = {"PIP_INDEX_URL": address, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
        running = wheels.start()
        running.until_started("resolve")
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            helpers = running.children()
            assert helpers
            running.signal(signal.SIGINT)
            done = running.finish()
    assert done.said(130).startswith("error: stopped.\n")
    assert done.result["status"] == "interrupted"
    assert wait_until_gone(helpers) == []
    assert list((wheels.home / "sources").iterdir()) == []
