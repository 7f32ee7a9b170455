"""Conversations with the model of a run, through pipes and at a terminal."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.engine import COMMAND, Workspace, write_workspace
from tests.e2e.test_base_recipes import ON_TOP
from tests.terminal import Terminal

FEW = ("--max-new-tokens", "8")
QUESTION = "What comes after 3?"


@pytest.mark.slow
def test_a_piped_conversation_beside_the_base_model(finished: Workspace) -> None:
    lines = [QUESTION, "", "And then?", "/reset", "And then?", "/help", "/nope", "/exit", "never asked"]
    done = finished.recipe("chat", "latest", "--base", *FEW, stdin="\n".join(lines))
    assert done.code == 0, done.err
    tuned, base = (
        [part.partition("tuned: ")[0].rstrip() for part in done.out.split(label)[1:]] for label in ("tuned: ", "base: ")
    )
    tuned = [part.partition("base: ")[0].rstrip() for part in tuned]
    assert (len(tuned), len(base)) == (3, 3)
    assert tuned != base
    # The second answer knows the first question, the third does not.
    assert tuned[1] != tuned[2]
    assert done.err.splitlines()[0] == "/reset  forget the conversation"
    assert done.err.splitlines()[-1] == "There is no /nope. /help lists what there is."


@pytest.mark.slow
@pytest.mark.parametrize("side", [(), ("--base",)])
def test_the_first_answer_is_that_of_generate(finished: Workspace, side: tuple[str, ...]) -> None:
    answer = finished.recipe("generate", "latest", "--prompt", QUESTION, *FEW, *side).out
    said = finished.recipe("chat", "latest", *FEW, *side, stdin=QUESTION).out
    assert answer.strip() in said
    assert answer.strip()


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_the_next_one_is_whole(finished: Workspace) -> None:
    process = subprocess.Popen(
        [COMMAND, "chat", "--max-new-tokens", "450"],
        cwd=finished.folder,
        env=finished.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Count!\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(b"/reset\nCount!\n", timeout=60)
    assert (process.returncode, errors) == (0, b"")
    whole = finished.recipe("generate", "--prompt", "Count!", "--max-new-tokens", "450").out.encode()
    assert output.endswith(b"\n" + whole)
    assert len(output) < 2 * len(whole)


@pytest.mark.slow
def test_at_a_terminal_ctrl_d_ends_and_ctrl_c_does_when_it_comes_twice(finished: Workspace) -> None:
    with Terminal([COMMAND, "chat"], finished.folder, finished.environment()) as terminal:
        terminal.wait_for(b"> ")
        assert terminal.ends(b"\x04") == 0
    with Terminal([COMMAND, "chat"], finished.folder, finished.environment()) as terminal:
        terminal.wait_for(b"> ")
        terminal.press(b"\x03")
        terminal.wait_for(b"Ctrl-C again ends.", again=b"\x03")
        terminal.wait_for(b"> ")
        assert terminal.ends(b"\x03") == 130


@pytest.mark.slow
def test_ctrl_c_between_answers_does_not_count_against_the_next(finished: Workspace) -> None:
    command = [COMMAND, "chat", "--max-new-tokens", "450"]
    with Terminal(command, finished.folder, finished.environment()) as terminal:
        terminal.wait_for(b"> ")
        terminal.press(b"\x03")
        terminal.wait_for(b"Ctrl-C again ends.", again=b"\x03")
        terminal.wait_for(b"> ")
        terminal.press(b"Count!\n")
        terminal.wait_for(b"Count!\r\n")
        terminal.wait_for(b"*")
        terminal.press(b"\x03")
        terminal.wait_for(b"> ")
        assert terminal.ends(b"\x04") == 0


@pytest.mark.slow
def test_the_base_of_a_recipe_on_top_is_what_its_training_started_from(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w")
    (workspace.folder / "top.toml").write_text(ON_TOP)
    first = workspace.recipe("run", "tiny.toml", "--json").result["run"]
    workspace.run(recipe="top.toml")
    below = workspace.recipe("generate", first, "--prompt", QUESTION, *FEW)
    base = workspace.recipe("generate", "latest", "--prompt", QUESTION, *FEW, "--base")
    untouched = workspace.recipe("generate", first, "--prompt", QUESTION, *FEW, "--base")
    assert base.out == below.out
    assert base.out != untouched.out
