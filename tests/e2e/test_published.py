"""``recipe run hub:owner/model``: a published result is made again from what stands beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, statuses, write_workspace
from tests.hub.contract import ContractHub
from tests.hub.http import Fault
from tests.hub.repositories import Account, Repository

REPO = "them/tiny"
PLUGIN = """
from pathlib import Path
Path(__file__).with_suffix(".ran").write_text("ran")
"""


@pytest.fixture
def hub() -> Iterator[ContractHub]:
    with ContractHub() as server:
        server.accounts["hf_them"] = Account("them")
        yield server


def published(finished: Workspace, hub: ContractHub) -> Repository:
    """The export of the first run as a repository, with the model and the rows that the recipe names."""
    folder = finished.folder / "export"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = hub.add(REPO)
    found.commit(files, "main")
    return found


def elsewhere(finished: Workspace, hub: ContractHub) -> Workspace:
    """Another person's folder: the inputs are there, as they are no part of a repository."""
    folder = finished.folder.parent / "elsewhere"
    inputs = folder / "tiny"
    inputs.mkdir(parents=True)
    (inputs / "model").symlink_to((finished.folder / "model").resolve())
    tiny.write_jsonl(inputs / "rows.jsonl", tiny.instruction_rows(32))
    home = str(folder / "hf-home")
    return Workspace(folder, {**hub.variables(home), "RECIPE_HOME": str(finished.home)})


@pytest.mark.slow
def test_a_published_result_is_made_again_and_compared(finished: Workspace, hub: ContractHub) -> None:
    found = published(finished, hub)
    space = elsewhere(finished, hub)
    done = space.run("--yes", recipe=f"hub:{REPO}")
    assert done.result["status"] == "succeeded"
    assert "push.folder" not in statuses(done.result)
    assert (space.folder / "tiny" / "recipe.toml").read_bytes() == finished.recipe_file.read_bytes()
    assert (space.folder / "tiny" / "recipe.lock.json").read_bytes() == found.files()["recipe.lock.json"]
    said = [event["text"] for event in done.events if event["type"] == "node_message"]
    commit = found.refs["main"]
    assert said[-1] == f"identical to hub:{REPO} at {commit}: adapter_config.json, adapter_model.safetensors"
    assert not (space.folder / "export").exists()
    assert hub.requests("POST|PUT") == []

    # What was published is another one than what comes out.
    found.commit({"adapter_model.safetensors": found.files()["adapter_model.safetensors"] + b"\0"}, "main")
    again = space.recipe("run", "--yes", f"hub:{REPO}")
    assert f"train: not the bytes of hub:{REPO} at {found.refs['main']}: adapter_model.safetensors differ" in again.out
    old = space.recipe("run", "--yes", f"hub:{REPO}@{commit}")
    assert f"identical to hub:{REPO} at {commit}" in old.out


@pytest.mark.slow
def test_nobody_is_asked_and_nothing_is_run(finished: Workspace, hub: ContractHub) -> None:
    published(finished, hub)
    space = elsewhere(finished, hub)
    before = len(list((space.home / "runs").iterdir()))
    assert "Nobody is there to be asked. " in space.recipe("run", f"hub:{REPO}").said(2).replace("\n       ", " ")
    assert "--json does not ask." in space.recipe("run", "--json", f"hub:{REPO}").said(2)
    assert "--trust-code is for recipes of the Hub." in space.recipe("run", "--trust-code", "0", "x.toml").said(2)
    assert len(list((space.home / "runs").iterdir())) == before


@pytest.mark.slow
def test_inputs_that_are_not_those_of_the_lock_are_refused(finished: Workspace, hub: ContractHub) -> None:
    published(finished, hub)
    space = elsewhere(finished, hub)
    tiny.write_jsonl(space.folder / "tiny" / "rows.jsonl", tiny.instruction_rows(31))
    assert "The inputs are not those of tiny/recipe.lock.json" in space.recipe("run", "--yes", f"hub:{REPO}").said(3)


