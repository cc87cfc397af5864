"""Quality of a dataset over a person's minutes, by the order they work in:
`python -m benchmarks.person_minutes [--nuclei COCO IMAGES] [--scenes 30] [--out FILE.json]`.

A person is simulated by the oracle with SAM's seconds (storage/browse/gain.py): 3 s a picture opened, 3 s a
mask looked at, 14 s an object that clicks bring to `WANTED`, 34 s one that has to be drawn by hand. What they
do at a picture is always the same: look at masks, drop the wrong ones, add every object that has no right
mask. Compared are

    random      pictures at random, every mask looked at                          no verifier
    hardest     pictures by predicted IoU and stability, every mask looked at     no verifier
    verifiers   masks kept and dropped by p_right before anybody looks; the order `most gain`; only masks of
                which the verifier is not sure are looked at
    by size     the same in the order `most gain by size`
    in passes   the same in three rounds: unsure masks of all pictures; what is missing; the sure masks too

Quality is F1 over all masks and labels of the set, a mask being right from an IoU of 0.75; and once more with
every mask and label counting its area's square root. The orders are those of `maskmill browse`, by the very
SQL. Nobody errs, nobody tires, and what was added teaches no model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import duckdb
import numpy as np
import torch
from numpy.typing import NDArray

from maskmill.pipeline.evaluate.oracle import correct
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.segmenters.base import Segmenter
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano
from maskmill.pipeline.settings import NANO, SegmenterSettings
from maskmill.pipeline.train.nano.pictures.photographs import read_photographs
from maskmill.pipeline.verify.examples import Judged, iou_matrix, judge, masks_of, scenes
from maskmill.pipeline.verify.head import RIGHT_IOU
from maskmill.pipeline.verify.train import SCENE_SIDES
from maskmill.pipeline.verify.verifier import Verifier, load_verifier
from maskmill.storage.browse.filters import DOUBT
from maskmill.storage.browse.gain import CLICK_S, DRAW_S, GAIN, GAIN_BY_SIZE, LOOK_S, OPEN_S, SURE

WANTED, MOST_CLICKS = 0.8, 8
"""Of the oracle: an object is done from this IoU on; after so many clicks it is drawn by hand."""
SEEDS = 10
LEVELS = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Of what random order gains in all."""

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Work:
    """What there is to do at a picture.

    Attributes:
        right_NL: bool, which masks are right for which labels.
        seconds_L: to add each label.
        side_N, side_L: square roots of areas, px, of masks and labels.
        p_right_N, share_found: the verifier's words.
        doubt, gain, gain_by_size: where it stands in the orders `hardest` and `most gain`; infinite without
            masks.
    """

    right_NL: Bools
    seconds_L: Floats
    side_N: Floats
    side_L: Floats
    p_right_N: Floats
    share_found: float
    doubt: float
    gain: float
    gain_by_size: float


class Picture:
    """How far a picture has come: which masks are kept, which labels somebody added."""

    def __init__(self, work: Work, keep_N: Bools, *, by_size: bool) -> None:
        self.work, self.kept_N = work, keep_N.copy()
        self.added_L = np.zeros(len(work.seconds_L), np.bool_)
        sides = (work.side_N, work.side_L)
        self.weight_N, self.weight_L = sides if by_size else (np.ones_like(side) for side in sides)

    def counts(self) -> Floats:
        """Masks there are, right ones, and labels that have a right one, each as it weighs."""
        right_N, added = self.work.right_NL.any(axis=1), self.weight_L[self.added_L].sum()
        found_L = self.work.right_NL[self.kept_N].any(axis=0) | self.added_L
        kept, right = (self.weight_N[some].sum() for some in (self.kept_N, right_N & self.kept_N))
        return np.array([kept + added, right + added, self.weight_L[found_L].sum()])

    def look(self, look_N: Bools) -> Iterator[float]:
        """Looks at masks one by one, and leaves each as it should be; gives the seconds after each change."""
        for place in np.flatnonzero(look_N):
            self.kept_N[place] = self.work.right_NL[place].any()
            yield LOOK_S

    def add(self) -> Iterator[float]:
        """Adds every label that has no right mask; gives the seconds after each."""
        for place in np.flatnonzero(~(self.work.right_NL[self.kept_N].any(axis=0) | self.added_L)):
            self.added_L[place] = True
            yield float(self.work.seconds_L[place])


def work_of(one: Judged, verifier: Verifier, segmenter: Segmenter) -> Work:
    """A picture's work, by truth, verifier and oracle."""
    said = verifier(one.image, pixels_HWC=one.truth.image, embedding=one.embedding)
    share = said.share_found or 1.0
    rows = [
        (mask.predicted_iou, mask.stability_score, float(p), float(iou), float(share), float(mask.area_px))
        for mask, p, iou in zip(
            one.image.annotations, said.masks.right_N, said.masks.expected_iou_N, strict=True
        )
    ]
    side_N = np.sqrt([mask.area_px for mask in one.image.annotations])
    side_L = np.sqrt(one.truth.masks_NHW.sum(axis=(1, 2)))
    done = correct(segmenter, one.truth, wanted_iou=WANTED, most_clicks=MOST_CLICKS, draw_rest=True)
    seconds_L = np.array([DRAW_S if label.drawn else CLICK_S for label in done])
    right_NL = iou_matrix(masks_of(one.image), one.truth.masks_NHW) >= RIGHT_IOU
    p_right_N = np.array([row[2] for row in rows])
    return Work(right_NL, seconds_L, side_N, side_L, p_right_N, share, *orders(rows))


