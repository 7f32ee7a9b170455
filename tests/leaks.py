"""A token that is in the environment of every test, and a search for it in whatever the tests left.

Each session, and each worker of one, looks through the folders that its tests wrote, the texts of their failures, and
what the processes and commands printed that they started. A hit fails the session, after the last test.
"""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

VARIABLE = "HF_TOKEN"
PROBE = "hf_secretprobe"
"""The token. Whoever writes another one for a purpose of its own is not looked for."""
DELIBERATE = frozenset(
    {
        "space/.env",  # test_push_hub.py: a token that is read from such a file
        "hf-home/token",  # test_push_hub.py: one that a login left
        "tests/leaks.py",  # test_guards.py: a copy of this file
    }
)
"""Ends of the paths of files that tests write it into themselves."""
_MAPPED_BYTES = 1 << 20

os.environ[VARIABLE] = PROBE  # before anything imports huggingface_hub; subprocesses inherit it

_TEXTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TEXTS] = []
    config.pluginmanager.register(_Reports(os.environ[VARIABLE], config.stash[_TEXTS]))


class _Reports:
    """Notes the tests whose failure, or captured output, has the token in it."""

    def __init__(self, token: str, found: list[str]) -> None:
        self._token = token
        self._found = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        texts = (report.longreprtext, *(text for _, text in report.sections))
        if any(self._token in text for text in texts):
            self._found.append(f"what {report.nodeid} printed")


@pytest.fixture(scope="session", autouse=True)
def _no_token_is_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Autouse, and before all others of the session: it is torn down last, when everything is written."""
    token, heard = os.environ[VARIABLE], request.config.stash[_TEXTS]
    with _heard(token, heard):
        yield
    base = tmp_path_factory.getbasetemp()
    files = [str(path.relative_to(base)) for path in files_with(token.encode(), base)]
    found = [*dict.fromkeys(heard), *(name for name in files if not name.endswith(tuple(DELIBERATE)))]
    if found:
        pytest.fail(f"The token of the environment, {VARIABLE}, is in: " + ", ".join(found), pytrace=False)


@contextmanager
def _heard(token: str, found: list[str]) -> Iterator[None]:
    """For the time of the block, what a test reads of a process, or of a command in this one, is searched too."""
    communicate, invoke = subprocess.Popen.communicate, CliRunner.invoke

    def search(*outputs: str | bytes | None) -> None:
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else text or "" for text in outputs]
        if any(token in text for text in texts):
            test = os.environ.get("PYTEST_CURRENT_TEST", "a fixture").partition(" ")[0]
            found.append(f"what a command of {test} printed")

    def read(self: Any, *arguments: Any, **more: Any) -> Any:
        outputs = communicate(self, *arguments, **more)
        search(*outputs)
        return outputs

    def invoked(self: Any, *arguments: Any, **more: Any) -> Any:
        result = invoke(self, *arguments, **more)
        search(result.output, result.stderr)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "communicate", read)
        patch.setattr(CliRunner, "invoke", invoked)
        yield


def files_with(text: bytes, folder: Path) -> Iterator[Path]:
    """The files below a folder that hold a text; what cannot be read is passed over, and links are not followed."""
    seen: set[tuple[int, int]] = set()
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            try:
                about = path.lstat()
                if (
                    stat.S_ISREG(about.st_mode)
                    and (about.st_dev, about.st_ino) not in seen
                    and _holds(path, about, text)
                ):
                    yield path
            except OSError:
                continue
            seen.add((about.st_dev, about.st_ino))


def _holds(path: Path, about: os.stat_result, text: bytes) -> bool:
    # A sparse file is as long as it likes; what it holds is short.
    if about.st_size <= _MAPPED_BYTES:
        return text in path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = 0
        while (start := _data_from(file.fileno(), start)) >= 0:
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            if mapped.find(text, start, min(end + len(text), about.st_size)) >= 0:
                return True
            start = end
    return False


def _data_from(descriptor: int, start: int) -> int:
    """Where the next bytes of a file are that are no hole; -1 where there are none."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError:
        return -1
