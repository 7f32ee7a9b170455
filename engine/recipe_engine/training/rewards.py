"""The rewards of a training at work: opened once, asked once a step, added up."""

from __future__ import annotations

import math
import signal
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed
from recipe_engine.lazy import load_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recipe_engine.contract import Answer, GivenReward, RewardCode, StageRequest

_SHOWN = 200  # characters of an answer in an error message


@dataclass(frozen=True, slots=True)
class Scores:
    """What the rewards say of some answers.

    Attributes:
        total: the weighted sum, one number an answer: what counts.
        parts: name of each reward -> what it said, without its weight.
    """

    total: list[float]
    parts: dict[str, list[float]]


def open_rewards(request: StageRequest) -> Callable[[Sequence[Answer]], Scores]:
    """Open the rewards of a training.

    Args:
        request: of the training, whose options have ``reward``.

    Returns:
        A function that judges answers. It raises :class:`~recipe_engine.errors.StageFailed`, with the reward's name,
        where one raises, takes too long or gives something else than a finite number for each answer.
    """
    opened = [(given, _opened(given)) for given in request.rewards]

    def score(answers: Sequence[Answer]) -> Scores:
        parts = {given.name: _judged(given, code, answers) for given, code in opened}
        total = [0.0] * len(answers)
        for given, _ in opened:
            total = [sum_ + given.weight * part for sum_, part in zip(total, parts[given.name], strict=True)]
        return Scores(total, parts)

    return score


def _opened(given: GivenReward) -> RewardCode:
    code: RewardCode = load_symbol(given.implementation)()
    with _failures_named(given):
        code.open(given.request)
    return code


def _judged(given: GivenReward, code: RewardCode, answers: Sequence[Answer]) -> list[float]:
    """What one reward says, checked."""
    if not answers:
        return []
    with _failures_named(given), _time_limit(given):
        said = list(code.score(answers))
    if len(said) != len(answers):
        raise _failure(given, f"gave {len(said)} scores for {len(answers)} answers")
    return [_number(given, value, answer) for value, answer in zip(said, answers, strict=True)]


def _number(given: GivenReward, value: Any, answer: Answer) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number):
        return number
    shown = answer.text if len(answer.text) <= _SHOWN else f"{answer.text[:_SHOWN]}…"
    raise _failure(given, f"gave {value!r} for an answer to the prompt of row {answer.row}: {shown!r}")


def _failure(given: GivenReward, what: str) -> StageFailed:
    return StageFailed(f"train: the reward {given.name} {what}.", _hint(given))


def _hint(given: GivenReward) -> str:
    if given.plugin:
        return f"This is a bug of the plugin {given.plugin}, not of the recipe."
    return "A reward gives a finite number for every text, the empty one too."


@contextmanager
def _failures_named(given: GivenReward) -> Iterator[None]:
    """What a plugin's reward raises and no user can act on names the reward and keeps its traceback.

    What is built in has the engine's bugs, and memory that is used up is nobody's.
    """
    try:
        yield
    except _TimeUp:
        hint = "Make it faster, or raise its timeout."
        raise StageFailed(f"train: the reward {given.name} took longer than {given.timeout:g} seconds.", hint) from None
    except Exception as error:
        if not given.plugin or hasattr(error, "exit_code") or isinstance(error, MemoryError | OSError):
            raise
        failed = StageFailed(f"train: the reward {given.name} raised {type(error).__name__}: {error}.", _hint(given))
        failed.traceback = traceback.format_exc()  # type: ignore[attr-defined]
        raise failed from error


class _TimeUp(BaseException):  # what a reward's own code catches is an Exception
    pass


@contextmanager
def _time_limit(given: GivenReward) -> Iterator[None]:
    """End the block after the reward's time.

    A signal interrupts waiting and Python code in this very thread, so that numbers do not depend on a limit. Outside
    of the main thread, which has no signals, there is none.
    """
    if given.timeout is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def time_up(_signal: int, _frame: Any) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, time_up)
    signal.setitimer(signal.ITIMER_REAL, given.timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
