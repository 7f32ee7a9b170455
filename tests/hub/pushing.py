"""What tests of ``push.hub`` have in common: a Hub, a process that pushes, and what is pushed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.hub.contract import ContractHub
from tests.hub.driver import Done, Driver
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
