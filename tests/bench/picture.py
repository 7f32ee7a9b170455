"""Curves as a picture: SVG, panels one below the other over the same axis."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

_SVG = "http://www.w3.org/2000/svg"
_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 28, 24
_TICKS = 4
_GREY = "#808080"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; lines of one name have one colour."""

    name: str
    colour: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """What has one vertical axis, from 0 on."""

    title: str
    lines: Sequence[Line]


def picture(panels: Sequence[Panel], axis: str) -> str:
    """The file's text.

    Args:
        panels: from the top.
        axis: what the horizontal axis is.
    """
    height = _HEIGHT * len(panels) + _BOTTOM
    root = ET.Element("svg", {"xmlns": _SVG, "viewBox": f"0 0 {_WIDTH} {height}", "font-family": "sans-serif"})
    most = max(x for panel in panels for line in panel.lines for x, _ in line.points)
    for number, panel in enumerate(panels):
        _panel(root, panel, most, _HEIGHT * number)
    _text(root, axis, (_WIDTH / 2, height - 8), "middle")
    names = {line.name: line.colour for line in panels[0].lines}
    for number, (name, colour) in enumerate(names.items()):
        _text(root, name, (_WIDTH - _RIGHT - 64 * number, 16), "end", colour)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _panel(root: ET.Element, panel: Panel, most: float, down: float) -> None:
    low = min(0.0, *(y for line in panel.lines for _, y in line.points))
    high = max(y for line in panel.lines for _, y in line.points)

    def place(x: float, y: float) -> Point:
        across = _LEFT + x / most * (_WIDTH - _LEFT - _RIGHT)
        return across, down + _TOP + (high - y) / (high - low or 1.0) * (_HEIGHT - _TOP - _BOTTOM)

    _text(root, panel.title, (_LEFT, down + 16), "start")
    for tick in range(_TICKS + 1):
        y, x = low + (high - low) * tick / _TICKS, most * tick / _TICKS
        left, right = place(0, y), place(most, y)
        ends = {"x1": left[0], "y1": left[1], "x2": right[0], "y2": right[1]}
        ET.SubElement(root, "line", {name: f"{value:.1f}" for name, value in ends.items()} | {"stroke": "#80808040"})
        _text(root, f"{y:.2g}", (left[0] - 6, left[1] + 4), "end")
        _text(root, f"{x:.0f}", (place(x, low)[0], place(x, low)[1] + 16), "middle")
    for line in panel.lines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        ET.SubElement(
            root, "polyline", {"points": points, "fill": "none", "stroke": line.colour, "stroke-width": "1.8"}
        )


def _text(root: ET.Element, text: str, at: Point, anchor: str, colour: str = _GREY) -> None:
    given = {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor, "font-size": "11", "fill": colour}
    ET.SubElement(root, "text", given).text = text
