"""A run as people see it: on a terminal, in a file, without colours."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recipe_engine.cli import display
from recipe_engine.cli.display import Display, print_result

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def node(name: str, stage: str, status: str = "ran", **more: Any) -> dict[str, Any]:
    instance = name.partition(".")[2].partition("@")[0] or stage
    common = {"id": name, "stage": stage, "instance": instance, "method": instance, "status": status, "key": None}
    return common | {"seconds": 1.5, "artifact": None, "metrics": {}, "facts": {}} | more


def finished(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "node_finished", "node": content["id"], **content}


def result(nodes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    common = {"type": "result", "run": "20261124-073637-cd86", "name": "tiny", "status": "succeeded", "error": None}
    return (
        common
        | {"seconds": 12.3, "nodes": nodes, "metrics": {}, "comparisons": {}, "gates": [], "efficiency": {}}
        | more
    )


def events(folder: Path) -> list[dict[str, Any]]:
    """A run with everything in it that the display shows."""
    answers = '{"question": "What is [bold]1[/] + 1?", "reference": "2", "answer": "%s", "row": 1}\n'
    evaluations = []
    for side, answer in (("base", "eleven"), ("result", "two")):
        artifact = folder / side
        artifact.mkdir()
        (artifact / "answers.jsonl").write_text(answers % answer)
        found = {"digest": "sha256:" + "0" * 64, "path": str(artifact)}
        evaluations.append(node(f"evaluate.samples@{side}", "evaluate", artifact=found))
    train = node("train", "train", metrics={"loss": 0.25})
    load = node("load", "load", "cached")
    push = node("push.folder", "push", facts={"folder": "/srv/[x]/export"})
    efficiency = {
        "total_parameters": 1000,
        "trainable_parameters": 50,
        "trainable_ratio": 0.05,
        "tokens_per_second": 123.4,
        "wall_seconds": 9.0,
        "cpu_seconds": 8.0,
        "peak_memory_bytes": 2**30,
    }
    metrics = {"perplexity.perplexity": {"before": 20.5, "after": 3.25}, "perplexity.loss": {"before": "nan"}}
    metrics |= {"f1.f1": {"before": 0.25, "after": 0.5}, "one.f1": {"before": 0, "after": 1}}
    change = {"difference": 0.25, "low": -0.0625, "high": 0.375, "wins": 12, "losses": 3, "ties": 45}
    comparisons = {"f1.f1": change, "one.f1": change | {"difference": 1.0, "low": None, "high": None}}
    comparisons["perplexity.loss"] = change | {"difference": "nan", "low": "nan", "high": "nan"}
    return [
        {"type": "run_started", "run": "20261124-073637-cd86", "name": "tiny", "nodes": []},
        finished(load),
        {"type": "node_started", "node": "train", "why": "learning_rate 0.001 -> 0.0005"},
        {"type": "node_message", "node": "train", "text": "going on from [step] 4"},
        {"type": "node_progress", "node": "train", "done": 30, "total": 120, "unit": "steps"},
        {"type": "node_metrics", "node": "train", "step": 30, "values": {"loss": 0.5}},
        {"type": "node_progress", "node": "train", "done": 60, "total": 120, "unit": "steps"},
        finished(train),
        *map(finished, evaluations),
        {"type": "node_started", "node": "push.folder", "why": "the target does not hold this yet"},
        finished(push),
        result([load, train, *evaluations, push], metrics=metrics, comparisons=comparisons, efficiency=efficiency),
    ]


def shown(console: Console, folder: Path) -> str:
    with Display(console) as screen:
        for event in events(folder):
            screen.event(event)
            if event["type"] in ("node_progress", "node_metrics"):
                time.sleep(0.15)  # a refresh at least
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def terminal(**more: Any) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False, **more)


def test_where_there_is_a_reward_its_score_is_shown() -> None:
    console = terminal()
    with Display(console) as screen:
        screen.event({"type": "node_started", "node": "train", "why": "new"})
        for step in (1, 2):
            screen.event(
                {"type": "node_metrics", "node": "train", "step": step, "values": {"loss": 7.5, "score": 0.25}}
            )
            screen.event({"type": "node_progress", "node": "train", "done": step, "total": 2, "unit": "steps"})
            time.sleep(0.15)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "score 0.250" in text
    assert "7.5" not in text


def test_a_terminal_has_one_live_entry_a_node(tmp_path: Path) -> None:
    text = shown(terminal(color_system="truecolor"), tmp_path)
    plain = ESCAPE.sub("", text)
    assert "\x1b[32m✓" in text
    # The bar: amount, rate, loss and the time that remains.
    bars = [line for line in re.split(r"[\r\n]", plain) if "/120 steps" in line]
    assert any(re.search(r"train .* 60/120 steps  [\d.]+[kM]?/s", line) for line in bars)
    assert any(re.search(r"60/120 steps .* loss 0\.500 0:00:\d\d", line) for line in bars)
    # The bar is taken away, and what stays of each node is one line.
    for name in ("load", "train", "evaluate.samples@base", "evaluate.samples@result", "push.folder"):
        lasting = [line for line in plain.splitlines() if re.search(rf"[✓=] {re.escape(name)} ", line)]
        assert len(lasting) == 1, name
    assert "\x1b[?25l" in text  # the cursor is hidden for the time of a bar,
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # and shown again


def test_a_run_that_stops_gives_the_cursor_back() -> None:
    console = terminal()
    with Display(console) as screen:
        screen.event({"type": "node_started", "node": "train", "why": "never run"})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_a_file_has_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.2)
    text = shown(Console(file=io.StringIO(), width=1000, highlight=False), tmp_path)
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert [line for line in lines if not line.strip()] == []
    assert [line for line in lines if line != line.rstrip()] == []
    progress = lines.pop(next(number for number, line in enumerate(lines) if "120 steps" in line))
    assert re.fullmatch(r"train: 60/120 steps  \d+(\.\d)?/s, \d+ s left", progress)
    assert lines == [
        "tiny  run 20261124-073637-cd86",
        "= load                          from the registry",
        "train: started (learning_rate 0.001 -> 0.0005)",
        "train: going on from [step] 4",
        "✓ train                                     1.5 s  loss 0.25",
        "✓ evaluate.samples@base                     1.5 s",
        "✓ evaluate.samples@result                   1.5 s",
        "push.folder: started (the target does not hold this yet)",
        "✓ push.folder                               1.5 s",
        "metric                 before  after  change, 95 % interval     better/worse/equal",
        "perplexity.perplexity  20.5    3.25",
        "perplexity.loss        nan            nan (nan … nan)           12/3/45",
        "f1.f1                  0.25    0.5    +0.25 (-0.0625 … +0.375)  12/3/45",
        "one.f1                 0       1      +1                        12/3/45",
        "What is [bold]1[/] + 1?",
        "  before eleven",
        "  after  two",
        "trained 50 of 1,000 parameters (5.00%); 123 tokens/s, 9 s, 8 CPU seconds, 1.00 GiB at most",
        "exported to /srv/[x]/export",
        "succeeded in 12.3 s: 1 of 5 nodes were cached; run 20261124-073637-cd86",
    ]


def test_nothing_is_foretold_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0)
    console = Console(file=io.StringIO(), width=1000, highlight=False)
    with Display(console) as screen:
        screen.event({"type": "node_started", "node": "train", "why": "never run"})
        screen.event({"type": "node_progress", "node": "train", "done": 0, "total": 88, "unit": "steps"})
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1:] == ["train: 0/88 steps"]


def test_what_was_done_before_a_stage_went_on_says_nothing_of_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps in ten seconds: the other 56 take 140."""
    console = Console(file=io.StringIO(), width=1000, highlight=False)
    with Display(console) as screen:
        for second, done in ((100.0, None), (105.0, 60), (115.0, 64)):
            monkeypatch.setattr(time, "monotonic", lambda second=second: second)
            node = {"node": "train", "why": "it was interrupted"}
            if done is None:
                screen.event({"type": "node_started", **node})
            else:
                screen.event({"type": "node_progress", "done": done, "total": 120, "unit": "steps", **node})
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1:] == ["train: 64/120 steps  0.4/s, 140 s left"]


