"""What a result must reach before it is published: ``[gate]``, one rule a metric, such as ``">= 0.6"``."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import GateNotMet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PATTERN = r"^(>=|<=|>|<) *-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?( *\* *before)?$(?!\n)"
EXAMPLES = ('">= 0.6"', '"<= 0.5 * before"')
_RULE = re.compile(r"(>=|<=|>|<) *([^ *]+)( *\* *before)?")
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule.

    Attributes:
        key: as written: ``<instance>.<metric>``, or the instance alone where it has one metric.
        metric: ``<instance>.<metric>``.
        rule: as written.
    """

    key: str
    metric: str
    rule: str

    @property
    def instance(self) -> str:
        """The evaluation that measures it."""
        return self.metric.partition(".")[0]

    def judge(self, sides: Mapping[str, float]) -> dict[str, Any]:
        """The rule applied: ``metric``, ``rule``, the ``value`` after training, its ``limit``, whether it is ``met``.

        Args:
            sides: the metric ``before`` and ``after`` training.
        """
        comparison, number, relative = _parts(self.rule)
        limit = float(number) * (sides["before"] if relative else 1.0)
        value = sides["after"]
        # A number that is none is on no side of a limit.
        met = bool(_COMPARISONS[comparison](value, limit))
        return {"metric": self.metric, "rule": self.rule, "value": value, "limit": limit, "met": met}


def is_rule(text: object) -> bool:
    """Whether a value of ``[gate]`` is a rule."""
    return isinstance(text, str) and re.search(PATTERN, text) is not None


def judge(gates: Iterable[Gate], metrics: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Every rule applied to what was measured; see :meth:`Gate.judge`.

    Args:
        gates: the rules.
        metrics: ``<instance>.<metric>`` -> its values ``before`` and ``after``.
    """
    return [gate.judge(metrics[gate.metric]) for gate in gates]


def check_met(judged: Sequence[Mapping[str, Any]]) -> None:
    """Whether all rules are met.

    Raises:
        GateNotMet: with every rule that is not.
    """
    missed = [gate for gate in judged if not gate["met"]]
    if missed:
        raise GateNotMet(
            "; ".join(gate_words(gate) for gate in missed) + ". Nothing was published.",
            "What was computed is kept: change the recipe, or the rule in [gate], and run it again.",
        )


def check_measured(gates: Iterable[Gate], instance: str, metrics: Mapping[str, float]) -> None:
    """Whether an evaluation measures what the rules need of it; its values before training tell, hours earlier.

    Raises:
        GateNotMet: where it does not.
    """
    for gate in gates:
        name = gate.metric.partition(".")[2]
        if gate.instance == instance and name not in metrics:
            measured = ", ".join(metrics) or "nothing"
            raise GateNotMet(f"[gate] needs {gate.metric}, and it measures {measured}.", "Correct its name in [gate].")


def gate_words(gate: Mapping[str, Any]) -> str:
    """A judged rule in words: ``rouge.rougeL is 0.21, and must be >= 0.3``."""
    limit = f" (that is {_number(gate['limit'])})" if _parts(gate["rule"])[2] else ""
    link = "as it" if gate["met"] else "and"
    return f"{gate['metric']} is {_number(gate['value'])}, {link} must be {gate['rule']}{limit}"


def _number(value: float | str) -> str:
    """In a run record, a number that JSON cannot hold is text."""
    return value if isinstance(value, str) else f"{value:.4g}"


def _parts(rule: str) -> tuple[str, str, bool]:
    """Comparison, number, and whether that is a multiple of the value before training."""
    found = _RULE.fullmatch(rule)
    assert found is not None  # validation let it pass
    return found[1], found[2], found[3] is not None
