"""The search for tokens finds those that are there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.leaks import PROBE, VARIABLE, files_with

if TYPE_CHECKING:
    import pytest

PLANTED = "hf_planted0123456789"
# The outer session looks through the files of the inner ones too, but for another token.
CLEAN = """
import os
def test_clean(tmp_path):
    (tmp_path / "log").write_text("nothing")
def test_login(tmp_path):
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / ".env").write_text(os.environ["HF_TOKEN"])
"""
CARELESS = """
import os, subprocess, sys
import click
from click.testing import CliRunner
def test_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.log").write_text("token: " + os.environ["HF_TOKEN"])
def test_traceback():
    raise ValueError(os.environ["HF_TOKEN"])
def test_output():
    print(os.environ["HF_TOKEN"])
    assert False
def test_process():
    subprocess.run([sys.executable, "-c", "import os; print(os.environ['HF_TOKEN'])"], capture_output=True)
def test_command():
    CliRunner().invoke(click.Command("say", callback=lambda: click.echo(os.environ["HF_TOKEN"], err=True)))
"""


def test_every_test_has_a_token() -> None:
    assert os.environ[VARIABLE] == PROBE


def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str) -> pytest.RunResult:
    """Tests in a session of their own, with a token of their own."""
    pytester.makepyfile(test_it=text)
    set_first = (
        f"import os\nimport tests.leaks\nos.environ[{VARIABLE!r}] = {PLANTED!r}\npytest_plugins = ['tests.leaks']\n"
    )
    pytester.makeconftest(set_first)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester.runpytest_subprocess("-q", "--basetemp", str(pytester.path / "base"))


def test_a_session_that_leaves_a_token_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = session(pytester, monkeypatch, CARELESS)
    result.assert_outcomes(passed=3, failed=2, errors=1)
    names = (
        "what test_it.py::test_traceback printed",
        "what test_it.py::test_output printed",
        "what a command of test_it.py::test_process printed",
        "what a command of test_it.py::test_command printed",
        "test_file0/deep/run.log",
    )
    result.stdout.fnmatch_lines([f"The token of the environment, HF_TOKEN, is in: {', '.join(names)}"])


def test_a_session_that_leaves_none_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    session(pytester, monkeypatch, CLEAN).assert_outcomes(passed=2)


def test_large_and_sparse_files_are_searched_in_no_time(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(3 << 30)
        file.write(PLANTED.encode())
    (tmp_path / "clean").write_bytes(bytes(3 << 20))
    (tmp_path / "link").symlink_to(tmp_path / "model.safetensors")
    (tmp_path / "again").hardlink_to(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "pipe")
    started = time.process_time()
    (found,) = files_with(PLANTED.encode(), tmp_path)
    assert time.process_time() - started < 1
    assert found.name in ("model.safetensors", "again")
