"""What holds for every test: no network, an environment left as it was, and golden files.

Sockets are held by pytest-socket, switched on in ``pyproject.toml`` so that it precedes fixtures of every
scope: Unix sockets and loopback work, other connections raise. It cannot see into subprocesses.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest_plugins = ["pytester", "tests.leaks", "tests.postgres"]

# Before anything imports huggingface_hub, which reads it once; subprocesses inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"

GOLDEN_FOLDER = Path(__file__).parent / "golden"

# pytest writes the first around every phase of a test; torch's compiler, lm-eval and scikit-learn, which rouge-score
# imports where it is there, write the others when imported.
UNGUARDED_VARIABLES = frozenset(
    {
        "PYTEST_CURRENT_TEST",
        "TORCHINDUCTOR_CACHE_DIR",
        "HF_XET_HIGH_PERFORMANCE",
        "KMP_DUPLICATE_LIB_OK",
        "KMP_INIT_AT_FORK",
    }
)

Golden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("network"):
        item.add_marker("enable_socket")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in UNGUARDED_VARIABLES}


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Names only: a value may be a token."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "a folder that is gone"


@pytest.fixture(autouse=True)
def _environment_guard() -> Iterator[None]:
    """The next test finds the environment and the folder that this one found; who changes them is told."""
    environment, folder = _environment(), _folder()
    yield
    changed = _changed(environment, _environment())
    for name in changed:
        if name in environment:
            os.environ[name] = environment[name]
        else:
            del os.environ[name]
    folder_after = _folder()
    os.chdir(folder)
    complaints = []
    if changed:
        complaints.append(f"environment variables changed: {', '.join(changed)} (use monkeypatch.setenv)")
    if folder_after != folder:
        complaints.append(f"the working directory is now {folder_after} (use monkeypatch.chdir)")
    if complaints:
        pytest.fail("The test left something behind: " + "; ".join(complaints), pytrace=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """``golden(name, text)``: the text equals ``tests/golden/<name>``, to the byte."""
    update = request.config.getoption("--update-golden")
    mend = f"If this is meant: pytest {request.node.nodeid!r} --update-golden"

    def compare(name: str, text: str) -> None:
        path = GOLDEN_FOLDER / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            return
        if not path.exists():
            pytest.fail(f"tests/golden/{name} does not exist. {mend}", pytrace=False)
        expected = path.read_bytes().decode()
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(keepends=True),
                text.splitlines(keepends=True),
                f"tests/golden/{name}",
                "now",
            )
            difference = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
            pytest.fail(f"tests/golden/{name} differs. {mend}\n{difference}", pytrace=False)

    return compare
