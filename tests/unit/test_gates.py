"""Rules of ``[gate]``: what they compare, what they say, where they stand in the graph."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.unit.written import SMALL, builtins, recipe_of

from recipe_engine.errors import GateNotMet
from recipe_engine.gates import Gate, check_measured, check_met, gate_words, is_rule, judge
from recipe_engine.graph import build_graph
from recipe_engine.lazy import load_symbol

GATED = SMALL + '[gate]\nexact_match = ">= 0.6"\n'


def judged(rule: str, before: float = 10.0, after: float = 4.0) -> dict[str, Any]:
    [found] = judge([Gate("m.x", "m.x", rule)], {"m.x": {"before": before, "after": after}})
    return found


@pytest.mark.parametrize(
    ("rule", "limit", "met"),
    [
        (">= 4", 4, True),
        ("> 4", 4, False),
        ("<= 4", 4, True),
        ("<4", 4, False),
        ("< 4.5e0", 4.5, True),
        ("> -1", -1, True),
        ("<= 0.5 * before", 5, True),
        ("<=0.4*before", 4, True),
        ("< 0.4 * before", 4, False),
        (">= 1.0 * before", 10, False),
    ],
)
def test_a_rule_compares_the_value_after_training(rule: str, limit: float, met: bool) -> None:
    assert is_rule(rule)
    assert judged(rule) == {"metric": "m.x", "rule": rule, "value": 4.0, "limit": limit, "met": met}


@pytest.mark.parametrize("rule", ["", "4", "= 4", "== 4", ">= .5", ">= 4 before", ">= before", ">= inf", ">= nan", 4])
def test_what_is_no_rule(rule: object) -> None:
    assert not is_rule(rule)


@pytest.mark.parametrize("rule", ["> 0", ">= 0", "< 0", "<= 0"])
def test_a_value_that_is_no_number_meets_no_rule(rule: str) -> None:
    assert not judged(rule, after=math.nan)["met"]


def test_all_rules_that_are_not_met_are_told() -> None:
    good, bad, relative = judged(">= 1"), judged(">= 5"), judged("<= 0.25 * before")
    check_met([good])
    with pytest.raises(GateNotMet) as refused:
        check_met([good, bad, relative])
    assert refused.value.message == (
        "m.x is 4, and must be >= 5; m.x is 4, and must be <= 0.25 * before (that is 2.5). Nothing was published."
    )
    assert gate_words(good) == "m.x is 4, as it must be >= 1"
    assert gate_words(bad | {"value": "nan"}) == "m.x is nan, and must be >= 5"


def test_a_metric_that_nobody_measures_is_told_before_training() -> None:
    gates = [Gate("mine.score", "mine.score", "> 1"), Gate("other.x", "other.x", "> 1")]
    check_measured(gates, "mine", {"score": 3.0})
    with pytest.raises(GateNotMet, match=r"\[gate\] needs mine\.score, and it measures points\."):
        check_measured(gates, "mine", {"points": 3.0})


def test_the_gate_stands_between_the_evaluations_and_the_pushes() -> None:
    nodes = {node.id: node for node in build_graph(recipe_of(GATED), builtins())}
    assert list(nodes)[-2:] == ["gate", "push.folder"]
    assert set(nodes["gate"].inputs.values()) == {"evaluate.exact_match@base", "evaluate.exact_match@result"}
    assert nodes["push.folder"].inputs["gate"] == "gate"
    assert "gate" not in [node.id for node in build_graph(recipe_of(SMALL), builtins())]


@pytest.mark.parametrize("name", ["exact_match", "f1", "bleu", "chrf", "rouge", "json_valid"])
def test_metrics_are_named_as_they_are_measured(name: str) -> None:
    method = builtins().methods["evaluate", name].descriptor
    code = load_symbol(method.implementation)()
    assert method.metrics == code.measure(method.options()).names
