"""Publish a folder while a Hub on loopback fails in each of its ways, at each request; see what is lost.

``python -m tests.bench.pushing FOLDER``, a folder that ``push.folder`` wrote. The real client pushes and reads back. A
push either ends with every file on the Hub, to the byte, or with an error: before the commit nothing is there, after it
all is. After an error the same push, undisturbed, succeeds.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.contract import ContractHub
from tests.hub.driver import Done, Driver
from tests.hub.http import Fault
from tests.hub.repositories import Account, Tree

REPO, TOKEN = "me/published", "hf_TokenOfThisBenchmark0123456789"
WRITING = {
    "create": ("POST", "/api/repos/create"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"),
    "upload": ("PUT", "/lfs/"),
    "commit": ("POST", "/commit/"),
}
READING = {
    "repository": ("GET", f"/api/models/{REPO}"),
    "small file": ("GET", "/resolve/"),
    "large file": ("GET", "/lfs/"),
}
CODES = ("RepoNotFound", "RevisionNotFound", "EntryNotFound")
Failures = dict[str, dict[str, Any]]
"""What is told -> attributes of the fault."""
PASSING: Failures = {
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "500": {"status": 500},
    "503": {"status": 503},
    "answer lost": {"lost": True},
    "cut": {"cut": 0},
}
"""What goes wrong once."""
LASTING: Failures = {
    **{str(status): {"status": status, "times": 99} for status in (401, 403)},
    **{f"404 {code}": {"status": 404, "headers": {"X-Error-Code": code}, "times": 99} for code in CODES},
}
"""What stays wrong."""
PARTLY: Failures = {"cut after 1,000 bytes": {"cut": 1000}}
OVERTAKEN: Failures = {str(status): {"status": status, "times": 99} for status in (409, 412)}
FETCHED: Failures = {"cut, then reset": {"cut": 1000, "reset": True}, "wrong bytes": {"damage": True}}
EXTRA = {
    "upload": PARTLY,
    "commit": PARTLY | OVERTAKEN,
    "small file": PARTLY | FETCHED,
    "large file": PARTLY | FETCHED,
}
"""Request -> what can go wrong with no other."""


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        request: of :data:`WRITING` or :data:`READING`.
        what: goes wrong with it.
        fault: the same, for the Hub.
    """

    request: str
    what: str
    fault: Fault


def cases() -> Iterator[Case]:
    """Each failure at each request."""
    for request, (method, path) in (WRITING | READING).items():
        for what, options in (PASSING | LASTING | EXTRA.get(request, {})).items():
            yield Case(request, what, Fault(method, path, **options))


def outcome(hub: ContractHub, driver: Driver, folder: Path, case: Case) -> str:
    """How a push ends; ``LOST: …`` where it breaks its word."""
    hub.reset()
    hub.accounts[TOKEN] = Account("me")
    hub.faults.append(case.fault)
    sent: Tree = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_of(folder)}
    times = case.fault.times
    done = _push(driver, folder)
    if case.fault.times == times:
        return "not asked for"
    there = _published(hub)
    told = done.error.get("type", "published")
    if there not in ({}, sent) or (not there and told in ("published", "PushUnverified")):
        return f"LOST: {told}, with {sorted(there)} on the Hub"
    if told == "StageFailed" and there:
        return "LOST: an error as if nothing had been published"
    hub.faults.clear()
    again = _push(driver, folder)
    if again.error or _published(hub) != sent:
        return f"LOST: the second try ended with {again.error}"
    return told


def files_of(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _push(driver: Driver, folder: Path) -> Done:
    done = driver("push", folder, TOKEN, repo=REPO)
    assert TOKEN not in str(done), "the token was told"
    return done


def _published(hub: ContractHub) -> Tree:
    """Files of the newest commit, without what the Hub itself puts into a new repository."""
    found = hub.repositories.get(("model", REPO))
    return {name: content for name, content in found.files("main").items() if name != ".gitattributes"} if found else {}


def main() -> int:
    """Print a line for each failure; the exit status is 1 where something was lost."""
    folder, ends = Path(sys.argv[1]).resolve(), Counter[str]()
    with (
        tempfile.TemporaryDirectory() as home,
        ContractHub() as hub,
        Driver(hub.variables(home), Path(home)) as driver,
    ):
        for case in cases():
            end = outcome(hub, driver, folder, case)
            ends[end] += 1
            print(f"{case.request:<12} {case.what:<24} {end}", flush=True)
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()))
    return any(end.startswith("LOST") for end in ends)


if __name__ == "__main__":
    sys.exit(main())
