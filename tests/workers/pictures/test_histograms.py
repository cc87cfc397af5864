"""Histograms lose no value and escape what they are given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from maskmill.workers.pictures.histograms import count, svg


def test_values_outside_the_edges_are_counted_at_the_ends() -> None:
    values = np.array([-5.0, 0.1, 0.5, 1.0, 9.0])
    histogram = count("IoU", values, [0.0, 0.5, 1.0], [(0.0, "0")], unit="masks", show=str)
    assert histogram.counts == (2, 3)
    assert histogram.median == 0.5


def test_no_values_make_a_chart_without_bars_and_median() -> None:
    histogram = count("IoU", np.zeros(0), [0.0, 0.5, 1.0], [], unit="masks", show=str)
    assert histogram.median is None
    assert histogram.counts == (0, 0)
    assert "median" not in svg(histogram)


def test_bars_are_as_high_as_their_counts() -> None:
    histogram = count("x", np.array([0.1, 0.2, 0.9]), [0.0, 0.5, 1.0], [(1.0, "1")], unit="masks", show=str)
    heights = [float(h) for h in re.findall(r'class="bar"[^>]* height="([\d.]+)"', svg(histogram))]
    assert heights[0] == 2 * heights[1] > 0


def test_titles_and_ticks_are_text_not_markup() -> None:
    histogram = count("<b>&", np.array([0.2]), [0.0, 1.0], [(0.0, "<i>")], unit="<u>", show=lambda v: "<s>")
    root = ElementTree.fromstring(svg(histogram))
    assert root.attrib["aria-label"] == "Histogram of <b>&"
    assert {element.tag for element in root.iter()} == {"svg", "g", "rect", "title", "line", "text"}
