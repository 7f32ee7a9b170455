"""The option ``report_to`` of all trainings; :mod:`recipe_engine.curves` does what it asks for."""

from __future__ import annotations

from typing import Literal

ReportTo = tuple[Literal["tensorboard"], ...]
"""Its type."""
REPORT_TO = "Programs that the numbers of each step are written for, as files in the run's folder."
"""What it means."""
