"""A whole run that is published on a Hub on loopback, by the real command and the real client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.engine import SECRET, Workspace, assert_output, ran, statuses
from tests.e2e.test_secrets import assert_nowhere
from tests.hub.contract import ContractHub
from tests.hub.http import Fault
from tests.hub.repositories import Account

REPO = "me/tiny"
# Plain PEFT on what the Hub holds, by the card's own lines, against the export of the same training.
SAME_LOGITS = """
import sys
from pathlib import Path
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base_folder, pushed, export = sys.argv[1:]
code = Path(pushed, "README.md").read_text().partition("```python\\n")[2].partition("```")[0]
code = code.replace("path/to/the/base", base_folder).replace("me/tiny", pushed)
names = {}
exec(code, names)
batch = names["tokenizer"](["What comes after 3?", "Hello"], return_tensors="pt", padding=True)
plain = AutoModelForCausalLM.from_pretrained(base_folder)
with torch.no_grad():
    before = plain.eval()(**batch).logits
    own = PeftModel.from_pretrained(plain, export).eval()(**batch).logits
    found = names["model"].eval()(**batch).logits
assert torch.equal(found, own)
assert not torch.equal(found, before)
"""


@pytest.fixture
def hub() -> Iterator[ContractHub]:
    with ContractHub() as server:
        server.accounts[SECRET] = Account("me")
        yield server


@pytest.fixture
def space(finished: Workspace, hub: ContractHub) -> Workspace:
    """Everything is computed; the recipe pushes to the Hub too, with a token from a file."""
    finished.variables |= hub.variables(str(finished.folder.parent / "hf-home"))
    finished.append(f'[push.hub]\nrepo = "{REPO}"\nlicense = "mit"\nlanguage = ["en"]\n')
    (finished.folder.parent / ".env").unlink(missing_ok=True)
    return finished


def log_in(space: Workspace) -> None:
    """Where ``hf auth login`` would leave the token."""
    home = Path(space.variables["HF_HOME"])
    home.mkdir(exist_ok=True)
    (home / "token").write_text(SECRET)


@pytest.mark.slow
def test_a_result_is_published_and_loads_as_it_was_trained(space: Workspace, hub: ContractHub, tmp_path: Path) -> None:
    log_in(space)
    first = space.recipe("run", "--json", "tiny.toml")
    assert first.code == 0, first.err
    assert ran(first.result) == ["push.folder", "push.hub"]
    receipt = first.result["nodes"][-1]["facts"]
    found = hub.repositories["model", REPO]
    assert (receipt["commit"], found.private) == (found.refs["main"], True)

    pushed = tmp_path / "pushed"
    pushed.mkdir()
    for name, content in found.files().items():
        (pushed / name).write_bytes(content)
    export = space.folder / "export"
    names = {path.name for path in export.iterdir()}
    assert names == set(receipt["files"]) == found.files().keys() - {".gitattributes"}
    assert {"recipe.toml", "recipe.lock.json", "loss.svg", "adapter_model.safetensors", "tokenizer.json"} <= names
    card = (pushed / "README.md").read_text()
    assert "license: mit\n" in card
    assert f"`recipe run hub:{REPO}` makes it again" in card

    folders = [str(space.folder / "model"), str(pushed), str(export)]
    process = subprocess.run(
        [sys.executable, "-c", SAME_LOGITS, *folders],
        cwd=tmp_path,
        env=space.environment() | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr

    again = space.recipe("run", "--json", "tiny.toml")
    assert set(statuses(again.result).values()) == {"cached"}
    assert len(found.commits) == 2
    shown = space.recipe("show", first.result["run"])
    assert f"pushed to {hub.url}/{REPO}/tree/{receipt['commit']}" in shown.out
    assert_nowhere(space, first.out, first.err, again.out, again.err, shown.out)
    assert space.leftovers() == []
    assert list((space.home / "runs").glob("*/push-*")) == []


@pytest.mark.slow
def test_what_was_published_and_is_not_what_was_meant(space: Workspace, hub: ContractHub) -> None:
    (space.folder / ".env").write_text(f"HF_TOKEN={SECRET}\n")
    hub.faults.append(Fault("GET", "/lfs/", damage=True))
    done = space.recipe("run", "tiny.toml")
    commit = hub.repositories["model", REPO].refs["main"]
    assert f"error: me/tiny at {commit} does not hold adapter_model.safetensors as it was sent." in done.said(6)
    (space.folder / ".env").unlink()  # it is the one file that holds the token
    assert_nowhere(space, done.out, done.err)

    shown = json.loads(space.recipe("show", "--json").out)
    assert_output("show", shown)
    assert (shown["status"], shown["error"]["type"]) == ("push-unverified", "PushUnverified")
    assert shown["error"]["node"] == "push.hub"
    listed = space.recipe("runs", "--status", "push-unverified")
    assert shown["run"] in listed.out

    # The same command reads what is there once more, and makes no other commit of it.
    hub.asked.clear()
    log_in(space)
    again = space.recipe("run", "--json", "tiny.toml")
    assert again.code == 0, again.err
    assert "push.hub" in ran(again.result)
    assert hub.requests(f"/resolve/{commit}/")
    assert hub.requests("POST /api/models/me/tiny/commit") == []
    assert set(statuses(space.recipe("run", "--json", "tiny.toml").result).values()) == {"cached"}


@pytest.mark.slow
def test_nothing_is_computed_for_an_account_that_cannot_publish(space: Workspace, hub: ContractHub) -> None:
    space.edit("learning_rate = 1e-3", "learning_rate = 5e-4")
    for command in (("plan", "tiny.toml"), ("run", "tiny.toml")):
        told = space.recipe(*command).said(4)
        assert re.search(
            r"error: tiny\.toml:\d+:\d+: push\.hub: it needs a token of the Hub, and there is none\.", told
        )
        assert "hf auth login" in told
    assert hub.asked == []
    fit = json.loads(space.recipe("doctor", "--json", "tiny.toml").out)
    assert any("needs a token of the Hub" in finding["text"] for finding in fit["findings"])

    log_in(space)
    space.variables["HF_HUB_OFFLINE"] = "1"
    assert "the Hub cannot be asked: HF_HUB_OFFLINE is set." in space.recipe("run", "tiny.toml").said(4)
    space.variables["HF_HUB_OFFLINE"] = "0"
    hub.accounts[SECRET] = Account("me", role="read")
    before = len(list((space.home / "artifacts").iterdir()))
    done = space.recipe("run", "--json", "tiny.toml")
    assert done.code == 4
    assert done.result["error"]["message"] == "the token of me can only read."
    assert [node["id"] for node in done.result["nodes"]] == ["resolve"]
    hub.accounts[SECRET] = Account("me")
    done = space.recipe("run", "tiny.toml", "--set", 'push.hub.license="my-own"')
    assert "the Hub refuses the model card" in done.said(4)
    assert len(list((space.home / "artifacts").iterdir())) == before
    assert hub.requests("POST /api/repos|/commit/") == []


@pytest.mark.slow
def test_a_result_that_is_not_good_enough_is_not_published(space: Workspace, hub: ContractHub) -> None:
    log_in(space)
    space.append('[gate]\nexact_match = ">= 0.9"\n')
    done = space.recipe("run", "tiny.toml")
    done.said(7)
    assert hub.requests("POST /api/repos|/commit/") == []
