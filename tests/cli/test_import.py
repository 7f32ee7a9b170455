"""``recipe import`` as a command: files, streams, exit codes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from recipe_engine.cli import cli

CONFIG = """\
base_model: org/model
datasets:
- path: rows.jsonl
  type: chat_template
adapter: qlora
lora_r: 8
tf32: true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["import", *arguments], standalone_mode=False)


def test_the_recipe_goes_to_standard_output_and_what_is_lost_to_standard_error(folder: Path) -> None:
    done = run("axolotl", "c.yml")
    assert done.exception is None
    assert done.stdout.startswith("# From c.yml, a configuration of Axolotl.\nversion = 1\n")
    assert done.stdout.endswith("#   line 7: tf32: it has no counterpart\n")
    assert done.stderr == "line 7: tf32: it has no counterpart\n"


def test_the_recipe_that_was_written_is_valid(folder: Path) -> None:
    done = run("axolotl", "c.yml", "-o", "r.toml")
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "r.toml: 1 setting has no counterpart here")
    checked = CliRunner().invoke(cli, ["validate", "r.toml"], standalone_mode=False)
    assert CliRunner().invoke(cli, ["fmt", "--check", "r.toml"], standalone_mode=False).return_value == 0
    assert checked.stdout == "r.toml: valid (load.nf4, adapt.lora, train.sft, push.folder)\n"


def test_a_file_is_not_written_over_unless_it_is_meant(folder: Path) -> None:
    (folder / "r.toml").write_text("mine")
    assert str(run("axolotl", "c.yml", "-o", "r.toml").exception) == (
        "r.toml is there already. Give another name, or --force to write over it."
    )
    assert (folder / "r.toml").read_text() == "mine"
    assert run("axolotl", "c.yml", "-o", "r.toml", "--force").exception is None
    assert (folder / "r.toml").read_text().startswith("# From c.yml")


def test_json_is_what_its_schema_says(folder: Path) -> None:
    told = json.loads(run("axolotl", "c.yml", "--json").stdout)
    schema = json.loads((files("recipe_engine.cli") / "output.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator({**schema, "$ref": "#/$defs/import"}).validate(told)
    assert told["lost"] == [{"key": "tf32", "line": 7, "reason": "it has no counterpart"}]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("axolotl", "gone.yml"), 3),
        (("axolotl", "."), 3),
        (("trl", "c.yml"), 2),
        (("axolotl", "c.yml", "-o", "no/r"), 2),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_leaves_no_file(
    folder: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    error = run(*arguments).exception
    assert getattr(error, "exit_code", None) == exit_code
    assert sorted(path.name for path in folder.iterdir()) == ["c.yml"]
