"""``recipe explain`` as people and programs read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.test_commands import recipe
from tests.e2e.engine import assert_output

if TYPE_CHECKING:
    from tests.conftest import Golden

KEYS = ("", "train", "adapt.lora", "train.sft.micro_batch_size", "data.train.system", "adapt.lora.target_modules")


def test_what_people_read(tmp_path: Path, golden: Golden) -> None:
    told = []
    for key in KEYS:
        done = recipe(tmp_path, "explain", *([key] if key else []))
        assert (done.returncode, done.stderr) == (0, "")
        told.append(f"$ recipe explain {key}".rstrip() + f"\n{done.stdout}")
    golden("explain.txt", "\n".join(told))


@pytest.mark.parametrize("key", ["", "train", "data.train.system"])
def test_what_programs_read(tmp_path: Path, key: str) -> None:
    told = json.loads(recipe(tmp_path, "explain", "--json", key).stdout)
    assert_output("explain", told)
    assert {found["key"] for found in told["found"]} == {key}


def test_a_key_that_does_not_exist(tmp_path: Path) -> None:
    done = recipe(tmp_path, "explain", "train.stf")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: A recipe has no train.stf.\n       Did you mean sft?\n"
