"""``hub:`` through the real command and the real client, against a Hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, disk, statuses
from tests.hub.server import COMMIT, Hub

from recipe_engine.methods.sources.references import check_hub

TOKEN = "hf_SecretOfThisTest0123456789abcdef"
NODES = ("resolve", "tokenizer", "load")
MODEL = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RECIPE = f"""\
version = 1
name = "from-the-hub"
threads = 1
device = "cpu"
[model]
base = "hub:me/tiny"
revision = "{COMMIT}"
[load.full]
dtype = "float32"
"""
# The source alone, in a process whose environment the client can still read; prints what it reports and finds.
FETCH = """
import json, sys
from pathlib import Path
from recipe_engine.contract import SourceRequest
from recipe_engine.methods.sources.hub import HubSource
from tests.tiny import Recorder
action, revision = sys.argv[1:]
reporter = Recorder()
request = SourceRequest(
    reference="hub:me/tiny", folder=Path(), cache=Path("home/sources"), kind="model", revision=revision or None
)
found = HubSource().peek(request) if action == "peek" else HubSource().fetch(request, reporter)
print(json.dumps({
    "files": {file.path: file.sha256 for file in found.files} if found else None,
    "client": "huggingface_hub" in sys.modules,
    "messages": reporter.messages,
    "progressed": reporter.progressed,
}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A repository with weights in two formats, code, and another format in a folder."""
    folder = tiny.write_model(tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody wants")
    (folder / "modeling.py").write_text("raise SystemExit('run')\n")
    (folder / "README.md").write_text("# tiny\n")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "consolidated.safetensors").write_bytes(b"the same weights once more")
    with Hub(folder) as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path, hub: Hub) -> Workspace:
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "tiny.toml").write_text(RECIPE)
    return Workspace(folder, hub.variables())


def planned(workspace: Workspace, *arguments: str) -> dict[str, str]:
    """Node -> its state in the plan."""
    done = workspace.recipe("plan", "--json", "tiny.toml", *arguments)
    assert done.said(0) == ""
    return {node["id"]: node["state"] for node in json.loads(done.out)["nodes"]}


def refusal(workspace: Workspace) -> str:
    """What a run says that cannot have its model: one line and a hint."""
    done = workspace.recipe("run", "tiny.toml")
    message, hint = done.said(3).splitlines()
    assert message.startswith("error: ")
    assert hint.startswith("       ")
    assert hint.strip()
    assert TOKEN not in done.out + done.err
    assert holding(TOKEN, workspace.folder) == []
    return message.removeprefix("error: ")


def holding(text: str, folder: Path) -> list[str]:
    """Files that contain a text."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def source(workspace: Workspace, action: str = "fetch", revision: str = COMMIT) -> dict[str, Any]:
    """What the source alone answers."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, action, revision],
        cwd=workspace.folder,
        env=workspace.environment() | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def expected(hub: Hub) -> dict[str, str]:
    """Digests of the files that belong to the model."""
    return {file.path: file.sha256 for file in tiny.resolve(hub.folder).files if file.path in MODEL}


@pytest.mark.slow
def test_a_pinned_model_is_fetched_once_and_then_needs_no_network(hub: Hub, workspace: Workspace) -> None:
    hub.token = workspace.variables["HF_TOKEN"] = TOKEN
    unknown = {"resolve": "will run", "tokenizer": "unknown", "load": "unknown"}
    main = ("--set", 'model.revision="main"')
    assert planned(workspace) == unknown
    assert hub.asked == [], "a plan asks nobody"

    first = workspace.run()
    assert statuses(first.result) == dict.fromkeys(NODES, "ran")
    assert first.err == ""
    assert hub.fetched() == MODEL
    record = workspace.last_record()["inputs"]["model"]
    assert record["reference"] == "hub:me/tiny"
    assert {file["path"]: file["sha256"] for file in record["files"]} == expected(hub)
    assert TOKEN not in first.out
    assert holding(TOKEN, workspace.folder) == []

    asked = len(hub.asked)
    assert planned(workspace) == dict.fromkeys(NODES, "cached")
    assert statuses(workspace.run().result) == dict.fromkeys(NODES, "cached")
    assert len(hub.asked) == asked

    branch = workspace.run(*main)
    assert statuses(branch.result) == {"resolve": "ran", "tokenizer": "cached", "load": "cached"}
    assert f'main may move; today it is revision = "{COMMIT}"' in [event.get("text") for event in branch.events]
    assert planned(workspace, *main) == unknown

    hub.stop()
    assert planned(workspace) == dict.fromkeys(NODES, "cached")
    assert statuses(workspace.run().result) == dict.fromkeys(NODES, "cached")


def test_nothing_is_asked_but_what_a_download_needs(hub: Hub, workspace: Workspace) -> None:
    hub.token = workspace.variables["HF_TOKEN"] = TOKEN
    assert source(workspace)["files"] == expected(hub)
    known = (f"/api/models/me/tiny/revision/{COMMIT}", f"/api/models/me/tiny/tree/{COMMIT}", "/me/tiny/resolve/")
    assert [asked.path for asked in hub.asked if not asked.path.startswith((*known, "/store/"))] == []
    assert {asked.method for asked in hub.asked} == {"GET", "HEAD"}
    agents = {asked.headers["user-agent"] for asked in hub.asked}
    assert all(agent.startswith("recipe-engine/") and "torch/" not in agent for agent in agents), agents
    stored = [asked for asked in hub.asked if asked.path.startswith("/store/")]
    assert stored
    assert not any("authorization" in asked.headers for asked in stored), "another host sees no token"


def test_what_was_fetched_is_known_without_the_client(hub: Hub, workspace: Workspace) -> None:
    assert source(workspace, "peek")["files"] is None
    found = source(workspace)
    assert source(workspace, "peek") == {**found, "client": False, "messages": [], "progressed": []}
    assert source(workspace, "peek", "main")["files"] is None


def test_a_changed_file_of_the_cache_is_not_taken_for_the_one_that_was_fetched(hub: Hub, workspace: Workspace) -> None:
    source(workspace)
    cached = next((workspace.home / "sources").glob("models--*/snapshots/*/config.json")).resolve()
    cached.write_text(cached.read_text() + "\n")
    assert source(workspace, "peek")["files"] is None


@pytest.mark.slow
def test_a_broken_note_is_no_note(hub: Hub, workspace: Workspace) -> None:
    source(workspace)
    note = next((workspace.home / "sources").glob("hub--me--tiny/*.json"))
    for content in ("", "[]", "{}", '{"schema_version": 1, "files": [{}]}', '{"schema_version": 2, "files": [1]}'):
        note.write_text(content)
        assert source(workspace, "peek")["files"] is None
    asked = len(hub.fetched())
    assert source(workspace)["files"] == expected(hub)
    assert len(hub.fetched()) == asked


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["main", ""])
def test_a_branch_is_fetched_at_its_commit(hub: Hub, workspace: Workspace, revision: str) -> None:
    found = source(workspace, revision=revision)
    assert found["files"] == expected(hub)
    assert found["messages"][-1] == f'main may move; today it is revision = "{COMMIT}"'
    assert source(workspace, "peek")["files"] == expected(hub)


def test_a_missing_repository(hub: Hub, workspace: Workspace) -> None:
    workspace.edit("me/tiny", "me/other")
    assert refusal(workspace) == "the Hub has no model me/other, or this account may not see it."


def test_a_missing_revision(hub: Hub, workspace: Workspace) -> None:
    workspace.edit(COMMIT, "f" * 40)
    assert refusal(workspace) == f"hub:me/tiny has no revision {'f' * 40}."


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "hf_AnotherToken"])
def test_a_gated_repository(hub: Hub, workspace: Workspace, token: str) -> None:
    hub.token = TOKEN
    workspace.variables["HF_TOKEN"] = token
    assert refusal(workspace) == "hub:me/tiny is gated, and this account has no access."


@pytest.mark.slow
def test_a_hub_that_refuses(hub: Hub, workspace: Workspace) -> None:
    hub.broken = 403
    workspace.variables["HF_TOKEN"] = TOKEN
    assert refusal(workspace) == "hub:me/tiny: the Hub answered with status 403."


@pytest.mark.slow
def test_nobody_answers(hub: Hub, workspace: Workspace) -> None:
    hub.stop()
    started = time.monotonic()
    assert refusal(workspace) == "hub:me/tiny: the Hub cannot be reached (ConnectError)."
    assert time.monotonic() - started < 10, "the client would try for half a minute"


def test_the_client_is_told_to_stay_offline(hub: Hub, workspace: Workspace) -> None:
    workspace.variables["HF_HUB_OFFLINE"] = "1"
    assert refusal(workspace) == "hub:me/tiny is not downloaded, and HF_HUB_OFFLINE is set."
    assert hub.asked == []


def test_pickled_weights_alone_are_refused(hub: Hub, workspace: Workspace) -> None:
    (hub.folder / "model.safetensors").unlink()
    assert refusal(workspace) == "hub:me/tiny holds no weights as *.safetensors or *.gguf."
    assert "pytorch_model.bin" not in hub.fetched()


@pytest.mark.slow
def test_a_file_that_arrives_damaged_is_refused_and_fetched_again(hub: Hub, workspace: Workspace) -> None:
    hub.damaged = (".safetensors",)
    assert refusal(workspace) == "hub:me/tiny: model.safetensors was damaged on its way."
    hub.damaged = ()
    assert source(workspace)["files"] == expected(hub)


@pytest.mark.slow
def test_the_disk_is_full_before_a_download_is_whole(hub: Hub, workspace: Workspace) -> None:
    """The disk is one that the command alone sees; another finds the model whole."""
    with (hub.folder / "model.safetensors").open("ab") as file:
        file.write(bytes(4 << 20))
    workspace.before = disk(workspace.home, "-t tmpfs -o size=2m tmpfs")
    assert refusal(workspace) == "hub:me/tiny cannot be downloaded: No space left on device."
    workspace.before = disk(workspace.home, "-t tmpfs -o size=64m tmpfs")
    assert set(source(workspace)["files"]) == MODEL


@pytest.mark.slow
def test_a_long_download_reports_its_bytes_and_draws_nothing(hub: Hub, workspace: Workspace) -> None:
    (hub.folder / "extra.safetensors").write_bytes(bytes(24 << 20))
    hub.bytes_per_second = 10 << 20
    workspace.variables["TQDM_POSITION"] = "-1"  # the client's way to force its bars
    reports = source(workspace)["progressed"]
    assert {unit for _, _, unit in reports} == {"bytes"}
    counts = [done for done, _, _ in reports]
    assert counts == sorted(counts)
    total = sum((hub.folder / name).stat().st_size for name in hub.fetched())
    assert reports[-1][:2] == [total, total]
    assert len([count for count in counts if count < total]) >= 2


@pytest.mark.parametrize("name", ["gpt2", "me/tiny", "meta-llama/Llama-2-7b-chat-hf", "a/" + "b" * 96, "a.b-c_d/e.f"])
def test_names_that_the_hub_takes(name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    assert check_hub(name) == ""
    validate_repo_id(name)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a--b", "a..b", "-a/b", "a/b.", "a/b.git", "ä/b", "a/" + "b" * 97, "a b"]
)
def test_names_that_the_hub_refuses(name: str) -> None:
    assert "is not owner/name" in check_hub(name)


def test_the_names_are_those_of_the_client() -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    for name in ("gpt2", "me/tiny", "a--b", "a..b", "-a/b", "a/b.", "a/b.git", "a/" + "b" * 97, "a.b-c_d/e.f"):
        try:
            validate_repo_id(name)
            taken = True
        except HFValidationError:
            taken = False
        assert (check_hub(name) == "") is taken, name
