"""Small charts as SVG text: values as dots on a logarithmic axis, and lines over one. No library: a page of code, and
files of a few kilobytes that a review can read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LEFT, RIGHT, TOP = 190, 70, 46
ROW = 22
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5a9e", "#7a7a7a")
_STYLE = "font-family:system-ui,sans-serif;font-size:12px"


@dataclass(frozen=True, slots=True)
class Dot:
    """value: on the axis, more than 0; colour: an index of COLOURS; note: what stands beside it."""

    value: float
    colour: int = 0
    note: str = ""


class _Log:
    """A logarithmic axis over whole decades, or parts of them by 1, 2, 5."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        steps = [m * 10**e for e in range(-6, 10) for m in (1, 2, 5)]
        self.low = max(s for s in steps if s <= min(values))
        self.high = min(s for s in steps if s >= max(values) and s > self.low)
        self.ticks = [s for s in steps if self.low <= s <= self.high]
        if len(self.ticks) > 8:
            self.ticks = [s for s in self.ticks if math.log10(s) % 1 < 1e-9 or s in (self.low, self.high)]
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self._begin + part * (self._end - self._begin)


def number(value: float) -> str:
    """Three digits, thousands apart."""
    if value >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, words: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ddd", width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def _dot(x: float, y: float, colour: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[colour]}"/>'


def _page(title: str, height: float, legend: Sequence[str], parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" style="{_STYLE}" role="img">'
    made = [head, f"<title>{escape(title)}</title>", f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>']
    made.append(_text(12, 18, title, extra=' font-weight="600"'))
    x = float(LEFT)
    for index, words in enumerate(legend):
        made += [_dot(x, 32, index), _text(x + 9, 36, words)]
        x += 30 + 7 * len(words)
    return "\n".join([*made, *parts, "</svg>"]) + "\n"


def dots(title: str, rows: Sequence[tuple[str, Sequence[Dot]]], legend: Sequence[str] = ()) -> str:
    """One line for each row: its name, and its values as dots on one logarithmic axis."""
    axis = _Log([dot.value for _, row in rows for dot in row], LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    parts = []
    for tick in axis.ticks:
        x = axis.at(tick)
        parts += [_line(x, TOP, x, bottom), _text(x, bottom + 16, number(tick), "middle", ' fill="#555"')]
    for index, (name, row) in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        parts.append(_text(LEFT - 10, y + 4, name, "end"))
        spread = [axis.at(dot.value) for dot in row]
        if len(row) > 1:
            parts.append(_line(min(spread), y, max(spread), y, "#999", 2))
        parts += [_dot(x, y, dot.colour) for x, dot in zip(spread, row, strict=True)]
        last = max(range(len(row)), key=lambda i: row[i].value)
        parts.append(_text(spread[last] + 8, y + 4, row[last].note or number(row[last].value)))
    return _page(title, bottom + 26, legend, parts)


def lines(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, x: str) -> str:
    """Points (x, y) of each series, joined; x on a logarithmic axis, y from 0 on. x: what it counts."""
    height = 200.0
    bottom = TOP + height
    left = 60
    across = _Log([px for _, points in series for px, _ in points], left, WIDTH - RIGHT)
    most = max(py for _, points in series for _, py in points)
    step = next(s for e in range(-3, 9) for s in (10**e, 2 * 10**e, 5 * 10**e) if most / s <= 5)
    top = math.ceil(most / step) * step

    def up(value: float) -> float:
        return bottom - value / top * height

    parts = []
    for tick in (t for t in across.ticks if math.log10(t) % 1 < 1e-9):
        at = across.at(tick)
        parts += [_line(at, TOP, at, bottom), _text(at, bottom + 16, f"{tick:,.0f}", "middle", ' fill="#555"')]
    for count in range(round(top / step) + 1):
        y = up(count * step)
        parts += [_line(left, y, WIDTH - RIGHT, y), _text(left - 8, y + 4, number(count * step), "end", ' fill="#555"')]
    parts.append(_text(WIDTH - RIGHT, bottom + 32, x, "end", ' fill="#555"'))
    for index, (_, points) in enumerate(series):
        path = " ".join(f"{across.at(px):.1f},{up(py):.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[index]}" stroke-width="2"/>')
        parts += [_dot(across.at(px), up(py), index) for px, py in points]
    return _page(title, bottom + 42, [name for name, _ in series], parts)