def test_progress_lines_in_a_file_are_rare(tmp_path: Path) -> None:
    text = shown(Console(file=io.StringIO(), width=1000, highlight=False), tmp_path)
    assert "120 steps" not in text


def test_no_color_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(terminal(color_system="truecolor"), tmp_path)
    colours = [code for code in re.findall(r"\x1b\[([0-9;]*)m", text) if re.search(r"\b(3[0-7]|9[0-7]|38|48)\b", code)]
    assert colours == []
    assert "✓ train" in ESCAPE.sub("", text)


def test_a_failed_node() -> None:
    console = Console(file=io.StringIO(), width=1000)
    screen = Display(console)
    screen.event({"type": "node_failed", "node": "train", "error": {}})
    screen.event(result([], status="failed"))
    assert console.file.getvalue() == "✗ train\n"  # type: ignore[attr-defined]


def test_a_run_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result([node("load", "load")], status="running", seconds=None))
    assert capsys.readouterr().out == "running: 0 of 1 nodes were cached; run 20261124-073637-cd86\n"


def test_every_node_taken_from_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result([node("load", "load", "cached")]))
    assert "succeeded in 12.3 s: every node was taken from the registry" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3, "3"), (3.25, "3.2"), (99.4, "99"), (9999, "9999"), (12345, "12.3k"), (2.5e6, "2.5M"), (7e9, "7.0G")],
)
def test_amounts(value: float, text: str) -> None:
    assert display._amount(value) == text


def test_a_long_answer_is_one_line_in_the_terminal(tmp_path: Path) -> None:
    content = events(tmp_path)[-1]
    (tmp_path / "base" / "answers.jsonl").write_text(
        '{"question": "Why?", "reference": "", "row": 1, "answer": "' + "because\\n" * 40 + '"}\n'
    )
    out = io.StringIO()

    print_result(content, Console(file=out, width=200))

    line = next(line for line in out.getvalue().splitlines() if line.startswith("  before"))
    assert line.endswith("because …")
    assert len(line) < 125


def test_what_a_model_says_does_not_steer_the_terminal(tmp_path: Path) -> None:
    content = events(tmp_path)[-1]
    said = json.dumps({"question": "Q\x9b2J", "reference": "", "row": 1, "answer": "\x1b]0;owned\x07 héllo 👩‍🚀"})
    (tmp_path / "base" / "answers.jsonl").write_text(said + "\n")
    out = io.StringIO()

    print_result(content, Console(file=out, width=200))

    assert "  before �]0;owned� héllo 👩‍🚀" in out.getvalue()
    assert not set("\x1b\x07\x9b") & set(out.getvalue())
