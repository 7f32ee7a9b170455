"""``push.hub`` through the real client, against a Hub on loopback that fails as the Hub and networks do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests import tiny
from tests.e2e.engine import disk
from tests.hub.driver import Driver
from tests.hub.http import Fault
from tests.hub.pushing import CARD, LARGE, REPO, Hubward

if TYPE_CHECKING:
    from tests.hub.contract import ContractHub

REFUSED = "this account may not write into me/tiny."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "/objects/batch"),
        ("PUT", "/lfs/"),
        ("POST", "/commit/"),
        ("GET", "/api/models/me/tiny"),
    ],
)
@pytest.mark.parametrize(("status", "message"), [(403, REFUSED), (401, "the Hub refuses the token")])
def test_rights_that_are_lost_on_the_way(
    hub: ContractHub, call: Hubward, method: str, path: str, status: int, message: str
) -> None:
    if path != "/api/repos/create":
        hub.add(REPO)
    # Asking whether it is there is what the client does where it may not make it.
    hub.faults.append(Fault(method, path, status, times=9))
    kind, told = call.refused()
    assert kind == "StageFailed"
    assert told.startswith(message)
    assert all("README.md" not in files for found in hub.repositories.values() for files in found.commits.values())


@pytest.mark.slow
@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound"])
@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/commit/"])
def test_a_repository_or_a_branch_that_vanishes(hub: ContractHub, call: Hubward, path: str, code: str) -> None:
    hub.add(REPO)
    hub.faults.append(Fault("POST", path, 404, {"X-Error-Code": code}))
    kind, message = call.refused()
    assert len(hub.repositories["model", REPO].commits) == 1
    assert (kind, message) == (
        "StageFailed",
        "the Hub has no me/tiny with the branch main, or this account may not see it.",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/whoami-v2"),
        ("POST", "/api/validate-yaml"),
        ("GET", r"/api/models/me/tiny/revision"),
    ],
)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(hub: ContractHub, call: Hubward, method: str, path: str, status: int) -> None:
    hub.faults.append(Fault(method, path, status, {"Retry-After": "0"}))
    done = call("check")
    assert done.error == {}
    assert done.messages == [f"the Hub answered with status {status}; trying again in 0 s"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "/objects/batch"),
        ("PUT", "/lfs/"),
        ("POST", "/commit/"),
        ("GET", "/tree/"),
        ("GET", "/resolve/"),
        ("GET", "/lfs/"),
    ],
)
@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"cut": 0}, {"lost": True}],
    ids=["500", "429", "cut", "lost"],
)
def test_a_push_survives_a_busy_hub_and_a_lost_connection(
    hub: ContractHub, call: Hubward, method: str, path: str, fault: dict[str, Any]
) -> None:
    if path == "/tree/":
        hub.add(REPO)
    hub.faults.append(Fault(method, path, **fault))
    receipt = call.pushed()
    found = hub.repositories["model", REPO]
    assert hub.faults[0].times == 0, "it did not happen"
    assert found.files(receipt["commit"])["README.md"] == CARD.encode()
    assert len(found.commits) == 2


@pytest.mark.slow
def test_uploads_and_downloads_that_are_cut_in_the_middle(hub: ContractHub, large: Path, call: Hubward) -> None:
    hub.part_bytes = 5 << 20
    stored = f"/lfs/{tiny.folder_digests(large)[LARGE]}"
    hub.faults += [Fault("PUT", f"{stored}/2", cut=1 << 20), Fault("GET", stored, cut=11 << 20)]
    receipt = call.pushed()
    assert [fault.times for fault in hub.faults] == [0, 0]
    files = hub.repositories["model", REPO].files(receipt["commit"])
    assert files[LARGE] == (large / LARGE).read_bytes()
    ranges = [asked.headers.get("Range") for asked in hub.asked if (asked.method, asked.path) == ("GET", stored)]
    assert len(ranges) == 2
    assert str(ranges[1]).startswith("bytes=10"), "it goes on where it was cut"


def test_a_commit_whose_answer_is_lost_is_found_and_not_made_twice(hub: ContractHub, call: Hubward) -> None:
    hub.faults.append(Fault("POST", "/commit/", lost=True))
    receipt = call.pushed()
    found = hub.repositories["model", REPO]
    assert list(found.commits)[1:] == [receipt["commit"]]


@pytest.mark.slow
def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub: ContractHub, call: Hubward) -> None:
    hub.add("them/model")
    hub.faults.append(Fault("POST", "/commit/", lost=True))
    call.pushed(repo="them/model", pull_request=True)
    assert list(hub.repositories["model", "them/model"].refs) == ["main", "refs/pr/1"]


@pytest.mark.slow
def test_somebody_elses_commit_goes_below(hub: ContractHub, call: Hubward) -> None:
    found = hub.add(REPO)
    hub.faults.append(Fault("POST", "/commit/", before=lambda: found.commit({"theirs.txt": b"x"}, "main")))
    done = call()
    assert done.error == {}
    assert done.messages == ["somebody else committed meanwhile; trying again on top of it"]
    files = found.files("main")
    assert {"theirs.txt", "README.md", "adapter_model.safetensors"} <= files.keys()


def test_somebody_elses_change_of_the_same_file_is_never_overwritten(hub: ContractHub, call: Hubward) -> None:
    found = hub.add(REPO)
    hub.faults.append(Fault("POST", "/commit/", before=lambda: found.commit({"README.md": b"theirs"}, "main")))
    kind, message = call.refused()
    assert (kind, message) == ("StageFailed", "somebody else changed README.md of me/tiny meanwhile, and it is kept.")
    assert found.files("main")["README.md"] == b"theirs"


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 409])
def test_a_repository_that_somebody_else_makes_meanwhile(hub: ContractHub, call: Hubward, status: int) -> None:
    """The answer is 409, with or without the address of what is there."""
    hub.faults.append(Fault("POST", "/api/repos/create", status, before=lambda: hub.add(REPO)))
    receipt = call.pushed()
    assert list(hub.repositories["model", REPO].commits)[1:] == [receipt["commit"]]


@pytest.mark.slow
@pytest.mark.parametrize("status", [409, 412])
def test_others_who_are_always_first(hub: ContractHub, call: Hubward, status: int) -> None:
    found = hub.add(REPO)
    hub.faults.append(Fault("POST", "/commit/", status))
    assert call().messages == ["somebody else committed meanwhile; trying again on top of it"]
    (call.files / "recipe.toml").write_text("version = 1\nseed = 2\n")
    before = dict(found.refs)
    hub.faults.append(Fault("POST", "/commit/", status, times=99))
    message = "others keep committing to me/tiny, and each time theirs was there first."
    assert call.refused() == ("StageFailed", message)
    assert found.refs == before


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "waited"), [("1", 1), ("", 0), ("Sat, 28 Nov 2026 22:00:00 GMT", 0)])
def test_a_busy_hub_is_given_the_time_that_it_asks_for(
    hub: ContractHub, call: Hubward, asked: str, waited: int
) -> None:
    hub.faults.append(Fault("GET", "/api/whoami-v2", 429, {"Retry-After": asked} if asked else {}))
    began = time.monotonic()
    assert call("check").messages == [f"the Hub answered with status 429; trying again in {waited} s"]
    assert time.monotonic() - began >= waited


@pytest.mark.slow
def test_a_hub_that_stays_busy(hub: ContractHub, call: Hubward) -> None:
    hub.faults.append(Fault("GET", "/api/whoami-v2", 503, times=99))
    assert call.refused("check") == ("UnfitEnvironment", "me/tiny: the Hub answered with status 503.")


@pytest.mark.slow
def test_a_file_that_changes_between_its_digest_and_its_upload(hub: ContractHub, large: Path, call: Hubward) -> None:
    def change() -> None:
        save_file({"w": np.zeros(3 << 20, dtype=np.float32)}, large / LARGE)

    hub.faults.append(Fault("POST", "/objects/batch", before=change))
    kind, message = call.refused()
    assert kind == "StageFailed"
    assert message.endswith("model.safetensors changed while it was sent.")
    assert all("README.md" not in files for files in hub.repositories["model", REPO].commits.values())


@pytest.mark.slow
def test_a_small_file_that_changes_is_sent_as_it_was(hub: ContractHub, call: Hubward) -> None:
    file = call.files / "adapter_config.json"
    before = file.read_bytes()
    hub.faults.append(Fault("POST", "/preupload/", before=lambda: file.write_text("{}")))
    receipt = call.pushed()
    assert hub.repositories["model", REPO].files(receipt["commit"])[file.name] == before


@pytest.mark.slow
def test_the_disk_is_full_before_all_is_read_back(hub: ContractHub, large: Path, tmp_path: Path) -> None:
    """The disk is one that the process alone sees; with another the same push is found and read."""
    variables = hub.variables(str(tmp_path / "hf-home")) | {"TMPDIR": str(tmp_path / "small")}
    for size, error in (("4m", "PushUnverified"), ("64m", "")):
        before = disk(tmp_path / "small", f"-t tmpfs -o size={size} tmpfs")
        with Driver(variables, tmp_path, before) as driver:
            done = Hubward(driver, large)()
        assert done.error.get("type", "") == error
        commit = hub.repositories["model", REPO].refs["main"]
        if error:
            message = f"me/tiny at {commit} was published and cannot be read back: No space left on device."
            assert done.error["message"] == message
    assert len(hub.repositories["model", REPO].commits) == 2
    assert done.value["commit"] == commit


@pytest.mark.parametrize("path", [r"/resolve/\w+/README.md", "/lfs/"])
def test_what_is_read_back_and_is_not_what_was_sent(hub: ContractHub, call: Hubward, path: str) -> None:
    hub.faults.append(Fault("GET", path, damage=True))
    kind, message = call.refused()
    assert kind == "PushUnverified"
    name = "README.md" if "README" in path else "adapter_model.safetensors"
    commit = hub.repositories["model", REPO].refs["main"]
    assert message == f"me/tiny at {commit} does not hold {name} as it was sent."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code"), [(404, "EntryNotFound"), (404, "RevisionNotFound"), (404, "RepoNotFound"), (403, "GatedRepo")]
)
def test_what_cannot_be_read_back(hub: ContractHub, call: Hubward, status: int, code: str) -> None:
    for method in ("HEAD", "GET"):
        hub.faults.append(Fault(method, "/resolve/", status, {"X-Error-Code": code}, times=99))
    kind, message = call.refused()
    assert kind == "PushUnverified"
    commit = hub.repositories["model", REPO].refs["main"]
    assert message.startswith(f"me/tiny at {commit} was published and cannot be read back: ")
