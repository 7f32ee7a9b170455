"""``push.hub`` through the real client, against a Hub on loopback: what is published, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.hub.http import Fault
from tests.hub.pushing import CARD, REPO, TOKEN, Hubward
from tests.hub.repositories import Account

if TYPE_CHECKING:
    from tests.hub.contract import ContractHub


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
def test_the_token_goes_to_the_hub_alone(hub: ContractHub, large: Path, call: Hubward) -> None:
    del large
    call.pushed()
    stored = [asked for asked in hub.asked if asked.path.startswith("/lfs/")]
    assert stored
    assert not any("authorization" in {name.lower() for name in asked.headers} for asked in stored)
    agents = {asked.headers.get("user-agent", "") for asked in hub.asked if asked.path.startswith("/api/models")}
    assert all(agent.startswith("recipe-engine/") for agent in agents), agents
