"""What reward models have in common, whatever they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from recipe_engine.contract import Answer
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.rows import Row
    from recipe_engine.training.text_pairs import PairText

Text = TypeVar("Text", bound="Sequence[int] | PairText")


class Scoring(Protocol[Text]):
    """A reward model of whatever kind: it reads texts, and gives each a score."""

    language_model: Any

    @property
    def config(self) -> Any:
        """Of the model in it."""

    @property
    def layout(self) -> Layout:
        """How texts can lie in memory."""

    @property
    def device(self) -> Any:
        """Where it is."""

    def texts(self, rows: Sequence[Row]) -> list[Text]:
        """What it reads of prepared rows."""

    def of_answers(self, answers: Sequence[Answer]) -> list[Text]:
        """What it reads of a policy's answers."""

    def lay(self, texts: Sequence[Text], pad: int, layout: Layout, *, shared: bool = False) -> dict[str, Any]:
        """Texts as one batch."""

    def __call__(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Scores of the texts of a batch, (texts,) in float32."""
