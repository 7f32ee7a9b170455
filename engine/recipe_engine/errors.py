"""Everything that can go wrong for a reason that a user can act on.

::

    RecipeError                     the base; never raised itself
    ├── InvalidRecipe        exit 2   the recipe has problems, all of them listed
    ├── InvalidArguments     exit 2   the command line cannot be carried out as written
    ├── UnresolvedInput      exit 3   a model, data set or file could not be had, or is not what was pinned
    ├── UnfitEnvironment     exit 4   this machine or installation cannot do it
    ├── StageFailed          exit 5   a stage could not finish
    │   └── DataRejected     exit 5   the data gate found rows that must not be trained on
    ├── VerificationFailed   exit 6   what was written is not what was meant
    │   └── PushUnverified   exit 6   it was published, and could not be shown to be what was meant
    ├── GateNotMet           exit 7   the result is not as good as the recipe demands
    └── Interrupted        exit 130   the user said stop

``recipe_registry.RegistryError`` (exit 8) belongs to the registry, which knows nothing of this module. Any other
exception is a bug: it keeps its traceback and ends in exit 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PROBLEMS_SHOWN = 50


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a recipe or a data file, and where; its text is one line, whatever the file holds.

    Attributes:
        file: the file as the user named it.
        line: 1-based; 0 where the problem has no place in the file (a whole-file problem, an override).
        column: 1-based, counted in characters.
        path: dotted path of the key, ``""`` for the whole document.
        message: what was expected and what was found.
        hint: what to do about it, ``""`` where nothing useful can be said.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.path}: " if self.path else ""
        hint = f" {self.hint}" if self.hint else ""
        text = f"{place}: {subject}{self.message}{hint}"
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

    def to_json(self) -> dict[str, Any]:
        """The form that ``--format json`` prints."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }


class RecipeError(Exception):
    """Base of every error that is not a bug.

    Args:
        message: what happened, in one sentence.
        hint: what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidRecipe(RecipeError):
    """The recipe has problems: all of them are in ``problems``, each once, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> list[str]:
        shown = [str(problem) for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        hidden = len(self.problems) - len(shown)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        shown.append(f"{count}, the first {len(shown)} shown" if hidden else count)
        return shown


class InvalidArguments(RecipeError):
    """The command line names something that does not exist or does not fit."""

    exit_code = 2


class UnresolvedInput(RecipeError):
    """A model, a data set or a file could not be had, or is not what the recipe pins."""

    exit_code = 3


class UnfitEnvironment(RecipeError):
    """This machine or this installation cannot do what the recipe asks."""

    exit_code = 4


class StageFailed(RecipeError):
    """A stage could not finish. What earlier stages made is kept."""

    exit_code = 5


class DataRejected(StageFailed):
    """The data gate refuses the rows: the message names the file, the rows and the reason."""


class VerificationFailed(RecipeError):
    """Something that was written and read back is not what was meant."""

    exit_code = 6


class PushUnverified(VerificationFailed):
    """Something was published, and what is there now was not shown to be what was meant."""


class GateNotMet(RecipeError):
    """The result is not as good as the recipe's ``[gate]`` demands; nothing was published."""

    exit_code = 7


class Interrupted(RecipeError):
    """The user stopped the run. The message says how to go on."""

    exit_code = 130
