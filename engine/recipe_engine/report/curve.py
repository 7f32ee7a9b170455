"""The loss of a training as a picture: SVG, with no more in it than lines and numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CURVE_FILE = "loss.svg"
_SVG = "http://www.w3.org/2000/svg"
_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 36
_MOST_POINTS = 400
_TICKS = 4

Point = tuple[float, float]


def loss_curve(trace: Iterable[Mapping[str, Any]]) -> str:
    """The picture; ``""`` where there are fewer than two steps with a loss that is a number.

    Args:
        trace: an entry a step, with ``step`` and ``loss``.
    """
    points = [
        (float(entry["step"]), float(entry["loss"]))
        for entry in trace
        if isinstance(entry.get("loss"), int | float) and math.isfinite(entry["loss"])
    ]
    if len(points) < 2:
        return ""
    points = _thinned(points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    if high == low:
        high = low + 1
    first, last = points[0][0], points[-1][0]

    def place(point: Point) -> Point:
        x = _LEFT + (point[0] - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - point[1]) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
    losses = [low + (high - low) * tick / _TICKS for tick in range(_TICKS + 1)]
    marks = [_mark(place((first, loss))[1], loss) for loss in losses]
    return "\n".join(
        [
            f'<svg xmlns="{_SVG}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
            f"<title>Training loss from {points[0][1]:.4g} to {points[-1][1]:.4g}</title>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            *marks,
            f'<polyline points="{line}" fill="none" stroke="#1f5fbf" stroke-width="1.5"/>',
            _text(_LEFT, f"step {first:.0f}", "start"),
            _text(_WIDTH - _RIGHT, f"step {last:.0f}", "end"),
            "</svg>",
            "",
        ]
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Means of neighbours, so that a long training is as small a picture as a short one."""
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def _mark(y: float, loss: float) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.3g}</text>'
    )


def _text(x: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{_HEIGHT - 12}" text-anchor="{anchor}">{text}</text>'