def orders(rows: Sequence[tuple[float, ...]]) -> tuple[float, float, float]:
    """`doubt` without a verifier, `gain` with one and by size, of a picture's masks."""
    if not rows:
        return (float("inf"),) * 3
    with duckdb.connect(":memory:") as connection:
        fields = "predicted_iou double, stability_score double, p_right double, expected_iou double, "
        connection.execute(f"create table m ({fields} share_found double, area_px double)")
        connection.executemany("insert into m values (?, ?, ?, ?, ?, ?)", rows)
        plain = "(select predicted_iou, stability_score, null::double as expected_iou from m)"
        (doubt,) = connection.execute(f"select {DOUBT} from {plain}").fetchone() or (0.0,)
        gains = connection.execute(f"select {GAIN}, {GAIN_BY_SIZE} from m").fetchone() or (0.0, 0.0)
    return float(doubt), float(gains[0]), float(gains[1])


def walk(
    works: Sequence[Work], strategy: str, seed: int = 0, *, by_size: bool = False
) -> tuple[Floats, Floats]:
    """Minutes and quality after each step, the beginning first."""
    judged = strategy in ("verifiers", "by size", "in passes")
    rank = [one.gain if judged else one.doubt for one in works]
    if strategy == "by size":
        rank = [one.gain_by_size for one in works]
    order = sorted(range(len(works)), key=lambda place: -rank[place])
    if strategy == "random":
        order = np.random.default_rng(seed).permutation(len(works)).tolist()

    # What is kept before anybody looks, and what is looked at
    every: list[Bools] = [np.ones(len(one.p_right_N), np.bool_) for one in works]
    unsure: list[Bools] = [(one.p_right_N > SURE) & (one.p_right_N < 1 - SURE) for one in works]
    keep: list[Bools] = [one.p_right_N >= 0.5 for one in works] if judged else every
    pictures = [Picture(*one, by_size=by_size) for one in zip(works, keep, strict=True)]
    passes: list[tuple[list[Bools], bool]] = [(unsure if judged else every, True)]
    if strategy == "in passes":
        nothing: list[Bools] = [np.zeros_like(one) for one in every]
        passes = [(unsure, False), (nothing, True), ([np.logical_not(one) for one in unsure], True)]

    # Counts of the whole set after each step
    counts, seconds = sum((one.counts() for one in pictures), np.zeros(3)), 0.0
    found = [(seconds, *counts)]
    for looked, adds in passes:
        for place in order:
            picture, seconds = pictures[place], seconds + OPEN_S
            others = counts - picture.counts()
            for step in chain(picture.look(looked[place]), picture.add() if adds else ()):
                seconds += step
                found.append((seconds, *(others + picture.counts())))
            counts = others + picture.counts()
    taken, kept, right, met = np.array(found, np.float64).T
    labels = sum(one.weight_L.sum() for one in pictures)
    precision, recall = right / np.maximum(kept, 1), met / max(1, labels)
    return taken / 60, 2 * precision * recall / np.maximum(precision + recall, 1e-9)


def minutes_to(minutes: Floats, quality: Floats, wanted: float) -> float:
    """When a quality is first reached; infinite where it never is."""
    reached = np.flatnonzero(quality >= wanted - 1e-9)
    return float(minutes[reached[0]]) if len(reached) else float("inf")


def compare(name: str, works: Sequence[Work], *, by_size: bool) -> dict[str, object]:
    """Prints and gives a set's table."""
    walks = {"random": [walk(works, "random", seed, by_size=by_size) for seed in range(SEEDS)]}
    others = ("hardest", "verifiers", "by size", "in passes")
    walks |= {strategy: [walk(works, strategy, by_size=by_size)] for strategy in others}
    begins, ends = walks["random"][0][1][0], walks["random"][0][1][-1]
    wanted = [float(begins + level * (ends - begins)) for level in LEVELS]
    table = {
        strategy: {
            "begins": float(found[0][1][0]),
            "ends": float(found[0][1][-1]),
            "minutes": float(found[0][0][-1]),
            "to": [float(np.mean([minutes_to(*one, level) for one in found])) for level in wanted],
        }
        for strategy, found in walks.items()
    }
    print(f"{name}: {len(works)} pictures, {sum(len(one.p_right_N) for one in works)} masks, ", end="")
    print(
        f"{sum(len(one.seconds_L) for one in works)} labels; F1 {'by size ' if by_size else ''}"
        + ", ".join(f"{one:.3f}" for one in wanted)
    )
    for strategy, row in table.items():
        to = "  ".join(f"{one:7.1f}" for one in row["to"])  # type: ignore[attr-defined]
        print(
            f"  {strategy:10s} {row['begins']:.3f} -> {row['ends']:.3f} in {row['minutes']:6.1f} min;  {to}"
        )
    return {"wanted": wanted, "table": table}


def main() -> None:
    """Read the command line, make masks, walk, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nuclei", type=Path, nargs=2, metavar=("COCO", "IMAGES"))
    parser.add_argument("--most", type=int, help="so many pictures of the nuclei")
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = SamSegmenter(load_nano(), device="cpu")
    verifier = load_verifier(None, weights_identity(SegmenterSettings()))

    held: list[Truth] = [
        one
        for place in range(given.scenes)
        for one in scenes([HELD_BACK_SEED + place], SCENE_SIDES[place % 2])
    ]
    sets = {"held-back scenes": held} if held else {}
    if given.nuclei:
        sets["nuclei"] = read_photographs(*given.nuclei)[: given.most]
    found = {}
    for name, truths in sets.items():
        works = [work_of(one, verifier, segmenter) for one in judge(segmenter, NANO, truths)]
        found[name] = compare(name, works, by_size=False)
        found[f"{name}, by size"] = compare(name, works, by_size=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
