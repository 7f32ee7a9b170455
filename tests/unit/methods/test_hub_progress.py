"""Bytes of an upload are told as they go, by whichever way the Hub's client sends them."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from recipe_engine.methods import hub_progress
from recipe_engine.methods.hub_progress import CountedFile, counted_addition, xet_counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(100)))
    return path


def test_what_is_read_is_told_and_what_is_read_again_is_taken_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_progress, "_SECONDS_BETWEEN", 0)
    told: list[int] = []
    with CountedFile(file, told.append) as counted:
        assert counted.read(40) == bytes(range(40))
        counted.read(40)
        counted.seek(0)  # the connection was lost
        assert counted.read() == bytes(range(100))
    assert told == [40, 80, 100]


def test_nobody_is_told_more_than_a_few_times_a_second(file: Path) -> None:
    told: list[int] = []
    with CountedFile(file, told.append) as counted:
        while counted.read(1):
            pass
    assert told[0] == 100, "the end is told in any case"


def test_what_is_sent_counts_and_what_is_hashed_does_not(file: Path) -> None:
    told: list[int] = []
    addition = counted_addition("weights", file, told.append)
    assert len(addition.upload_info.sha256) == 32
    with addition.as_file() as opened:
        opened.read()
    assert told == []
    with addition.as_file(with_tqdm=True) as opened:
        opened.read()
    assert told == [100]


class Session:
    """What the client asks of hf_xet, as far as progress goes."""

    @contextmanager
    def new_upload_commit(self, *, progress_callback: Callable[..., None], **_: Any) -> Iterator[Any]:
        yield SimpleNamespace(start_upload_file=lambda path, sha256: None)
        for done in (30, 100):
            progress_callback(SimpleNamespace(total_bytes_completed=done, total_bytes=100), {})


def test_xet_tells_too(file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub import _commit_api
    from huggingface_hub.utils import _xet, are_progress_bars_disabled, disable_progress_bars

    monkeypatch.setattr(_xet, "get_xet_session", Session)
    disable_progress_bars()
    told: list[int] = []
    addition = counted_addition("weights", file, told.append)
    addition.upload_info.sha256 = bytes(32)
    with xet_counted(told.append):
        _commit_api._upload_xet_files(additions=[addition], repo_type="model", repo_id="me/tiny", headers={})
    assert told == [30, 100]
    assert are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_the_client_draws_nothing_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    """Where all large files are there already, it would draw a bar of none."""
    from huggingface_hub.utils import disable_progress_bars, hf_thread_map

    disable_progress_bars()
    with xet_counted(lambda _sent: None):
        hf_thread_map(str, [], desc="Upload 0 LFS files")
    assert capfd.readouterr() == ("", "")
