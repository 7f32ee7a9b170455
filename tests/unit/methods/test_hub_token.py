"""Where the Hub's token is looked for, and what becomes of a plan without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.written import SMALL, builtins, recipe_of, refusal

from recipe_engine.graph import build_graph
from recipe_engine.methods.hub_token import find_token, hub_needs
from recipe_engine.methods.options import PushHub
from recipe_engine.outline import unready_methods

OPTIONS = PushHub(repo="me/tiny")
HUB = SMALL.replace("[push.folder]\n", '[push.hub]\nrepo = "me/tiny"\n')


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for commands, and no token anywhere."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "hf").mkdir()
    (tmp_path / "space").mkdir()
    monkeypatch.chdir(tmp_path / "space")
    return tmp_path


def has_token() -> bool:
    return not hub_needs(OPTIONS)


@pytest.mark.usefixtures("home")
def test_no_token() -> None:
    [(message, hint)] = hub_needs(OPTIONS)
    assert message == "it needs a token of the Hub, and there is none."
    assert hint.startswith("Log in with: hf auth login, or set HF_TOKEN")
    recipe = recipe_of(HUB)
    [error] = unready_methods(recipe, builtins(), build_graph(recipe, builtins()))
    assert str(error).startswith("r.toml:29:7: push.hub: it needs a token of the Hub")
    assert error.exit_code == 4
    pushes_nothing = [node for node in build_graph(recipe, builtins()) if node.stage != "push"]
    assert list(unready_methods(recipe, builtins(), pushes_nothing)) == []


def test_the_login(home: Path) -> None:
    (home / "hf" / "token").write_text("hf_login\n")
    assert has_token()


def test_the_login_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine").write_text("hf_mine")
    monkeypatch.setenv("HF_TOKEN_PATH", str(home / "mine"))
    assert has_token()


@pytest.mark.parametrize(
    "line", ["HF_TOKEN=hf_dotenv", "export HF_TOKEN='hf_dotenv'", '  HUGGING_FACE_HUB_TOKEN = "hf_dotenv"  ']
)
def test_a_file_of_variables(home: Path, line: str) -> None:
    file = home / "space" / ".env"
    file.write_text(f"# mine\nOTHER=1\n{line}\n")
    assert has_token()
    assert find_token(home / "space") == "hf_dotenv"


@pytest.mark.parametrize("text", ["", "HF_TOKEN=\n", "# HF_TOKEN=hf_x\n", "HF_TOKEN\n"])
def test_a_file_of_other_variables(home: Path, text: str) -> None:
    (home / "space" / ".env").write_text(text)
    assert not has_token()


def test_the_environment_comes_first_unless_it_is_empty(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "space" / ".env").write_text("HF_TOKEN=hf_dotenv\n")
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert find_token(home / "space") == "hf_environment"
    monkeypatch.setenv("HF_TOKEN", " ")
    assert find_token(home / "space") == "hf_dotenv"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('repo = "tiny"', 'push.hub.repo: "tiny" is not owner/name, as the Hub takes them.'),
        ('repo = "me/a--b"', 'push.hub.repo: "me/a--b" is not owner/name, as the Hub takes them.'),
        ('repo = "me/x.git"', 'push.hub.repo: "me/x.git" is not owner/name, as the Hub takes them.'),
        (
            'repo = "me/x"\npull_request = true\ngated = "auto"',
            "push.hub.gated: who proposes a change does not decide who gets the files.",
        ),
        (
            'repo = "me/x"\npull_request = true\nprivate = false',
            "push.hub.private: it cannot matter here: a pull request makes no repository.",
        ),
        (
            'repo = "me/x"\npull_request = true\nbranch = "trials"',
            "push.hub.branch: a pull request goes to main.",
        ),
    ],
)
def test_options_that_cannot_be_meant(options: str, message: str) -> None:
    assert message in refusal(HUB.replace('repo = "me/tiny"', options))
