"""Options: what a dataclass declares, and its way into a table and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from recipe_engine.options import build, fields_of, members, non_default, option, to_table


@dataclass(frozen=True)
class Inner:
    """Nested options."""

    left: str = option("Left.", default="l")
    right: str = option("Right.", default="r")


@dataclass(frozen=True)
class Everything:
    """Each type that an option can have."""

    flag: bool = option("Flag.")
    count: int = option("Count.", default=3, minimum=1, unit="rows")
    rate: float = option("Rate.", default=0.5)
    text: str = option("Text.", default="t")
    choice: Literal["a", "b"] = option("Choice.", default="a")
    some: tuple[float, ...] = option("List.", default=())
    either: Literal["all"] | tuple[str, ...] = option("Either.", default="all")
    perhaps: int | None = option("Perhaps.", default=None)
    inner: Inner = option("Inner.", default=Inner())
    place: str = option("Place.", default="here", in_key=False)


def test_fields_keep_their_order_type_default_and_bounds() -> None:
    fields = fields_of(Everything)
    assert [field.name for field in fields][:3] == ["flag", "count", "rate"]
    count = fields[1]
    assert (count.type, count.default, count.about.minimum, count.about.unit) == (int, 3, 1, "rows")
    assert [field.name for field in fields if field.required] == ["flag"]


def test_build_converts_what_toml_and_json_spell_differently() -> None:
    table = {"flag": True, "count": 4.0, "rate": 2, "some": [1, 2.5], "either": ["q"], "inner": {"left": "L"}}
    built = build(Everything, table)
    assert built == Everything(flag=True, count=4, rate=2.0, some=(1.0, 2.5), either=("q",), inner=Inner(left="L"))
    assert type(built.count) is int
    assert type(built.rate) is float
    assert type(built.some[0]) is float


def test_build_leaves_truth_values_alone() -> None:
    @dataclass(frozen=True)
    class Either:
        value: float | bool = option("Either.")

    assert build(Either, {"value": True}).value is True


def test_a_table_says_every_default_but_none() -> None:
    table = to_table(Everything(flag=False, either=("q", "v")))
    assert table == {
        "flag": False,
        "count": 3,
        "rate": 0.5,
        "text": "t",
        "choice": "a",
        "some": [],
        "either": ["q", "v"],
        "inner": {"left": "l", "right": "r"},
        "place": "here",
    }
    assert build(Everything, table) == Everything(flag=False, either=("q", "v"))


def test_only_what_differs_and_matters_enters_the_key() -> None:
    assert non_default(Everything(flag=True)) == {"flag": True}  # required: it has no default to differ from
    changed = Everything(flag=True, count=3, rate=0.25, inner=Inner(left="L"), some=(1.0,), place="there")
    assert non_default(changed) == {
        "flag": True,
        "rate": 0.25,
        "some": [1.0],
        "inner": {"left": "L", "right": "r"},
    }


def test_members_of_unions() -> None:
    assert members(int | None) == (int,)
    assert members(Literal["all"] | tuple[str, ...]) == (Literal["all"], tuple[str, ...])
    assert members(int) == (int,)


@dataclass
class Thawed:
    count: int = option("Count.", default=1)


@dataclass(frozen=True)
class Undeclared:
    count: int = 1


class Plain:
    count: int = 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Thawed, "Thawed must be a frozen dataclass"),
        (Plain, "Plain must be a frozen dataclass"),
        (Undeclared, r"Undeclared.count must be declared with option\(...\)"),
    ],
)
def test_wrong_declarations_name_the_class(wrong: type[Any], says: str) -> None:
    with pytest.raises(TypeError, match=f"^{says}$"):
        fields_of(wrong)


def test_an_unknown_bound_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="minimun"):
        option("Count.", default=1, minimun=1)
