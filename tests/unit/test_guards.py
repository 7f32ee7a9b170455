"""The guards of ``tests/conftest.py`` catch what they are there for, under the settings of this project."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with our settings and our conftest, and no tests yet."""
    (pytester.path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py", "tests/leaks.py", "tests/postgres.py"):
        (pytester.path / name).write_text((ROOT / name).read_text())
    return pytester


def run(guarded: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """Run one test module in a process of its own: the guards are global state."""
    (guarded.path / "tests" / "test_it.py").write_text(source)
    unneeded = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider")
    return guarded.runpytest_subprocess(*unneeded, *options)


def test_sockets(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
import contextlib
import socket

import pytest

OUTSIDE = ("192.0.2.1", 9)  # TEST-NET-1


def datagram_socket():  # to connect one sends nothing
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture(scope="module")
def early():
    with datagram_socket() as client:
        client.connect(OUTSIDE)


def test_outside():
    with datagram_socket() as client:
        client.connect(OUTSIDE)


def test_fixture_of_a_wider_scope(early):
    pass


def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1])).close()


def test_unix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")


@pytest.mark.network
def test_network_marker():
    with datagram_socket() as client, contextlib.suppress(OSError):  # a machine without a route is fine
        client.connect(OUTSIDE)
""",
    )
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "ERROR *::test_fixture_of_a_wider_scope - pytest_socket.*",
            "FAILED *::test_outside - pytest_socket.SocketConnectBlockedErr*",
        ]
    )


def test_environment_and_folder(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
import os


def test_hub_is_offline():
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_sets():
    os.environ["HOUSE_TOKEN"] = "hidden-value"


def test_removes():
    del os.environ["HF_HUB_OFFLINE"]


def test_moves(tmp_path):
    os.chdir(tmp_path)


def test_moves_into_nothing(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def test_everything_is_as_before():
    assert "HOUSE_TOKEN" not in os.environ
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.path.exists("pyproject.toml")


def test_monkeypatch_is_fine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOUSE_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
""",
    )
    result.assert_outcomes(passed=7, errors=4)
    result.stdout.fnmatch_lines(
        [
            "*variables changed: HOUSE_TOKEN (*",
            "*variables changed: HF_HUB_OFFLINE (*",
            "*working directory is now */test_moves0 (*",
            "*working directory is now a folder that is gone (*",
        ]
    )
    result.stdout.no_fnmatch_line("*hidden-value*")


GOLDEN_TEST = """
def test_text(golden):
    golden("deep/text.txt", "one\\r\\ntwo")
"""


def test_golden_is_missing(guarded: pytest.Pytester) -> None:
    result = run(guarded, GOLDEN_TEST)
    result.assert_outcomes(failed=1)
    mend = "If this is meant: pytest 'tests/test_it.py::test_text' --update-golden"
    result.stdout.fnmatch_lines([f"tests/golden/deep/text.txt does not exist. {mend}"])


def test_golden_is_written_and_then_equal(guarded: pytest.Pytester) -> None:
    run(guarded, GOLDEN_TEST, "--update-golden").assert_outcomes(passed=1)
    assert (guarded.path / "tests/golden/deep/text.txt").read_bytes() == b"one\r\ntwo"
    run(guarded, GOLDEN_TEST).assert_outcomes(passed=1)


def test_golden_differs(guarded: pytest.Pytester) -> None:
    path = guarded.path / "tests/golden/deep/text.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\r\nthree")
    result = run(guarded, GOLDEN_TEST)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["tests/golden/deep/text.txt differs. *--update-golden", "-three", "+two"])
    assert path.read_bytes() == b"one\r\nthree"
