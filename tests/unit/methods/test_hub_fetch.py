"""``hub:`` through the real client, against a Hub on loopback that fails as the Hub and networks do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests import tiny
from tests.hub.contract import ContractHub
from tests.hub.driver import ROOT, Done, Driver
from tests.hub.http import Fault
from tests.hub.repositories import Account, Repository
from tests.leaks import files_with

TOKEN = "hf_SecretOfThisTest0123456789abcdef"
NAME = "them/tiny"
LARGE = "model.safetensors"
CUT = 11 << 20  # the client writes ten MiB at once


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ContractHub, Driver]]:
    folder = tmp_path_factory.mktemp("hub")
    with ContractHub() as hub, Driver(hub.variables(str(folder / "hf-home")), folder) as driver:
        yield hub, driver
    assert list(files_with(TOKEN.encode(), folder)) == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Of a model, whose weights take more than one write."""
    folder = tmp_path_factory.mktemp("model")
    save_file({"w": np.arange(3 << 20, dtype=np.float32)}, folder / LARGE)
    return {LARGE: (folder / LARGE).read_bytes(), "config.json": b"{}\n", "README.md": b"# tiny\n"}


@pytest.fixture
def hub(place: tuple[ContractHub, Driver]) -> ContractHub:
    """A Hub with one account and no repository."""
    place[0].reset()
    place[0].accounts[TOKEN] = Account("me")
    return place[0]


@pytest.fixture
def found(hub: ContractHub, files: dict[str, bytes]) -> Repository:
    """A model that somebody else published."""
    repository = hub.add(NAME)
    repository.commit(files, "main")
    return repository


class Fetch:
    """Calls ``hub:`` and looks after the token.

    Args:
        driver: the process.
        cache: where files are kept.
        wanted: sha256 of the files that are to come.
    """

    def __init__(self, driver: Driver, cache: Path, wanted: dict[str, str]) -> None:
        self._driver = driver
        self.cache = cache
        self.wanted = wanted

    def __call__(self, *, token: str = TOKEN, **request: Any) -> Done:
        """Fetch; the token is in nothing that comes back or is kept."""
        request = {"reference": f"hub:{NAME}", "kind": "model", "revision": "main", **request}
        done = self._driver("fetch", self.cache, token, **request)
        assert TOKEN not in json.dumps(vars(done))
        assert list(files_with(TOKEN.encode(), self.cache)) == []
        return done

    def whole(self, **request: Any) -> Done:
        """A fetch that succeeds, and leaves no part of a file."""
        done = self(**request)
        assert (done.error, done.value) == ({}, self.wanted)
        assert self.parts() == []
        return done

    def refused(self, **request: Any) -> tuple[str, str]:
        """Message and hint of the error."""
        error = self(**request).error
        assert error["type"] == "UnresolvedInput"
        return error["message"], error["hint"]

    def parts(self) -> list[Path]:
        """Parts of files that wait."""
        return list(self.cache.rglob("*.incomplete"))


@pytest.fixture
def fetch(place: tuple[ContractHub, Driver], found: Repository, files: dict[str, bytes], tmp_path: Path) -> Fetch:
    del found
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    digests = tiny.folder_digests(tmp_path)
    return Fetch(place[1], tmp_path / "sources", {name: digests[name] for name in (LARGE, "config.json")})


def ranges(hub: ContractHub) -> list[str]:
    """What was asked for of the weights, one entry a request; empty: all."""
    return [asked.headers.get("Range", "") for asked in hub.asked if asked.path.startswith("/lfs/")]


QUESTIONS = [
    ("GET", r"/api/models/them/tiny/revision"),
    ("GET", "/tree/"),
    ("HEAD", "/resolve/.*safetensors"),
    ("GET", "/resolve/.*config"),
    ("GET", "/lfs/"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), QUESTIONS)
@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"cut": 0}, {"lost": True}],
    ids=["500", "429", "cut", "lost"],
)
def test_a_busy_hub_and_a_lost_connection_are_waited_for(
    hub: ContractHub, fetch: Fetch, method: str, path: str, fault: dict[str, Any]
) -> None:
    hub.faults.append(Fault(method, path, **fault))
    fetch.whole()
    assert hub.faults[0].times == 0, "it did not happen"


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_stays_busy(hub: ContractHub, fetch: Fetch, status: int) -> None:
    hub.faults.append(Fault("GET", "/revision/", status, times=99))
    message, _ = fetch.refused()
    assert message == f"hub:{NAME}: the Hub answered with status {status}."
    assert len(hub.requests("/revision/")) == 5


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_download_that_is_cut_goes_on_where_it_was(
    hub: ContractHub, fetch: Fetch, files: dict[str, bytes], reset: bool
) -> None:
    hub.faults.append(Fault("GET", "/lfs/", cut=CUT, reset=reset))
    done = fetch.whole()
    first, second = ranges(hub)
    assert (first, second) == ("", f"bytes={10 << 20}-")
    size = len(files[LARGE])
    assert size <= max(count for count, _, unit in done.progress if unit == "bytes") <= size + len(files["config.json"])


