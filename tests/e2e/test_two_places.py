"""The same recipe in two places: other folders, users, languages, time zones and hash seeds give the same artifacts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.engine import Workspace, digests, write_workspace

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "registry", "containers")
OTHER_USER = 12345


def checkout(folder: Path) -> str:
    """A copy of the source tree; the variable that has it imported in place of the installed one."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return os.pathsep.join(str(folder / name) for name in PACKAGES)


def turkish(folder: Path) -> dict[str, str]:
    """The variables of a locale in which a lower-case I has no dot; another one where it cannot be made here."""
    target = folder / "tr_TR.UTF-8"
    if shutil.which("localedef") and Path("/usr/share/i18n/locales/tr_TR").exists():
        folder.mkdir()
        subprocess.run(["localedef", "-i", "tr_TR", "-f", "UTF-8", target], check=True, capture_output=True)
    return {"LC_ALL": target.name, "LOCPATH": str(folder)} if target.exists() else {"LC_ALL": "POSIX"}


def as_other_user(folder: Path) -> tuple[str, ...]:
    """What starts a command as a user of its own, who owns the folder; nothing where this one may not do that.

    It may read and write what this user may, since an interpreter often lies in a home that is closed to others.
    """
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return ()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)
    user = ("--reuid", str(OTHER_USER), "--regid", str(OTHER_USER), "--clear-groups")
    return ("setpriv", *user, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")


def artifacts(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in (workspace.home / "artifacts").glob("sha256-*"))


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    workspace = write_workspace(tmp_path / "here")
    source = checkout(tmp_path / "source")
    workspace.variables = {"PYTHONPATH": source, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "1"}
    return workspace


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, as they cannot those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def there(here: Workspace, open_folder: Path) -> Workspace:
    """The same, as far as a recipe says; everything else is other."""
    place = open_folder / "Kopie für später"
    shutil.copytree(here.folder, place / "work")
    workspace = Workspace(place / "work")
    workspace.edit('base = "file:model"', f'base = "file:{place}/work/model"')
    workspace.variables = {
        **turkish(place / "locale"),
        "PYTHONPATH": checkout(place / "source"),
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "4242",
        "HOME": str(place),
        "USER": "somebody",
        "RECIPE_HOME": str(place / "registry"),
    }
    workspace.before = as_other_user(open_folder)
    return workspace


@pytest.mark.slow
def test_two_places_make_the_same_artifacts(here: Workspace, there: Workspace) -> None:
    made = [here.run().result, there.run(recipe=str(there.recipe_file)).result]
    assert digests(made[0]) == digests(made[1])
    assert artifacts(here) == artifacts(there)
    keys = [{node["id"]: node["key"] for node in result["nodes"]} for result in made]
    assert keys[0] == keys[1]
    if there.before:
        assert {path.stat().st_uid for path in (there.home / "artifacts").iterdir()} == {OTHER_USER}
