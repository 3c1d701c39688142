"""Small charts as SVG, with text as text and the page's colors (classes of style.css)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, final

import numpy as np

__all__ = ["Chart", "DotRow", "dot_plot", "shortened", "tick_label", "ticks"]

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 42
"""Margins for the axis labels."""

LONGEST = 44
"""Maximum number of characters of a label."""

POINTS = 400
"""Number of points of a curve; if there are more, it is thinned evenly."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers between two ends.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= min((1, 2, 5, 10), key=lambda m: abs(math.log((high - low) / count / (m * step))))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def tick_label(value: float) -> str:
    """Format a tick's value as briefly as possible."""
    return f"{value:.6g}".replace("-", "−")


@final
class Chart:
    """A chart: axes and what is drawn on them."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        xlabel: str,
        ylabel: str,
        size: tuple[int, int] = (400, 300),
    ) -> None:
        self.x, self.y, self.size = _apart(x), _apart(y), size
        self._parts: list[str] = []
        self._axes(xlabel, ylabel)

    def place(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Convert data coordinates to coordinates of the drawing."""
        width, height = self.size
        fx = (np.asarray(x, dtype=np.float64) - self.x[0]) / (self.x[1] - self.x[0])
        fy = (np.asarray(y, dtype=np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        return (
            LEFT + fx * (width - LEFT - RIGHT),
            height - BOTTOM - fy * (height - TOP - BOTTOM),
        )

    def line(self, x: Any, y: Any, css: str) -> None:
        """Draw a curve, with gaps where it is not finite."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        step = -(-len(x) // POINTS)
        commands, drawn = [], False
        for px, py in zip(*self.place(x[::step], y[::step]), strict=True):
            there = math.isfinite(px) and math.isfinite(py)
            if there:
                commands.append(f"{'L' if drawn else 'M'}{px:.1f} {py:.1f}")
            drawn = there
        self._add(f'<path class="line {css}" d="{"".join(commands)}"/>')

    def area(self, x: Any, low: Any, high: Any, css: str) -> None:
        """Fill the area between two curves."""
        x, low, high = (np.asarray(a, dtype=np.float64) for a in (x, low, high))
        self._polygon(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]), css)

    def outline(self, x: Any, y: Any, css: str) -> None:
        """Draw a closed curve."""
        self._polygon(x, y, css)

    def bars(self, edges: Any, heights: Any, css: str) -> None:
        """Draw a histogram."""
        for low, high, top in zip(edges[:-1], edges[1:], heights, strict=True):
            self._polygon([low, low, high, high], [0.0, top, top, 0.0], css)

    def dot(self, x: float, y: float, css: str, radius: float = 3.5) -> None:
        """Draw a point."""
        px, py = self.place(x, y)
        self._add(f'<circle class="dot {css}" cx="{px:.1f}" cy="{py:.1f}" r="{radius}"/>')

    def text(self, x: float, y: float, words: str, css: str = "", anchor: str = "start") -> None:
        """Write words at data coordinates."""
        px, py = self.place(x, y)
        self._add(_text(px, py, words, css, anchor))

    def svg(self, label: str) -> str:
        """Return the SVG element; `label` describes it to readers who cannot see it."""
        return _svg(self.size, label, self._parts)

    def _polygon(self, x: Any, y: Any, css: str) -> None:
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*self.place(x, y), strict=True))
        self._add(f'<polygon class="{css}" points="{points}"/>')

    def _axes(self, xlabel: str, ylabel: str) -> None:
        xlabel, ylabel = shortened(xlabel, LONGEST), shortened(ylabel, LONGEST)
        width, height = self.size
        bottom = height - BOTTOM
        for value in ticks(*self.x):
            px, _ = self.place(value, self.y[0])
            self._add(f'<path class="grid" d="M{px:.1f} {TOP}V{bottom}"/>')
            self._add(_text(px, bottom + 15, tick_label(value), "tick", "middle"))
        for value in ticks(*self.y):
            _, py = self.place(self.x[0], value)
            self._add(f'<path class="grid" d="M{LEFT} {py:.1f}H{width - RIGHT}"/>')
            self._add(_text(LEFT - 6, py + 4, tick_label(value), "tick", "end"))
        self._add(_text((LEFT + width - RIGHT) / 2, height - 6, xlabel, "axis", "middle"))
        middle = (TOP + bottom) / 2
        self._add(
            f'<text class="axis" text-anchor="middle" transform="translate(12 {middle:.1f}) '
            f'rotate(-90)">{escape(ylabel)}</text>'
        )

    def _add(self, element: str) -> None:
        self._parts.append(element)


@final
class DotRow:
    """A row of a dot plot: a label, and dots (value, css) with or without intervals."""

    def __init__(
        self,
        label: str,
        dots: Sequence[tuple[float, str]],
        intervals: Sequence[tuple[float, float, str]] = (),
    ) -> None:
        self.label, self.dots, self.intervals = label, dots, intervals


def dot_plot(
    rows: Sequence[DotRow],
    x: tuple[float, float],
    xlabel: str,
    label: str,
    *,
    reference: float | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """Return a dot plot: values by name, one row each, on a common axis."""
    left, line, width = 140, 24, 400
    height = TOP + line * len(rows) + BOTTOM
    low, high = _apart(x)

    def place(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return left + share * (width - left - RIGHT)

    bottom = height - BOTTOM
    parts = []
    if band is not None:
        a, b = map(place, band)
        parts.append(
            f'<rect class="band" x="{a:.1f}" y="{TOP}" width="{b - a:.1f}" '
            f'height="{bottom - TOP}"/>'
        )
    for value in ticks(low, high):
        parts.append(f'<path class="grid" d="M{place(value):.1f} {TOP}V{bottom}"/>')
        parts.append(_text(place(value), bottom + 15, tick_label(value), "tick", "middle"))
    if reference is not None:
        parts.append(f'<path class="line reference" d="M{place(reference):.1f} {TOP}V{bottom}"/>')
    for i, row in enumerate(rows):
        y = TOP + line * (i + 0.5)
        parts.append(_text(left - 8, y + 4, shortened(row.label, 21), "tick name", "end"))
        for start, end, css in row.intervals:
            if math.isfinite(start) and math.isfinite(end):
                parts.append(
                    f'<path class="line {css}" d="M{place(start):.1f} {y:.1f}H{place(end):.1f}"/>'
                )
        for value, css in row.dots:
            if math.isfinite(value):
                parts.append(
                    f'<circle class="dot {css}" cx="{place(value):.1f}" cy="{y:.1f}" r="4.5"/>'
                )
    parts.append(
        _text((left + width - RIGHT) / 2, height - 6, shortened(xlabel, LONGEST), "axis", "middle")
    )
    return _svg((width, height), label, parts)


def shortened(text: str, length: int) -> str:
    """Truncate a long text.

    >>> shortened("a long name", 6)
    'a lon…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def _svg(size: tuple[int, int], label: str, parts: Iterable[str]) -> str:
    width, height = size
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}" '
        f'aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, css: str, anchor: str) -> str:
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, ends)
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), low + 0.5 * (abs(low) or 1))
