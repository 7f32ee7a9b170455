"""A run as people watch it: one live entry a node on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from recipe_engine.cli.common import printable
from recipe_engine.gates import gate_words
from recipe_engine.methods.answers import ANSWERS_FILE, read_answers
from recipe_engine.report.result import CHANGE_COLUMNS, change_words, rows_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECONDS_BETWEEN_LINES = 10.0
_SAMPLES = 3
_SAMPLE_WIDTH = 110
_NO_WRAP = 1000
_MARKS = {"ran": "[green]✓[/]", "cached": "[cyan]=[/]"}


class Display:
    """Shows the events of :func:`recipe_engine.execute.run`.

    Args:
        console: where; standard output by default.
        to_stderr: on standard error, where standard output is for a program.
    """

    def __init__(self, console: Console | None = None, *, to_stderr: bool = False) -> None:
        self._console = console or _console(stderr=to_stderr)
        self._live = self._console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[node]:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._first: tuple[float, float] | None = None  # what was done before, of a stage that goes on, and when it did

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the live part off the terminal."""
        if self._live:
            self._progress.stop()

    def event(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        handler = getattr(self, f"_on_{event['type']}", None)
        if handler is not None:
            handler(event)

    def _on_run_started(self, event: Mapping[str, Any]) -> None:
        self._console.print(f"[bold]{event['name']}[/]  run {event['run']}")

    def _on_node_started(self, event: Mapping[str, Any]) -> None:
        self._last_line = time.monotonic()
        self._first = None
        if self._live:
            self._progress.start()
            self._task = self._progress.add_task("", total=None, node=event["node"], amount="", loss="")
        else:
            self._console.print(f"{event['node']}: started ({event['why']})", markup=False)

    def _on_node_progress(self, event: Mapping[str, Any]) -> None:
        done, total, now = event["done"], event["total"], time.monotonic()
        before, since = self._first = self._first or (done, now)
        rate = (done - before) / max(now - since, 1e-6)
        amount = f"{_amount(done)}/{_amount(total)} {event['unit']}"
        if rate:
            amount += f"  {_amount(rate)}/s"
        if self._live and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, amount=amount)
        elif not self._live and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            estimate = f", {(total - done) / rate:.0f} s left" if rate else ""
            self._console.print(f"{event['node']}: {amount}{estimate}", markup=False)

    def _on_node_metrics(self, event: Mapping[str, Any]) -> None:
        values = event["values"]
        name = "score" if "score" in values else "loss"  # where there is a reward, its loss says little
        if self._live and self._task is not None and name in values:
            self._progress.update(self._task, loss=f"{name} {values[name]:.3f}")

    def _on_node_message(self, event: Mapping[str, Any]) -> None:
        self._console.print(f"{event['node']}: {event['text']}", markup=False)

    def _on_node_finished(self, event: Mapping[str, Any]) -> None:
        self._end_task()
        shown = "from the registry" if event["status"] == "cached" else f"{event['seconds']:.1f} s"
        if event["stage"] == "push" and event["status"] == "cached":
            shown = "there already"
        numbers = "  ".join(f"{name} {_number(value)}" for name, value in event["metrics"].items())
        line = f"{_MARKS[event['status']]} {event['node']:<28} {shown:>18}"
        self._console.print(f"{line}  [dim]{numbers}[/]" if numbers else line)

    def _on_node_failed(self, event: Mapping[str, Any]) -> None:
        self._end_task()
        self._console.print(f"[red]✗[/] {event['node']}")

    def _on_result(self, event: Mapping[str, Any]) -> None:
        self.close()
        if event["status"] == "succeeded":
            print_result(event, self._console)
        else:
            _print_gates(event["gates"], self._console)

    def _end_task(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self._progress.stop()


def _console(*, stderr: bool = False) -> Console:
    """Standard output; where it is no terminal, lines keep their length, for grep."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=_NO_WRAP)


def print_result(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Metrics before and after, samples, cost, and where things are."""
    console = console or _console()
    if result["metrics"]:
        _print_table(_metrics_table(result["metrics"], result["comparisons"]), console)
    _print_gates(result["gates"], console)
    _print_samples(result["nodes"], console)
    _print_cost(result["efficiency"], console)
    for node in result["nodes"]:
        if "folder" in node["facts"]:
            console.print(f"exported to {_near(Path(node['facts']['folder']))}", markup=False)
        if "address" in node["facts"]:
            console.print(f"pushed to {node['facts']['address']}", markup=False)
    cached = sum(node["status"] == "cached" for node in result["nodes"])
    total = len(result["nodes"])
    taken = "every node was taken from the registry" if cached == total else f"{cached} of {total} nodes were cached"
    seconds = f" in {result['seconds']:.1f} s" if result["seconds"] is not None else ""
    console.print(f"[bold]{result['status']}[/]{seconds}: {taken}; run {result['run']}")


def _near(path: Path) -> Path:
    """The path from the current folder, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _metrics_table(metrics: Mapping[str, Mapping[str, float]], comparisons: Mapping[str, Mapping[str, Any]]) -> Table:
    compared = CHANGE_COLUMNS if comparisons else ()
    table = Table("metric", "before", "after", *compared, box=None, pad_edge=False)
    for name, sides in metrics.items():
        values = [_number(sides[side]) if side in sides else "" for side in ("before", "after")]
        found = comparisons.get(name)
        table.add_row(name, *values, *([change_words(found), rows_words(found)] if found else []))
    return table


def _print_gates(gates: Iterable[Mapping[str, Any]], console: Console) -> None:
    for gate in gates:
        mark = "[green]✓[/]" if gate["met"] else "[red]✗[/]"
        console.print(f"{mark} gate: {gate_words(gate)}")


def _print_samples(nodes: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Answers before and after; of several evaluations, those of the one that was made to be read: the fewest."""
    answers: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for node in nodes:
        folder = Path(node["artifact"]["path"]) if node["stage"] == "evaluate" and node["artifact"] else None
        if folder is not None and (folder / ANSWERS_FILE).exists():
            side = "before" if node["id"].endswith("@base") else "after"
            answers.setdefault(node["instance"], {})[side] = read_answers(folder)
    if not answers:
        return
    sides = min(answers.values(), key=lambda found: len(next(iter(found.values()))))
    for number, row in enumerate(next(iter(sides.values()))[:_SAMPLES]):
        _print_gap(console)
        console.print(printable(row["question"]), style="bold", markup=False)
        for side, rows in sides.items():
            answer = shorten(printable(rows[number]["answer"]), _SAMPLE_WIDTH, placeholder=" …")
            console.print(f"  {side:<7}{answer}".rstrip(), markup=False)
    _print_gap(console)


def _print_gap(console: Console) -> None:
    """An empty line for the eye; in a file or a pipe there are none."""
    if console.is_terminal:
        console.print()


def _print_table(table: Table, console: Console) -> None:
    with console.capture() as rendered:
        console.print(table)
    for line in rendered.get().splitlines():
        console.file.write(line.rstrip() + "\n")


def _number(value: float | str) -> str:
    """In a run record, a number that JSON cannot hold is text."""
    return value if isinstance(value, str) else f"{value:.4g}"


def _print_cost(efficiency: Mapping[str, Any], console: Console) -> None:
    if efficiency:
        console.print(
            f"trained {efficiency['trainable_parameters']:,} of {efficiency['total_parameters']:,} parameters "
            f"({efficiency['trainable_ratio']:.2%}); {efficiency['tokens_per_second']:.0f} tokens/s, "
            f"{efficiency['wall_seconds']:.0f} s, {efficiency['cpu_seconds']:.0f} CPU seconds, "
            f"{efficiency['peak_memory_bytes'] / 2**30:.2f} GiB at most"
        )


def _amount(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