@pytest.mark.slow
def test_code_of_others_is_run_only_where_its_digest_is_given(tmp_path: Path, model: Path, hub: ContractHub) -> None:
    space = write_workspace(tmp_path / "space", model)
    space.variables |= hub.variables(str(tmp_path / "hf-home"))
    text = space.recipe_file.read_text().replace('name = "tiny"', 'name = "tiny"\nplugins = ["./mine.py"]')
    found = hub.add(REPO)
    found.commit({"recipe.toml": text.encode(), "mine.py": PLUGIN.encode()}, "main")
    digest = hashlib.sha256(PLUGIN.encode()).hexdigest()
    for trusted in ((), ("--trust-code", "0" * 64)):
        told = space.recipe("run", "--yes", *trusted, f"hub:{REPO}").said(2)
        assert "them/tiny names code of its own: tiny/mine.py." in told
        assert f"Read it, and then give --trust-code {digest}" in told
    assert not (space.folder / "tiny" / "mine.ran").exists()
    # Trusted, it is imported; the model is not here, which is another matter.
    space.recipe("run", "--yes", "--trust-code", digest, f"hub:{REPO}").said(3)
    assert (space.folder / "tiny" / "mine.ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "recipe", "message"),
    [
        ({"config.json": b"{}"}, f"hub:{REPO}", f"hub:{REPO} holds no recipe."),
        ({}, "hub:them/other", "the Hub has no model them/other, or this account may not see it."),
        ({"recipe.toml": b""}, f"hub:{REPO}@v9", f"hub:{REPO} has no revision v9."),
        ({}, "hub:tiny", '"tiny" is not owner/name, as the Hub takes them.'),
        (
            {"recipe.toml": b'plugins = ["../evil.py"]'},
            f"hub:{REPO}",
            "them/tiny names code that it does not hold: tiny/../evil.py.",
        ),
        ({"recipe.toml": b"#" * (2 << 20)}, f"hub:{REPO}", "recipe.toml is larger than a recipe can be."),
    ],
)
def test_what_cannot_be_run(
    tmp_path: Path, hub: ContractHub, files: dict[str, bytes], recipe: str, message: str
) -> None:
    hub.add(REPO).commit(files, "main")
    space = Workspace(tmp_path / "space", hub.variables(str(tmp_path / "hf-home")) | {"HF_TOKEN": "hf_them"})
    space.folder.mkdir()
    (tmp_path / "evil.py").write_text(PLUGIN)
    done = space.recipe("run", "--yes", recipe)
    assert done.code in (2, 3)
    assert f"error: {message}" in done.said(done.code)
    assert not (tmp_path / "evil.ran").exists()


@pytest.mark.slow
def test_what_arrives_damaged_is_not_run_and_a_busy_hub_is_waited_for(tmp_path: Path, hub: ContractHub) -> None:
    hub.add(REPO).commit({"recipe.toml": b"version = 1\n"}, "main")
    space = Workspace(tmp_path / "space", hub.variables(str(tmp_path / "hf-home")))
    space.folder.mkdir()
    hub.faults.append(Fault("GET", "/resolve/", damage=True))
    told = space.recipe("run", "--yes", f"hub:{REPO}").said(3)
    assert f"hub:{REPO}: recipe.toml was damaged on its way." in told
    assert not (space.folder / "tiny").exists()
    hub.faults += [
        Fault("GET", "/api/models/", 429, {"Retry-After": "0"}),
        Fault("GET", "/tree/", 500),
        Fault("GET", "/resolve/", cut=3),
    ]
    space.recipe("run", "--yes", f"hub:{REPO}").said(2)  # it is no whole recipe
    assert [fault.times for fault in hub.faults] == [0] * 4
    assert (space.folder / "tiny" / "recipe.toml").read_bytes() == b"version = 1\n"


def test_another_file_is_not_written_over(tmp_path: Path, hub: ContractHub) -> None:
    hub.add(REPO).commit({"recipe.toml": b"version = 1\n"}, "main")
    space = Workspace(tmp_path / "space", hub.variables(str(tmp_path / "hf-home")))
    (space.folder / "tiny").mkdir(parents=True)
    (space.folder / "tiny" / "recipe.toml").write_text("mine")
    told = space.recipe("run", "--yes", f"hub:{REPO}").said(2)
    assert "tiny/recipe.toml is there already, and is another one." in told
    assert (space.folder / "tiny" / "recipe.toml").read_text() == "mine"
