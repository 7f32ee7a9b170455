"""Three hundred mistakes in the shipped recipes, as people make them: each is refused at its line."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.unit.written import RECIPES, builtins

from recipe_engine.compose import apply
from recipe_engine.document import Document, KeyPath, parse
from recipe_engine.errors import InvalidRecipe
from recipe_engine.validate import validate

COUNT = 300
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,}\]#]+')
_NAME = re.compile(r'"?([A-Za-z0-9_-]+)"?')


@dataclass(frozen=True)
class Mistake:
    """A recipe with one mistake.

    Attributes:
        what: the kind of mistake, the recipe and the key.
        text: the whole file.
        file: its name; the suffix tells the syntax.
        line: where the mistake is.
    """

    what: str
    text: str
    file: str
    line: int


class Edited:
    """A recipe that is valid, in one syntax, and the places of its keys."""

    def __init__(self, text: str, name: str, syntax: str) -> None:
        self.text = text
        self.name = f"{name}.{syntax}"
        self.lines = text.split("\n")
        self.document: Document = parse(text.encode(), self.name, syntax=syntax)  # type: ignore[arg-type]

    def keys(self, depths: range, *, of: type | tuple[type, ...] = object) -> list[KeyPath]:
        """Paths of keys at those depths whose value is of that type; no array items, no names of data sets."""
        return [path for path in self.document.keys if len(path) in depths and isinstance(self.value(path), of)]

    def value(self, path: KeyPath) -> object:
        """The value at a path."""
        found: object = self.document.tree
        for part in path:
            found = found[part]  # type: ignore[index]
        return found

    def replaced(self, path: KeyPath, pattern: re.Pattern[str], new: Callable[[str], str], *, key: bool) -> Mistake:
        """The text with what stands at a key, or at its value, replaced."""
        place = self.document.key_position(path) if key else self.document.value_position(path)
        line = self.lines[place.line - 1]
        found = pattern.match(line, place.column - 1)
        assert found is not None, line
        changed = f"{line[: found.start()]}{new(found.group())}{line[found.end() :]}"
        lines = [*self.lines[: place.line - 1], changed, *self.lines[place.line :]]
        return Mistake(".".join(map(str, path)), "\n".join(lines), self.name, place.line)


def _typo(word: str) -> str:
    """Two letters changed places; where they are equal, one is lost."""
    quote = '"' if word.startswith('"') else ""
    name = word.strip('"')
    swapped = name[1] + name[0] + name[2:] if len(name) > 1 else f"{name}x"
    return f"{quote}{swapped if swapped != name else name[1:] + 'x'}{quote}"


_SCALARS = (str, int, float, bool)
_NUMBERS = (int, float)
Mutation = Callable[[Edited, random.Random], Mistake]


def typo_in_a_key(edited: Edited, chance: random.Random) -> Mistake:
    return edited.replaced(chance.choice(edited.keys(range(3, 4))), _NAME, _typo, key=True)


def typo_in_a_stage(edited: Edited, chance: random.Random) -> Mistake:
    stages = [path for path in edited.keys(range(1, 2)) if path[0] in ("load", "adapt", "train", "evaluate", "push")]
    if edited.name.endswith("json"):
        return edited.replaced(chance.choice(stages), _NAME, _typo, key=True)
    path = chance.choice([path for path in edited.keys(range(2, 3)) if path[:1] in stages])
    place = edited.document.key_position(path)
    line = edited.lines[place.line - 1]
    lines = [*edited.lines]
    lines[place.line - 1] = line.replace(f"[{path[0]}.", f"[{_typo(str(path[0]))}.", 1)
    return Mistake(str(path[0]), "\n".join(lines), edited.name, place.line)


def typo_in_a_method(edited: Edited, chance: random.Random) -> Mistake:
    methods = [path for path in edited.keys(range(2, 3)) if path[0] in ("load", "adapt", "train", "evaluate", "push")]
    return edited.replaced(chance.choice(methods), _NAME, _typo, key=True)


def wrong_type(edited: Edited, chance: random.Random) -> Mistake:
    path = chance.choice(edited.keys(range(3, 4), of=_SCALARS))
    return edited.replaced(path, _VALUE, lambda _: "[[1]]", key=False)


def out_of_range(edited: Edited, chance: random.Random) -> Mistake:
    numbers = [path for path in edited.keys(range(3, 4), of=_NUMBERS) if not isinstance(edited.value(path), bool)]
    return edited.replaced(chance.choice(numbers), _VALUE, lambda _: "-1000000", key=False)


def not_a_number(edited: Edited, chance: random.Random) -> Mistake:
    word = "NaN" if edited.name.endswith("json") else "nan"
    path = chance.choice(edited.keys(range(3, 4), of=_NUMBERS))
    return edited.replaced(path, _VALUE, lambda _: word, key=False)


def given_twice(edited: Edited, chance: random.Random) -> Mistake:
    path = chance.choice(edited.keys(range(3, 4), of=_SCALARS))
    place = edited.document.key_position(path)
    line = edited.lines[place.line - 1]
    again = line if edited.name.endswith("toml") or line.rstrip().endswith(",") else None
    lines = [*edited.lines]
    if again is None:  # the last key of a JSON object has no comma
        lines[place.line - 1] = f"{line},"
        again = line
    lines.insert(place.line, again)
    return Mistake(".".join(map(str, path)), "\n".join(lines), edited.name, place.line + 1)


def cut_string(edited: Edited, chance: random.Random) -> Mistake:
    path = chance.choice(edited.keys(range(2, 4), of=str))
    return edited.replaced(path, _VALUE, lambda value: value[:-1], key=False)


MUTATIONS: tuple[Mutation, ...] = (
    *(typo_in_a_key, typo_in_a_stage, typo_in_a_method, wrong_type),
    *(out_of_range, not_a_number, given_twice, cut_string),
)


def recipes() -> list[Edited]:
    """Every shipped recipe, as TOML and as JSON."""
    found = []
    for path in sorted(RECIPES.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        found.append(Edited(text, path.stem, "toml"))
        tree = found[-1].document.tree
        found.append(Edited(json.dumps(tree, indent=2, ensure_ascii=False), path.stem, "json"))
    return found


def mistakes() -> Iterator[Mistake]:
    chance, written = random.Random(0), recipes()
    seen: set[tuple[str, str]] = set()
    while len(seen) < COUNT:
        edited, mutation = chance.choice(written), chance.choice(MUTATIONS)
        mistake = mutation(edited, chance)
        key = (mistake.file, mistake.text)
        if key not in seen:
            seen.add(key)
            yield Mistake(f"{mutation.__name__}: {mistake.what}", mistake.text, mistake.file, mistake.line)


def refused_at(mistake: Mistake) -> set[int]:
    """The lines of the problems that are told; none where the recipe is taken as valid."""
    try:
        syntax = mistake.file.rpartition(".")[2]
        # Beside the others, which some of them build on.
        file = str(RECIPES / mistake.file)
        document = parse(mistake.text.encode(), file, syntax=syntax)  # type: ignore[arg-type]
        validate(apply(document, ()), builtins())
    except InvalidRecipe as refused:
        return {problem.line for problem in refused.problems}
    return set()


def test_three_hundred_mistakes_are_refused_at_their_lines() -> None:
    found = [(mistake, refused_at(mistake)) for mistake in mistakes()]
    missed = [f"{mistake.file}:{mistake.line}: {mistake.what}: {at}" for mistake, at in found if mistake.line not in at]
    assert len(found) == COUNT
    assert missed == []


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_kind_of_mistake_is_among_them(mutation: Mutation) -> None:
    assert sum(mistake.what.startswith(mutation.__name__) for mistake in mistakes()) >= 20
