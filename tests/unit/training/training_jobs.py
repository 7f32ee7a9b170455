"""Small trainings that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import tiny

from recipe_engine.methods.train_sft import TrainSft
from recipe_engine.training.options import TrainSft as Options

if TYPE_CHECKING:
    from recipe_engine.contract import StageResult

ROWS = 10


class Killed(BaseException):
    """The process ends where it stands."""


class Fragile(tiny.Recorder):
    """A reporter whose process is killed while it reports a step: after the update, before its checkpoint."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        if step == self._at:
            raise Killed


def prepared_data(folder: Path, tokenizer: Path) -> dict[str, Path]:
    """Prepared rows to train and to evaluate on, by role."""
    return {
        "train": tiny.prepare_data(folder / "train", tiny.instruction_rows(ROWS), tokenizer),
        "eval": tiny.prepare_data(folder / "eval", tiny.instruction_rows(3, start=ROWS), tokenizer),
    }


def sft(
    root: Path,
    folder: Path,
    data: dict[str, Path],
    *,
    reporter: tiny.Recorder | None = None,
    model: Any = None,
    dropout: float = 0.1,
    **options: Any,
) -> tuple[StageResult, Path]:
    """One ``train.sft`` on a freshly adapted model, as the worker runs it.

    Args:
        root: the work area is in it, so the same root goes on from its checkpoints.
        folder: of the base model.
        data: prepared rows.
        reporter: who is told.
        model: the adapted model; a new one where left out.
        dropout: of the new model's adapters.
        **options: of the method, on top of a batch of four rows.

    Returns:
        The result and the output folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    request = tiny.stage_request(
        root,
        Options(**({"batch_size": 4, "learning_rate": 5e-3} | options)),
        model=model if model is not None else tiny.adapted_model(root, folder, dropout=dropout),
        tokenizer=folder,
        data=data,
        reporter=reporter,
    )
    return tiny.run_stage(TrainSft(), request), request.output
