"""``recipe fmt`` and ``recipe convert``: files are replaced whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.test_commands import recipe

TEXT = "# about\n\nversion=1\nname='x'\n[load.full]\n[model]\nbase='file:m'\n"
TIDY = "# about\n\nversion = 1\nname = 'x'\n\n[model]\nbase = 'file:m'\n\n[load.full]\n"
BROKEN = "version = \n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return path


def test_files_are_formatted_in_place(tmp_path: Path, file: Path) -> None:
    file.chmod(0o600)
    (tmp_path / "y.json").write_text('{"name": "x", "version": 1}')
    (tmp_path / "link.toml").symlink_to("x.toml")
    done = recipe(tmp_path, "fmt", "link.toml", "y.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "link.toml: formatted\ny.json: formatted\n", "")
    assert file.read_text() == TIDY
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "link.toml").is_symlink()
    assert (tmp_path / "y.json").read_text() == '{\n  "version": 1,\n  "name": "x"\n}\n'
    again = recipe(tmp_path, "fmt", "x.toml", "y.json")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_check_writes_nothing_and_lists_what_would_change(tmp_path: Path, file: Path) -> None:
    (tmp_path / "tidy.toml").write_text(TIDY)
    done = recipe(tmp_path, "fmt", "--check", "tidy.toml", "x.toml")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "x.toml: would change\n")
    assert file.read_text() == TEXT
    assert recipe(tmp_path, "fmt", "--check", "tidy.toml").returncode == 0


def test_a_file_that_is_no_recipe_keeps_all_files_as_they_are(tmp_path: Path, file: Path) -> None:
    (tmp_path / "bad.toml").write_text(BROKEN)
    (tmp_path / "worse.json").write_text("[]")
    done = recipe(tmp_path, "fmt", "x.toml", "bad.toml", "worse.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        "bad.toml:1:11",
        "worse.json:1:1",
        "2 problems",
    ]
    assert file.read_text() == TEXT
    assert (tmp_path / "bad.toml").read_text() == BROKEN


def test_a_recipe_is_converted_there_and_back(tmp_path: Path, file: Path) -> None:
    done = recipe(tmp_path, "convert", "x.toml", "x.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "x.toml: its comments are lost, JSON has none\n"
    assert json.loads((tmp_path / "x.json").read_text())["model"] == {"base": "file:m"}
    back = recipe(tmp_path, "convert", "x.json", "./x.toml", "--force")
    assert (back.returncode, back.stdout, back.stderr) == (0, "", "")
    assert file.read_text() == TIDY.partition("\n\n")[2].replace("'", '"')


def test_a_recipe_is_printed_in_the_other_syntax(tmp_path: Path, file: Path) -> None:
    done = recipe(tmp_path, "convert", "x.toml", "-", "--to", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.toml", "other.json"], "other.json exists. Replace it with --force."),
        (["x.toml", "sub/x.json"], "sub/x.json is in another folder, where the relative paths of the recipe lead"),
        (["x.toml", "x.yaml"], "x.yaml ends in neither .toml nor .json."),
        (["x.toml", "y.toml"], "x.toml is TOML already. recipe fmt lays it out anew."),
        (["x.toml", "-"], "The syntax is not said. Add --to toml or --to json."),
        (["x.toml", "y.json", "--to", "toml"], "y.json is no name of a file in toml."),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, file: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.json").write_text("mine")
    done = recipe(tmp_path, "convert", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.removeprefix("error: ").split())
    assert (tmp_path / "other.json").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "sub", "x.toml"]
