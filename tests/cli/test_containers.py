"""``recipe containers`` where no engine is needed, or none is there."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.cli.test_commands import recipe

from recipe_containers.image_lock import locked_image

SCHEMA = json.loads((files("recipe_engine.cli") / "output.schema.json").read_text(encoding="utf-8"))


def containers(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command on a machine without an engine."""
    variables = {"DOCKER_HOST": f"unix://{folder}/none.sock", "XDG_CACHE_HOME": str(folder / "cache")}
    done = recipe(folder, "containers", *arguments, **variables)
    return done.returncode, done.stdout, done.stderr


def valid(name: str, text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"}).validate(value)
    return value


def test_images_are_listed_without_an_engine(tmp_path: Path) -> None:
    code, output, errors = containers(tmp_path, "ls")
    assert (code, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["cpu", "cuda"]
    assert "no engine" in output
    listed = valid("containers_ls", containers(tmp_path, "ls", "--json")[1])["images"]
    assert listed[0]["image_id"] == locked_image("cpu").image_id
    assert [each["in_engine"] for each in listed] == [None, None]


def test_an_image_is_shown_to_the_byte(tmp_path: Path) -> None:
    shown = valid("containers_show", containers(tmp_path, "show", "cpu", "--json")[1])
    assert shown["packages"]["torch"] == "2.13.0+cpu"
    code, output, _ = containers(tmp_path, "show", "cpu")
    assert code == 0
    assert locked_image("cpu").layers[1] in output
    assert "torch 2.13.0+cpu" in output


def test_a_dry_run_checks_and_builds_nothing(tmp_path: Path) -> None:
    code, output, _ = containers(tmp_path, "build", "cuda", "--dry-run", "--json")
    said = valid("containers_dry_run", output)
    assert (code, said["without_hash"], said["fetched"], said["locked"]) == (0, [], 0, False)
    assert said["driver_floor"] == "580.65.06"
    assert "96 of them; all are about 2.9 GB" in containers(tmp_path, "build", "cuda", "--dry-run")[1]
    assert not (tmp_path / "cache").exists()


def test_a_dockerfile_is_printed(tmp_path: Path) -> None:
    code, output, errors = containers(tmp_path, "build", "cuda", "--dockerfile")
    assert (code, errors) == (0, "")
    assert "COPY cuda.lock" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "gpu"], 2, "There is no image gpu.\n       There are: cpu, cuda."),
        (["show", "cuda"], 3, "nobody has built it yet.\n       Build it: recipe containers build cuda --update-lock"),
        (["build", "cpu", "--base", "debian:12"], 2, "--base debian:12 is not one image"),
        (["build", "cpu", "--base", "debian@sha256:12"], 2, "--base debian@sha256:12 is not one image"),
        (["push", "cpu", "ghcr.io/me/recipe-cpu:latest"], 2, "leave out the tag"),
        (["pull", "cpu", "$(touch x)"], 2, "does not name a repository"),
        (["build", "cpu"], 4, "none.sock is not there.\n       Install Docker"),
        (["verify", "cpu"], 4, "none.sock is not there."),
        (["push", "cpu", "ghcr.io/me/recipe-cpu"], 4, "none.sock is not there."),
        (["pull", "cpu", "ghcr.io/me/recipe-cpu"], 4, "none.sock is not there."),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    returned, output, errors = containers(tmp_path, *arguments)
    assert (returned, output) == (code, "")
    assert errors.startswith("error: ")
    assert message in errors
