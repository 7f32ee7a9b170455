"""``push.hub`` through the real client, against a Hub on loopback that fails as the Hub and networks do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests import tiny
from tests.e2e.engine import disk
from tests.hub.contract import ContractHub
from tests.hub.driver import Done, Driver
from tests.hub.http import Fault
from tests.hub.repositories import Account
from tests.leaks import files_with

TOKEN = "hf_SecretOfThisTest0123456789abcdef"
REPO = "me/tiny"
CARD = "---\nlibrary_name: peft\nlicense: mit\n---\n# tiny\n"
LARGE = "model.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ContractHub, Driver]]:
    folder = tmp_path_factory.mktemp("hub")
    with ContractHub() as hub, Driver(hub.variables(str(folder / "hf-home")), folder) as driver:
        yield hub, driver
    assert list(files_with(TOKEN.encode(), folder)) == []


@pytest.fixture
def hub(place: tuple[ContractHub, Driver]) -> ContractHub:
    """A Hub with one account and no repository."""
    place[0].reset()
    place[0].accounts[TOKEN] = Account("me")
    return place[0]


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A folder with what is published of an adapter."""
    folder = tmp_path / "payload"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "adapter_config.json").write_text('{"r": 4}\n')
    (folder / "recipe.toml").write_text("version = 1\n")
    save_file({"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def large(payload: Path) -> Path:
    """The same with a file that is sent in a request of its own."""
    save_file({"w": np.arange(3 << 20, dtype=np.float32)}, payload / LARGE)
    return payload


class Hubward:
    """Calls ``push.hub`` and looks after the token.

    Args:
        driver: the process.
        files: the payload.
    """

    def __init__(self, driver: Driver, files: Path) -> None:
        self._driver = driver
        self.files = files

    def __call__(self, action: str = "push", *, token: str = TOKEN, repo: str = REPO, **options: Any) -> Done:
        """Call a method; the token is in nothing that comes back."""
        done = self._driver(action, self.files, token, repo=repo, **options)
        assert TOKEN not in json.dumps(vars(done))
        return done

    def pushed(self, **options: Any) -> dict[str, Any]:
        """The receipt of a push that succeeds."""
        done = self(**options)
        assert done.error == {}
        receipt: dict[str, Any] = done.value
        return receipt

    def refused(self, action: str = "push", **options: Any) -> tuple[str, str]:
        """Class and message of the error; it has a hint."""
        error = self(action, **options).error
        assert error, "it was not refused"
        assert error["hint"]
        return error["type"], error["message"]


@pytest.fixture
def call(place: tuple[ContractHub, Driver], hub: ContractHub, payload: Path) -> Hubward:
    del hub
    return Hubward(place[1], payload)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_repository_is_made_private_and_holds_one_commit_with_everything(hub: ContractHub, call: Hubward) -> None:
    assert call("check").error == {}
    assert hub.repositories == {}, "a check writes nothing"
    receipt = call.pushed()
    found = hub.repositories["model", REPO]
    assert found.private
    assert list(found.commits)[1:] == [receipt["commit"]]
    assert found.refs == {"main": receipt["commit"]}
    assert found.files() == {".gitattributes": found.files()[".gitattributes"], **contents(call.files)}
    assert receipt["address"] == f"{hub.url}/{REPO}/tree/{receipt['commit']}"
    read_back = hub.requests(rf"GET /me/tiny/resolve/{receipt['commit']}/|GET /lfs/")
    assert len(read_back) == len(receipt["files"]) == 4


def test_equal_content_makes_no_new_commit(hub: ContractHub, call: Hubward) -> None:
    assert call("is_current").value is False
    call.pushed()
    assert call("is_current").value is True
    (call.files / "adapter_config.json").write_text('{"r": 8}\n')
    assert call("is_current").value is False
    call.pushed()
    assert len(hub.repositories["model", REPO].commits) == 3


@pytest.mark.slow
def test_what_is_volatile_in_the_card_is_no_new_content(call: Hubward) -> None:
    def written(seconds: int, rank: int = 4) -> None:
        text = f"{CARD}rank {rank}\n<!-- volatile -->\n- {seconds} s\n<!-- /volatile -->\nend\n"
        (call.files / "README.md").write_text(text)

    written(1)
    call.pushed()
    written(2)
    assert call("is_current").value is True
    assert call().error == {}  # what a doubtful push does: it reads the card that is there
    written(2, rank=8)
    assert call("is_current").value is False


@pytest.mark.slow
def test_files_of_others_stay(hub: ContractHub, call: Hubward) -> None:
    hub.add(REPO).commit({"notes.txt": b"mine"}, "main")
    call.pushed()
    assert hub.repositories["model", REPO].files()["notes.txt"] == b"mine"


@pytest.mark.slow
def test_a_branch_is_made(hub: ContractHub, call: Hubward) -> None:
    hub.add(REPO)
    receipt = call.pushed(branch="trials/one")
    found = hub.repositories["model", REPO]
    assert found.refs["trials/one"] == receipt["commit"]
    assert "README.md" not in found.files("main")
    assert call("is_current", branch="trials/one").value is True


def test_a_pull_request_needs_no_right_and_is_made_once(hub: ContractHub, call: Hubward) -> None:
    theirs = hub.add("them/model")
    proposed: dict[str, Any] = {"repo": "them/model", "pull_request": True}
    assert call("check", **proposed).error == {}
    receipt = call.pushed(**proposed)
    assert receipt["address"] == f"{hub.url}/them/model/discussions/1"
    assert theirs.refs["refs/pr/1"] == receipt["commit"]
    assert "README.md" not in theirs.files("main")
    assert call("is_current", **proposed).value is True


@pytest.mark.slow
def test_a_gate_is_put_before_the_files(hub: ContractHub, call: Hubward) -> None:
    call.pushed(private=False, gated="manual")
    assert hub.repositories["model", REPO].gated == "manual"
    assert [line.rpartition("/")[2] for line in hub.requests("settings|/commit/")] == ["settings", "main"]
    hub.asked.clear()
    (call.files / "recipe.toml").write_text("version = 1\nseed = 2\n")
    call.pushed(private=False, gated="manual")
    assert hub.requests("settings") == []


@pytest.mark.slow
def test_a_large_file_is_sent_once_with_its_progress(hub: ContractHub, large: Path, call: Hubward) -> None:
    hub.part_bytes = 5 << 20
    done = call()
    assert done.error == {}
    total = sum(path.stat().st_size for path in large.iterdir())
    sent = [report[:2] for report in done.progress if report[2] == "bytes"]
    assert sent[-1] == (total, total)
    assert sent == sorted(sent)
    assert len(hub.requests(r"PUT /lfs/\w+/\d")) == 4  # three pieces, and the adapter in one
    hub.asked.clear()
    (large / "recipe.toml").write_text("version = 1\nseed = 2\n")
    call.pushed()
    assert hub.requests("PUT /lfs") == []


REFUSED = "this account may not write into me/tiny."


@pytest.mark.parametrize(
    ("account", "message"),
    [
        (None, "the Hub refuses the token: it is wrong or has expired."),
        (Account("me", role="read"), "the token of me can only read."),
        (Account("you"), "you may not write into me/tiny: it may into you."),
        (Account("you", organizations=("us",)), "you may not write into me/tiny: it may into you, us."),
        (
            Account("me", role="fineGrained", scopes={"me": ("repo.content.read",), "us": ("repo.write",)}),
            "the fine-grained token of me does not let it write into me/tiny.",
        ),
    ],
)
def test_an_account_that_cannot_is_told_before_anything_is_computed(
    hub: ContractHub, call: Hubward, account: Account | None, message: str
) -> None:
    hub.accounts.clear()
    if account:
        hub.accounts[TOKEN] = account
    assert call.refused("check") == ("UnfitEnvironment", message)
    assert hub.requests("POST /api/repos") == []


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["me", REPO])
def test_a_fine_grained_token_that_may(hub: ContractHub, call: Hubward, scope: str) -> None:
    hub.accounts[TOKEN] = Account("me", role="fineGrained", scopes={scope: ("repo.write",)})
    assert call("check").error == {}
    assert call().error == {}


def test_no_token(hub: ContractHub, call: Hubward) -> None:
    kind, message = call.refused("check", token="")
    assert (kind, message) == ("UnfitEnvironment", "me/tiny: it needs a token of the Hub, and there is none.")
    assert hub.asked == []


def test_a_repository_of_another_type(hub: ContractHub, call: Hubward) -> None:
    hub.add(REPO, "dataset")
    assert call.refused("check") == ("UnfitEnvironment", "me/tiny is a data set, and a model is pushed.")


@pytest.mark.slow
def test_a_pull_request_to_nobody(call: Hubward) -> None:
    kind, message = call.refused("check", repo="them/model", pull_request=True)
    assert kind == "UnfitEnvironment"
    assert message.startswith("there is no model them/model to propose a change to")


def test_a_card_that_the_hub_refuses_is_told_before_training_and_before_a_commit(
    hub: ContractHub, call: Hubward
) -> None:
    (call.files / "README.md").write_text(CARD.replace("mit", "mine-alone"))
    message = 'the Hub refuses the model card: "license" must be one of apache-2.0, mit, llama2, cc-by-4.0, other.'
    assert call.refused("check") == ("UnfitEnvironment", message)
    assert call.refused() == ("StageFailed", message)
    assert hub.repositories == {}


@pytest.mark.slow
def test_a_name_that_the_hub_refuses(hub: ContractHub, call: Hubward) -> None:
    hub.faults.append(Fault("POST", "/api/repos/create", 400))
    assert call.refused() == ("StageFailed", "the Hub refuses what was sent for me/tiny.")


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
def test_a_repository_that_somebody_else_makes_meanwhile(hub: ContractHub, call: Hubward) -> None:
    """The answer is 409."""
    hub.faults.append(Fault("POST", "/api/repos/create", before=lambda: hub.add(REPO)))
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


@pytest.mark.slow
def test_the_token_goes_to_the_hub_alone(hub: ContractHub, large: Path, call: Hubward) -> None:
    del large
    call.pushed()
    stored = [asked for asked in hub.asked if asked.path.startswith("/lfs/")]
    assert stored
    assert not any("authorization" in {name.lower() for name in asked.headers} for asked in stored)
    agents = {asked.headers.get("user-agent", "") for asked in hub.asked if asked.path.startswith("/api/models")}
    assert all(agent.startswith("recipe-engine/") for agent in agents), agents
