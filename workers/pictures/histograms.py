"""Histograms as inline SVG, coloured by the page's own CSS so that they fit light and dark."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BASE, TOP = 340, 150, 126, 14


@dataclass(frozen=True)
class Histogram:
    """Counts between edges.

    Attributes:
        title: what is counted, as the heading shows it.
        edges: n + 1 rising edges; the last bin includes its upper edge.
        counts: n counts.
        ticks: (value, text) under the axis; a value that is no edge is placed between its neighbours.
        median: of the values, None where there are none.
        unit: the word for one counted thing, plural.
        show: a value as text, for the edges and the median.
    """

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    ticks: tuple[tuple[float, str], ...]
    median: float | None
    unit: str
    show: Callable[[float], str]


def count(
    title: str,
    values: NDArray[np.floating] | NDArray[np.integer],
    edges: Sequence[float],
    ticks: Sequence[tuple[float, str]],
    *,
    unit: str,
    show: Callable[[float], str],
) -> Histogram:
    """Counts `values` between `edges`; values outside go to the first and last bin, so nothing is lost."""
    inside = np.clip(values, edges[0], edges[-1])
    counts, _ = np.histogram(inside, bins=np.asarray(edges, dtype=np.float64))
    median = float(np.median(values)) if len(values) else None
    return Histogram(title, tuple(edges), tuple(int(c) for c in counts), tuple(ticks), median, unit, show)


def _x_of(value: float, edges: Sequence[float]) -> float:
    """Where a value lies, in pixels: every bin is equally wide, whatever its edges."""
    places = np.linspace(0, WIDTH, len(edges))
    return float(np.interp(value, edges, places))


def svg(histogram: Histogram) -> str:
    """The histogram as an `<svg>` element of about 2 KB; bars tell their counts when pointed at."""
    # A bar a bin, under an invisible one that is easier to point at
    highest = max(*histogram.counts, 1)
    bar_width = WIDTH / len(histogram.counts)
    parts = []
    for i, number in enumerate(histogram.counts):
        height = (BASE - TOP) * number / highest
        low, high = histogram.show(histogram.edges[i]), histogram.show(histogram.edges[i + 1])
        tip = html.escape(f"{low} to {high}: {number:,} {histogram.unit}")
        visible = max(height, 1.5) if number else 0.0
        parts.append(
            f'<g><rect class="hit" x="{i * bar_width:.1f}" y="{TOP}" width="{bar_width:.1f}" '
            f'height="{BASE - TOP}"/><rect class="bar" x="{i * bar_width + 1:.1f}" y="{BASE - visible:.1f}" '
            f'width="{max(bar_width - 2, 1):.1f}" height="{visible:.1f}" rx="1.5"/><title>{tip}</title></g>'
        )

    # Axis, ticks and median
    parts.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE + 0.5}" y2="{BASE + 0.5}"/>')
    for value, text in histogram.ticks:
        parts.append(_text(_x_of(value, histogram.edges), BASE + 16, text, "tick"))
    if histogram.median is not None:
        x = _x_of(histogram.median, histogram.edges)
        parts.append(f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BASE}"/>')
        parts.append(_text(x, TOP - 4, f"median {histogram.show(histogram.median)}", "tick strong"))

    label = html.escape(f"Histogram of {histogram.title}", quote=True)
    view = f"0 0 {WIDTH} {HEIGHT}"
    return f'<svg class="chart" role="img" aria-label="{label}" viewBox="{view}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, css_class: str) -> str:
    anchor = "start" if x < 50 else "end" if x > WIDTH - 50 else "middle"
    return f'<text class="{css_class}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'
