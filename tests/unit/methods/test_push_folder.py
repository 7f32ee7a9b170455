"""An export into a folder: what is there already, what is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import Recorder

from recipe_engine.contract import PushRequest
from recipe_engine.errors import RecipeError
from recipe_engine.methods.options import PushFolder as Options
from recipe_engine.methods.push_folder import PushFolder


@pytest.fixture
def request_(tmp_path: Path) -> PushRequest:
    """A payload of two files for ``out/exports/tiny``."""
    files = {}
    for name in ("README.md", "adapter_config.json"):
        files[name] = tmp_path / f"source-{name}"
        files[name].write_text(name)
    return PushRequest(
        name="tiny",
        options=Options(),
        folder=tmp_path / "out",
        files=files,
        digest="sha256:0",
        work=tmp_path / "work",
        reporter=Recorder(),
    )


def with_path(request: PushRequest, path: str) -> PushRequest:
    from dataclasses import replace

    return replace(request, options=Options(path=path))


def test_an_export_is_complete_and_current_until_it_is_touched(request_: PushRequest) -> None:
    folder = request_.folder / "exports" / "tiny"
    assert not PushFolder().is_current(request_)

    receipt = PushFolder().push(request_)

    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: name for name in request_.files}
    assert receipt == {"folder": str(folder), "digest": "sha256:0", "files": ["README.md", "adapter_config.json"]}
    assert PushFolder().is_current(request_)
    (folder / "README.md").write_text("README.mD")
    assert not PushFolder().is_current(request_)


def test_other_files_stay(request_: PushRequest) -> None:
    mine = request_.folder / "mine" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")

    PushFolder().push(with_path(request_, "mine"))

    assert mine.read_text() == "mine"


def test_what_is_in_the_way_is_named(request_: PushRequest) -> None:
    (request_.folder / "out" / "README.md").mkdir(parents=True)

    with pytest.raises(RecipeError, match=r"out/README\.md is a folder where a file is needed\. Move it away\."):
        PushFolder().push(with_path(request_, "out"))


def test_the_home_of_nobody(request_: PushRequest) -> None:
    with pytest.raises(RecipeError, match=r"push\.folder: there is no user ~no-such-user\."):
        PushFolder().is_current(with_path(request_, "~no-such-user/export"))
