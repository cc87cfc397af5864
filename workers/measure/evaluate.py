"""Measures a segmenter on sets of pictures, and writes what was found: JSON, curves, the worst answers.

    out/results.json     all figures
    out/masks.jsonl      a row per mask, every IoU
    out/clicks.png       mean IoU over clicks, a line a set
    out/sizes.png        one click's IoU by the mask's share of the picture
    out/failures.png     the worst chosen answers to one click, truth in white
    out/edges.png        precision over recall, where edges were measured

It doesn't know where the model comes from beyond its settings, nor who asked.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.checks import finite
from maskmill.pipeline.evaluate.edges import METHODS, EdgeFigures, count_edges, edge_figures, mask_edges
from maskmill.pipeline.evaluate.points import held_back_scenes
from maskmill.pipeline.evaluate.suite import SetMeter, SetResult, as_dict, averaged, measure_picture
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.settings.evaluate import EvaluateSettings
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.edge_maps import EdgePair, edge_pairs, read_edges
from maskmill.workers.foreign.truth import TruthIndex, TruthSet, index_truth, picture_paths, read_truths
from maskmill.workers.pictures.plots import Line, line_chart
from maskmill.workers.pictures.render import Cell, draw_sheet, outlines, png_bytes, thumbnail

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter

Progress = Callable[[int, int | None], None]
ANSWER, SHEET_PX = (255, 96, 32), 220


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured.

    Attributes:
        sets: a result each.
        edges: BSDS figures by method ("model", "sobel", "canny"); empty where not asked for.
        failures: pictures of the worst answers, worst first.
        left_out: set's name -> annotations that are no true masks, by reason; sets without any aren't there.
    """

    sets: tuple[SetResult, ...]
    edges: Mapping[str, EdgeFigures] = field(default_factory=dict)
    failures: tuple[Cell, ...] = ()
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """What `evaluate --json` prints: averages over sets on top, each set's own below."""
        return {
            **averaged(self.sets),
            "images": sum(one.images for one in self.sets),
            "instances": sum(len(one.rows) for one in self.sets),
            "sets": {
                one.name: {**one.figures, "images": one.images, "instances": len(one.rows)}
                for one in self.sets
            },
            "left_out": {name: dict(counts) for name, counts in self.left_out.items()},
            "edges": {
                name: {key: getattr(found, key) for key in ("ods", "ois", "ap", "r50")}
                for name, found in self.edges.items()
            },
        }


@dataclass(frozen=True)
class Asked:
    """A question whose files were looked at: sets, the images chosen of each, scenes, pictures with edges."""

    indexes: tuple[TruthIndex, ...]
    chosen: tuple[tuple[Id, ...], ...]
    scenes: int
    edges: tuple[EdgePair, ...]


