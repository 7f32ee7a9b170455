"""Using a model without leaving a trace on it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """Evaluation mode for the time of the block; afterwards every module is in the mode that it was in.

    Modes are kept for each module apart: a frozen part may have been in evaluation mode within a training model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
