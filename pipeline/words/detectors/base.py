"""What the ground stage asks of a detector: boxes for texts.

Shape suffix: N boxes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.pixels import Pixels

CAPTION_WORDS = 12
"""Words of a phrase cut from a caption at most."""

_BREAKS_TEXT = """
a an the this that these those some any each every no its his her their our my your it he she they we you i
there here who which what where and or but nor while as with without of in on at by for from to into onto over
under above below near next behind beside between among around through across along against inside outside off
up down out is are was were be been being has have had do does did can will would may very so sitting standing
lying holding wearing walking running riding looking playing eating flying parked driving using showing having
"""
_BREAKS = frozenset(_BREAKS_TEXT.split())


@dataclasses.dataclass(frozen=True)
class Query:
    """One text for one pass of a detector.

    Args:
        text: as the model reads it; of a model that reads phrases one by one, for people.
        phrases: what a box may be called; empty where the model names boxes by the words it marks.
    """

    text: str
    phrases: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """N boxes of one image and query, in the model's order.

    Args:
        boxes_xyxy_N4: float64 left, top, right, bottom in px of the image; they may reach beyond it.
        scores_N: float64 in [0, 1].
        labels: what each box is called: a phrase of the query, or the words marked; perhaps empty.
        phrases: the words the model marked for each box, where it marks words; else the label.
    """

    boxes_xyxy_N4: npt.NDArray[np.float64]
    scores_N: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    phrases: tuple[str, ...]


class Detector(Protocol):
    """The detector role."""

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """What finds the things a caption speaks of; several where it is longer than the model reads."""
        ...

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """What finds these phrases; several where they are more than the model reads at once.

        Raises:
            ValueError: a phrase alone is longer than the model reads.
        """
        ...

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """The boxes above the settings' threshold for each image and query; the caller bounds how many."""
        ...


def in_parts(pieces: Sequence[str], size_of: Callable[[str], int], limit: int) -> list[list[str]]:
    """Neighbouring pieces together, as many as fit.

    Args:
        pieces: in order.
        size_of: a piece's share of the limit.
        limit: of each part.

    Raises:
        ValueError: a single piece passes the limit.
    """
    parts: list[list[str]] = []
    room = 0
    for piece in pieces:
        size = size_of(piece)
        if size > limit:
            raise ValueError(f"{piece[:60]!r} takes {size} tokens, the detector reads {limit}: shorten it")
        if not parts or size > room:
            parts.append([])
            room = limit
        parts[-1].append(piece)
        room -= size
    return parts


def caption_phrases(caption: str) -> tuple[str, ...]:
    """Rough noun phrases of an English caption: the words between articles, prepositions, verbs and the like.

    For detectors that want phrases; no parser is involved, and "a dog catching a ball" keeps its verb.
    """
    phrases: list[str] = []
    for clause in re.split(r"[^\w\s'-]+", caption.lower()):
        words: list[str] = []
        for word in [*clause.split(), "the"]:
            if word not in _BREAKS:
                words.append(word)
            elif words:
                phrases.append(" ".join(words[:CAPTION_WORDS]))
                words = []
    return tuple(dict.fromkeys(phrases))


def by_query(
    jobs: Sequence[tuple[Pixels, Query]], detect: Callable[[Sequence[Pixels], Query], Iterable[Detections]]
) -> list[Detections]:
    """What `detect` finds in the images of one query after the other, in the order of the jobs."""
    found: dict[int, Detections] = {}
    for query in dict.fromkeys(query for _, query in jobs):
        places = [place for place, (_, other) in enumerate(jobs) if other == query]
        images = [jobs[place][0] for place in places]
        found |= zip(places, detect(images, query), strict=True)
    return [found[place] for place in range(len(jobs))]