def evaluate(
    segmenter: Segmenter,
    sets: Sequence[TruthSet],
    settings: EvaluateSettings,
    *,
    scenes: int = 0,
    bsds: tuple[Path, Path] | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measures.

    Args:
        segmenter: the model.
        sets: with ground truth.
        settings: what to measure.
        scenes: held-back generated scenes to measure as one more set.
        bsds: folders of pictures and of .mat files.
        progress: told pictures done and to do.

    Raises:
        InputError: nothing to measure, or a set that cannot be read.
    """
    return measure(segmenter, look_at(sets, settings, scenes=scenes, bsds=bsds), settings, progress=progress)


def look_at(
    sets: Sequence[TruthSet],
    settings: EvaluateSettings,
    *,
    scenes: int = 0,
    bsds: tuple[Path, Path] | None = None,
) -> Asked:
    """Reads what can be wrong with a question, before a model is loaded; arguments as `evaluate` has them.

    Raises:
        InputError: nothing to measure, or a set that cannot be read.
    """
    indexes = tuple(index_truth(one) for one in sets)
    chosen = tuple(tuple(_drawn(index, settings)) for index in indexes)
    for index, ids in zip(indexes, chosen, strict=True):
        deque(picture_paths(index, ids), maxlen=0)
    edges = edge_pairs(*bsds) if bsds else ()
    if not any(chosen) and not scenes and not edges:
        raise InputError("nothing to measure: give --coco and --images, a --suite, --scenes or --bsds")
    return Asked(indexes, chosen, scenes, tuple(edges))


def measure(
    segmenter: Segmenter,
    asked: Asked,
    settings: EvaluateSettings,
    *,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measures what was looked at; arguments as `evaluate` has them.

    Raises:
        InputError: a picture that cannot be read.
    """
    indexes, chosen, scenes = asked.indexes, asked.chosen, asked.scenes
    total = sum(len(ids) for ids in chosen) + scenes + len(asked.edges)

    # Given sets, a picture at a time
    done = itertools.count(1)
    meters, worst = [], _Worst(settings.failures)
    for index, ids in zip(indexes, chosen, strict=True):
        meter = SetMeter(index.source.name)
        for image_id, truth in read_truths(index, ids):
            _measure(segmenter, truth, settings, meter, worst, index, image_id)
            progress(next(done), total)
        meters.append(meter)

    # Scenes of which nothing was trained on
    if scenes:
        meter = SetMeter("scenes")
        for i, scene in enumerate(held_back_scenes(scenes)):
            truth = Truth(f"scene-{HELD_BACK_SEED + i}", scene.image, scene.masks_NHW)
            _measure(segmenter, truth, settings, meter, worst)
            progress(next(done), total)
        meters.append(meter)
    found: dict[str, EdgeFigures] = {}
    if asked.edges:
        found = measure_edges(
            segmenter, asked.edges, grid=settings.edge_grid, seen=lambda: progress(next(done), total)
        )
    left_out = {index.source.name: index.left_out.left_out().counts for index in indexes}
    return Evaluation(
        tuple(_result(meter) for meter in meters),
        found,
        worst.cells(),
        {name: counts for name, counts in left_out.items() if counts},
    )


def measure_edges(
    segmenter: Segmenter,
    pairs: Sequence[EdgePair],
    *,
    grid: int = 16,
    seen: Callable[[], None] = lambda: None,
) -> dict[str, EdgeFigures]:
    """BSDS's figures of the model, and of Sobel and Canny beside it; `seen` is called after each picture.

    Raises:
        InputError: a file that cannot be read.
    """
    counts: dict[str, list[Any]] = {name: [] for name in ("model", *METHODS)}
    for pair in pairs:
        image, annotators = read_edges(pair)
        counts["model"].append(count_edges(mask_edges(segmenter, image, grid=grid), annotators))
        for name, method in METHODS.items():
            counts[name].append(count_edges(method(image), annotators))
        seen()
    return {name: edge_figures(some) for name, some in counts.items()}


def write(found: Evaluation, folder: Path) -> list[Path]:
    """Writes results, rows, curves and failures; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"results.json": _json(found.figures())}
    rows = [{"set": one.name, **as_dict(row)} for one in found.sets for row in one.rows]
    files["masks.jsonl"] = b"".join(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)

    # Plots, where there is something to plot
    if found.sets and (lines := _click_lines(found.sets)):
        files["clicks.png"] = line_chart(
            "Mean IoU over clicks", lines, x_label="clicks on each mask", y_label="mean IoU", y_range=(0, 1)
        )
    if found.sets and (lines := _size_lines(found.sets)):
        files["sizes.png"] = line_chart(
            "One click, by size",
            lines,
            x_label="log10 of the mask's pixels",
            y_label="mean IoU",
            y_range=(0, 1),
        )
    if found.edges:
        lines = [
            Line(name, tuple(zip(one.recall_T.tolist(), one.precision_T.tolist(), strict=True)))
            for name, one in found.edges.items()
        ]
        files["edges.png"] = line_chart("Edges", lines, x_label="recall", y_label="precision", y_range=(0, 1))
    if found.failures:
        title = "Worst answers to one click: truth in white, answer in orange"
        files["failures.png"] = png_bytes(draw_sheet(title, found.failures, 4, SHEET_PX))

    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def _measure(
    segmenter: Segmenter,
    truth: Truth,
    settings: EvaluateSettings,
    meter: SetMeter,
    worst: _Worst,
    index: TruthIndex | None = None,
    image_id: Id = 0,
) -> None:
    if not len(truth.masks_NHW):
        return
    given = index.boxes.get(image_id) if index is not None else None
    result = measure_picture(segmenter, truth, settings, given)
    meter.add(truth, result)
    for row, answer_HW in zip(result.rows, result.first_NHW, strict=True):
        worst.offer(row.figures.get("points_1_chosen_miou"), truth, row.place, answer_HW)


class _Worst:
    """Keeps the pictures of the worst few answers; larger masks first among equals."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, float, int, Cell]] = []
        self._order = itertools.count()

    def offer(self, iou: float | None, truth: Truth, place: int, answer_HW: NDArray[np.bool_]) -> None:
        """Draws the answer if it is among the worst so far."""
        if iou is None or not self._most:
            return
        area = float(truth.masks_NHW[place].sum())
        key = (-iou, area)
        if len(self._heap) >= self._most and key <= self._heap[0][:2]:
            return
        cell = _failure(truth, place, answer_HW, iou)
        push = heapq.heappush if len(self._heap) < self._most else heapq.heappushpop
        push(self._heap, (*key, next(self._order), cell))

    def cells(self) -> tuple[Cell, ...]:
        """The pictures kept, worst first."""
        return tuple(entry[3] for entry in sorted(self._heap, reverse=True))


def _failure(truth: Truth, place: int, answer_HW: NDArray[np.bool_], iou: float) -> Cell:
    """The neighbourhood of a mask with truth and answer drawn in."""
    mask_HW = truth.masks_NHW[place]
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    room = max(24, rows[-1] - rows[0], cols[-1] - cols[0])
    top, left = max(0, rows[0] - room), max(0, cols[0] - room)
    cut = np.s_[top : rows[-1] + room, left : cols[-1] + room]
    drawn = truth.image[cut].astype(np.float64)
    drawn[answer_HW[cut]] = 0.5 * drawn[answer_HW[cut]] + 0.5 * np.array(ANSWER)
    drawn[outlines(mask_HW[cut].astype(np.int32), 1)] = 255
    picture = thumbnail(drawn.astype(np.uint8), None, SHEET_PX, SHEET_PX)
    return Cell((picture,), truth.name, f"mask {place}, IoU {iou:.2f}")


def _result(meter: SetMeter) -> SetResult:
    try:
        return meter.result()
    except ValueError as exc:
        raise InputError(str(exc)) from exc


def _drawn(index: TruthIndex, settings: EvaluateSettings) -> list[Id]:
    """The images of a set to look at, in order of ids."""
    ids = list(index.images)
    if settings.max_images is None or len(ids) <= settings.max_images:
        return ids
    places = random.Random(settings.seed).sample(range(len(ids)), settings.max_images)
    return [ids[place] for place in sorted(places)]


def _click_lines(sets: Sequence[SetResult]) -> list[Line]:
    def line(one: SetResult, kind: str) -> Line:
        """One set's IoU after k points, of the best answer or of the chosen one."""
        found = {
            int(name.split("_")[1]): value
            for name, value in one.figures.items()
            if name.startswith("points_") and name.endswith(f"_{kind}_miou")
        }
        return Line(f"{one.name}, {kind}", tuple((float(k), v) for k, v in sorted(found.items())))

    lines = [line(one, kind) for one in sets for kind in ("best", "chosen")]
    return [one for one in lines if one.finite()]


def _size_lines(sets: Sequence[SetResult]) -> list[Line]:
    return [Line(one.name, tuple(_by_size(one))) for one in sets if any(_by_size(one))]


def _by_size(one: SetResult) -> Iterator[tuple[float, float]]:
    rows = [row for row in one.rows if "points_1_chosen_miou" in row.figures]
    bins: dict[int, list[float]] = {}
    for row in rows:
        bins.setdefault(round(2 * float(np.log10(row.area_px))), []).append(
            row.figures["points_1_chosen_miou"]
        )
    yield from ((half / 2, float(np.mean(values))) for half, values in sorted(bins.items()))


def _json(value: Any) -> bytes:
    return (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode()
