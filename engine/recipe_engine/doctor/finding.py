"""What a probe says, and how probes are asked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Probe = Callable[[], Sequence["Finding"]]
    """Looks at one thing."""

State = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the thing, such as ``disk``.
        state: ``problem`` stops the recipe, ``warning`` stops some recipes, ``unknown`` could not be found out.
        text: what there is, in one line.
        mend: what to do about it, with the command; ``""`` where there is nothing to do.
    """

    name: str
    state: State
    text: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {"name": self.name, "state": self.state, "text": self.text, "mend": self.mend or None}


def ask_all(probes: Mapping[str, Probe], seconds: float) -> list[Finding]:
    """Ask all probes at once, and wait for no one longer than the deadline.

    Args:
        probes: by the name that a finding has where its probe found none.
        seconds: from now until the deadline.

    Returns:
        The findings in the order of the probes.
    """
    deadline = time.monotonic() + seconds
    asked = {name: _asked(probe) for name, probe in probes.items()}
    return [
        finding
        for name, answer in asked.items()
        for finding in _answer(name, answer, max(deadline - time.monotonic(), 0), seconds)
    ]


def _asked(probe: Probe) -> Future[Sequence[Finding]]:
    answer: Future[Sequence[Finding]] = Future()

    def ask() -> None:
        try:
            answer.set_result(probe())
        except Exception as error:  # noqa: BLE001 -- whatever a probe meets is a finding, never the command's end
            answer.set_exception(error)

    # A daemon: an executor would wait at exit for a probe that hangs on a file system that is gone.
    threading.Thread(target=ask, daemon=True).start()
    return answer


def _answer(name: str, answer: Future[Sequence[Finding]], patience: float, seconds: float) -> Sequence[Finding]:
    try:
        error = answer.exception(patience)
    except OutOfTime:
        return [Finding(name, "unknown", f"no answer within {seconds:g} seconds")]
    if error is None:
        return answer.result()
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return [Finding(name, "unknown", f"it could not be looked at ({reason})")]
