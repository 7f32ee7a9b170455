"""``recipe init``: from options, from a dialogue at a terminal, and never over a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from tests.terminal import Terminal

from recipe_engine.cli import cli
from recipe_engine.compose import compose
from recipe_engine.plugins import load_catalogue
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

GIVEN = ("--model", "org/model", "--data", "rows.jsonl")
ROWS = {
    "pairs.jsonl": '{"question": "1 + 1?", "answer": "2"}\n',
    "chats.jsonl": '{"conversations": [{"role": "user", "content": "Hi"}]}\n',
    "texts.jsonl": '{"text": "Once"}\n',
    "rows.jsonl": '{"prompt": "a", "completion": "b"}\n',
    "odd.jsonl": '{"left": 1, "right": 2}\n',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in ROWS.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments], standalone_mode=False)


def recipe(file: str = "recipe.toml") -> Recipe:
    return validate(compose(file), load_catalogue(entry_points=False))


@pytest.mark.parametrize(
    ("data", "format_", "options"),
    [
        ("pairs.jsonl", "instruction", {"prompt": "question", "completion": "answer"}),
        ("chats.jsonl", "chat", "conversations"),
        ("texts.jsonl", "text", "text"),
    ],
)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_recipe_is_valid_and_reads_the_rows(
    folder: Path, data: str, format_: str, options: object, method: str
) -> None:
    done = run("--model", "org/model", "--data", data, "--method", method)
    assert done.exception is None
    assert f"recipe.toml: the format {format_} with " in done.stdout
    assert "recipe run recipe.toml" in done.stdout
    found = recipe()
    assert (found.name, found.model.base) == (data.partition(".")[0], "hub:org/model")
    table = found.to_table()["data"]["eval"]
    assert (table["source"], table["format"]) == (f"file:{data}", format_)
    assert table.get("fields", table.get("field")) == options
    text = (folder / "recipe.toml").read_text()
    assert CliRunner().invoke(cli, ["fmt", "--check", "recipe.toml"], standalone_mode=False).return_value == 0, text


def test_paths_lead_from_the_recipe(folder: Path) -> None:
    (folder / "recipes").mkdir()
    (folder / "model").mkdir()
    assert run("recipes/mine.toml", "--model", "model", "--data", "rows.jsonl").exception is None
    found = recipe("recipes/mine.toml")
    assert (found.name, found.model.base) == ("mine", "file:../model")
    assert found.data["train"].table.source == "file:../rows.jsonl"


def test_rows_that_are_not_here_are_assumed_to_have_the_usual_fields(folder: Path) -> None:
    assert "rows of the format chat are assumed" in run("--model", "m", "--data", "org/rows", "--task", "chat").stdout
    done = run("later.toml", "--model", "m", "--data", "later.jsonl")
    assert done.stderr == "later.jsonl: No such file or directory\n"
    assert recipe("later.toml").data["train"].table.format == "instruction"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "rows.jsonl"), "--model is missing. At a terminal it would be asked for."),
        (("--model", "m"), "--data is missing. At a terminal it would be asked for."),
        ((*GIVEN, "--name", "no name"), "name: expected text that matches"),
        (("--model", "https://x.org", "--data", "rows.jsonl"), 'model.base: "hub:https://x.org" is not owner/name.'),
        ((*GIVEN, "--task", "chat"), "The first row of rows.jsonl is of the format instruction; its fields are prompt"),
        (("--model", "m", "--data", "odd.jsonl"), "The first row of odd.jsonl is of no known format; its fields are"),
        (("r.json", *GIVEN), "r.json does not end in .toml."),
        (("no/r.toml", *GIVEN), "no/r.toml cannot be written: No such file or directory."),
        (("a\nb.toml", *GIVEN), "."),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(folder: Path, arguments: Sequence[str], said: str) -> None:
    error = run(*arguments).exception
    assert getattr(error, "exit_code", None) == 2, error
    assert said in str(error)
    assert sorted(path.name for path in folder.iterdir()) == sorted(ROWS)


def test_a_file_is_not_written_over_unless_it_is_meant(folder: Path) -> None:
    (folder / "recipe.toml").write_text("mine")
    assert "recipe.toml is there already." in str(run(*GIVEN).exception)
    assert (folder / "recipe.toml").read_text() == "mine"
    assert run(*GIVEN, "--force").exception is None
    assert recipe().name == "rows"


def at_terminal(folder: Path, answers: bytes, last: bytes) -> tuple[int, str]:
    """The command at a terminal of its own; exit status and what is shown.

    Args:
        folder: where it is given.
        answers: what is typed to the questions before that for the method.
        last: what is typed to that one.
    """
    with Terminal([Path(sys.executable).with_name("recipe"), "init"], folder) as terminal:
        terminal.press(answers)
        terminal.wait_for(b"the least memory")
        terminal.wait_for(b"Method (")
        return terminal.ends(last), terminal.shown.decode()


def test_a_dialogue(folder: Path) -> None:
    status, shown = at_terminal(folder, b"org/model\npairs.jsonl\n", b"qlora\n")
    assert status == 0, shown
    found = recipe()
    assert (found.model.base, found.data["train"].table.source) == ("hub:org/model", "file:pairs.jsonl")
    assert found.load is not None
    assert found.load.method == "nf4"


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_a_dialogue_that_is_left_leaves_no_file(folder: Path, key: bytes) -> None:
    status, shown = at_terminal(folder, b"org/model\npairs.jsonl\n", key)
    assert status == 130
    assert shown.rstrip().endswith("stopped.")
    assert not (folder / "recipe.toml").exists()
