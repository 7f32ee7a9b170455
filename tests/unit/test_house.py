"""The repository keeps its own rules."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Written so that no pattern matches itself.
PACKAGE_INDEX = re.compile(
    r"(?:pypi|pythonhosted)\.(?:org|io|python\.org)\b|download\.pytorch\.org|https?://\S*/simple\b"
    r"|--(?:extra-)?index[-]url|--find[-]links",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.~}*-])/(?:hom[e]|User[s]|roo[t]|wor[k])/[\w.]|\b[A-Z]:\\\\?User[s]\b")


def tracked_files() -> list[Path]:
    """What is, or would be, in the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if pattern.search(text):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
                for number, line in enumerate(text.splitlines(), 1)
                if pattern.search(line)
            ]
    return found


def test_the_listing_sees_the_repository() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert {"Makefile", "pyproject.toml", "tests/unit/test_house.py", ".ci/run"} <= names


def test_no_file_names_a_package_index() -> None:
    assert lines_that_match(PACKAGE_INDEX) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_that_match(MACHINE_PATH) == []


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "packages.example/api/simple/",
        "https://" + "pypi" + ".org/project/x",
        "pip install --index" + "-url x",
    ],
)
def test_a_package_index_is_recognized(text: str) -> None:
    assert PACKAGE_INDEX.search(text)


@pytest.mark.parametrize("name", ["home/me", "Users/me", "root/.cache", "work/main"])
def test_a_path_of_one_machine_is_recognized(name: str) -> None:
    assert MACHINE_PATH.search(f"cd /{name}")
    assert not MACHINE_PATH.search(f"~/{name} and https://host.example/{name} and my/{name}")


def test_every_decision_is_in_the_index_once() -> None:
    folder = ROOT / "docs" / "adr"
    records = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    rows = re.findall(r"^\| \[(\d{4})\]\((\S+)\) \|", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(target for _, target in rows) == records
    assert all(target.startswith(f"{number}-") for number, target in rows)
    numbers = [number for number, _ in rows]
    assert len(set(numbers)) == len(numbers), "two records have one number"


def test_every_target_of_the_makefile_has_a_help_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == targets
    assert all(len(line.split()) > 2 for line in shown.splitlines())
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    assert sorted(phony[1].split()) == sorted(targets)


def test_help_comes_first() -> None:
    by_default = subprocess.run(["make"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert by_default.startswith("  help ")


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def has_annotations(tree: ast.Module) -> bool:
    """Whether the file could hold an annotation at all; one without functions and classes is nearly empty."""
    holders = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.AnnAssign)
    return any(isinstance(node, holders) for node in ast.walk(tree))


def test_every_module_postpones_its_annotations() -> None:
    modules = [path for room in ("engine", "registry", "containers") for path in (ROOT / room).rglob("*.py")]
    assert len(modules) > 5
    without = [
        path.relative_to(ROOT).as_posix()
        for path in modules
        if has_annotations(ast.parse(text := path.read_text()))
        and not re.search(r"^from __future__ import annotations$", text, re.MULTILINE)
    ]
    assert without == []