@pytest.mark.slow
def test_a_store_that_knows_no_ranges_sends_all_again(hub: ContractHub, fetch: Fetch) -> None:
    hub.faults += [Fault("GET", "/lfs/", cut=CUT, reset=True), Fault("GET", "/lfs/", whole=True)]
    fetch.whole()
    assert [fault.times for fault in hub.faults] == [0, 0]


KILLED = """
import json, sys
from tests.hub.driver import _answer
_answer(json.loads(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "pause"), [(signal.SIGKILL, 30), (signal.SIGINT, 1)])
def test_a_download_that_is_stopped_goes_on_in_the_next_process(
    place: tuple[ContractHub, Driver], hub: ContractHub, fetch: Fetch, number: int, pause: int
) -> None:
    hub.faults.append(Fault("GET", "/lfs/", cut=CUT, pause=pause))
    asked = {
        "action": "fetch",
        "files": str(fetch.cache),
        "token": TOKEN,
        "options": {"reference": f"hub:{NAME}", "kind": "model", "revision": "main"},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(asked)],
        cwd=ROOT,
        env=place[1].environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size == 10 << 20 for part in fetch.parts()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(20)
    hub.asked.clear()
    fetch.whole()
    assert ranges(hub) == [f"bytes={10 << 20}-"]


@pytest.mark.slow
def test_a_part_of_something_else_is_found_out_and_then_fetched_anew(hub: ContractHub, fetch: Fetch) -> None:
    fetch.whole()
    (blob,) = (path.resolve() for path in fetch.cache.rglob(f"snapshots/*/{LARGE}"))
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    with blob.with_name(f"{blob.name}.incomplete").open("r+b") as file:
        file.truncate(CUT)
        file.write(b"other")
    for note in fetch.cache.rglob("*.json"):
        note.unlink()
    assert fetch.refused()[0] == f"hub:{NAME}: {LARGE} was damaged on its way."
    assert fetch.parts() == []
    hub.asked.clear()
    fetch.whole()
    assert ranges(hub) == [""]


@pytest.mark.parametrize(("path", "name"), [("/lfs/", LARGE), ("/resolve/.*config", "config.json")])
def test_wrong_bytes_are_refused_and_fetched_again(hub: ContractHub, fetch: Fetch, path: str, name: str) -> None:
    hub.faults.append(Fault("GET", path, damage=True))
    assert fetch.refused()[0] == f"hub:{NAME}: {name} was damaged on its way."
    fetch.whole()


EXPIRED = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, EXPIRED, "hub:{}: the Hub answered with status 401."),
        (403, {}, "hub:{}: the Hub answered with status 403."),
        (404, {"X-Error-Code": "RepoNotFound"}, "the Hub has no model {}, or this account may not see it."),
        (404, {"X-Error-Code": "RevisionNotFound"}, "hub:{} has no revision main."),
        (404, {"X-Error-Code": "EntryNotFound"}, "hub:{}: the Hub answered with status 404."),
        (409, {}, "hub:{}: the Hub answered with status 409."),
        (412, {}, "hub:{}: the Hub answered with status 412."),
    ],
    ids=str,
)
def test_a_refusal_at_any_time(
    hub: ContractHub, fetch: Fetch, status: int, headers: dict[str, str], message: str
) -> None:
    for method, path in (QUESTIONS[0], QUESTIONS[2]):
        hub.faults.append(Fault(method, path, status, headers))
        told, hint = fetch.refused()
        assert told == message.format(NAME)
        assert "hf auth login" in hint or status > 403
    fetch.whole()


def test_a_token_that_has_expired(hub: ContractHub, fetch: Fetch) -> None:
    hub.accounts.clear()
    message, hint = fetch.refused()
    assert message == f"hub:{NAME}: the Hub answered with status 401."
    assert hint == "The account or its token is refused. Log in with: hf auth login"
    fetch.whole(token="")


def test_a_private_repository(hub: ContractHub, found: Repository, fetch: Fetch) -> None:
    found.private = True
    for token in (TOKEN, ""):
        message, hint = fetch.refused(token=token)
        assert message == f"the Hub has no model {NAME}, or this account may not see it."
        assert "hf auth login" in hint
    hub.accounts[TOKEN] = Account("them")
    fetch.whole()


@pytest.mark.parametrize(("kind", "page"), [("model", NAME), ("data", f"datasets/{NAME}")])
def test_a_gated_repository_names_the_page_of_its_licence(
    hub: ContractHub, found: Repository, fetch: Fetch, kind: str, page: str
) -> None:
    gated = found if kind == "model" else hub.add(NAME, "dataset")
    if kind == "data":
        gated.commit({"rows.jsonl": b"{}\n"}, "main")
    gated.gated = "auto"
    for token in (TOKEN, ""):
        message, hint = fetch.refused(kind=kind, token=token)
        assert message == f"hub:{NAME} is gated, and this account has no access."
        assert hint == f"Accept its licence at {hub.url}/{page} and log in with: hf auth login"
    gated.readers = ("me",)
    assert fetch(kind=kind).error == {}
