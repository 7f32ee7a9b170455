"""A file of several gigabytes on its way to the Hub: it arrives whole, and is never in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.hub.contract import ContractHub
from tests.hub.driver import Driver
from tests.hub.http import Fault
from tests.hub.repositories import Account

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "hf_SecretOfThisTest0123456789abcdef"
SIZE = (5 << 30) + 12345
PART = 64 << 20
TAIL = b"the last bytes"
MOST_MEMORY = 192 << 20
# What a push does with a large file, but for reading it back: that would fill the disk.
SEND = """
import json, resource, sys
from pathlib import Path
from recipe_engine.methods.content import content_of
from recipe_engine.methods.hub_client import open_client
from recipe_engine.methods.hub_repository import HubRepository
from recipe_engine.methods.options import PushHub
file, token = sys.argv[1:]
client, told = open_client(token), []
repository = HubRepository(client, PushHub(repo="me/large"), Path(), told.append)
client.whoami()  # imports what sending needs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
content = content_of(Path(file))
payload = {"model.safetensors": content}
repository.prepare()
additions = repository.upload(payload, lambda done, total: told.append((done, total)))
commit, _ = repository.commit(payload, additions, "large")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"commit": commit, "sha256": content.sha256, "told": told, "grown_bytes": grown << 10}))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five gigabytes, almost all of which is a hole."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    with path.open("wb") as opened:
        opened.truncate(SIZE - len(TAIL))
        opened.seek(0, 2)
        opened.write(TAIL)
    return path


@pytest.mark.slow
def test_a_file_of_five_gigabytes(file: Path, tmp_path: Path) -> None:
    """One of its parts is cut on the way, and sent again alone."""
    with ContractHub(part_bytes=PART, forgetful=True) as hub:
        hub.accounts[TOKEN] = Account("me")
        hub.faults.append(Fault("PUT", r"/lfs/\w+/40$", cut=1 << 20))
        done = subprocess.run(
            [sys.executable, "-c", SEND, str(file), TOKEN],
            cwd=tmp_path,
            env=Driver(hub.variables(str(tmp_path / "hf-home")), tmp_path).environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["grown_bytes"] < MOST_MEMORY
    assert found["sha256"] in hub.stored, "it is what the parts are together"
    assert hub.repositories["model", "me/large"].refs["main"] == found["commit"]
    assert hub.faults[0].times == 0
    sent, parts = hub.requests("PUT /lfs/"), -(-SIZE // PART)
    assert (len(sent), len(set(sent))) == (parts + 1, parts)
    counts = [entry[0] for entry in found["told"]]
    assert counts[-1] == SIZE
    assert len(counts) > 3
