"""The addresses of reviewing; see app.py for the others.

/api/review/queue      what is next, in an order
/api/review/open       a picture with its masks, and who else has it open
/api/review/answer     the mask that clicks ask for
/api/review/save       what is left of a picture
/api/review/here       this person still has the picture open; who else
/api/review/leave      this person has it open no more
/api/review/summary    how much was made, how fast, and what is left
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Response

from maskmill.storage.browse.filters import Filters
from maskmill.storage.errors import InputError
from maskmill.workers.page.json_answer import json_answer
from maskmill.workers.page.reviewing import Opening, Sitting
from maskmill.workers.page.summary import summary
from maskmill.workers.reviews.rows import MaskWork

if TYPE_CHECKING:
    from maskmill.workers.page.session import Session

Name = Annotated[str, Body(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Clicks on a picture; see `Clicks` (pipeline/segmenters/interactive.py)."""

    key: str
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class SentMask:
    """A mask as a page sends it; see `MaskWork` (workers/reviews/rows.py)."""

    how: str
    sources: tuple[int, ...] = ()
    segmentation: dict[str, Any] | None = None
    label: str | None = None
    clicks: int = 0
    seconds: float = 0.0
    drawn: bool = False
    points: tuple[tuple[float, float], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def work(self) -> MaskWork:
        """As saves take it. Raises ValueError."""
        return MaskWork(
            how=self.how,
            sources=self.sources,
            segmentation=self.segmentation,
            label=self.label,
            clicks=self.clicks,
            seconds=self.seconds,
            drawn=self.drawn,
            points_xy=self.points,
            box_xywh=self.box,
        )


@dataclass(frozen=True, kw_only=True)
class SentSave:
    """What is left of a picture, as a page sends it."""

    key: str
    who: str
    opening: Opening
    sitting: Sitting
    masks: tuple[SentMask, ...]
    rejected: tuple[int, ...] = ()
    finished: bool = False
    seconds: float = 0.0
    clicks: int = 0


@dataclass(frozen=True, kw_only=True)
class SentQueue:
    """Which pictures, in which order."""

    filters: Filters = field(default_factory=Filters)
    sort: str = "key"
    seed: int = 0


def add_review(app: FastAPI, session: Session) -> None:
    """Adds the addresses to an app."""
    _add_work(app, session)
    _add_presence(app, session)


def _add_work(app: FastAPI, session: Session) -> None:
    @app.post("/api/review/queue")
    def queue(sent: SentQueue) -> Response:
        """The pictures to review, in order."""
        return json_answer(session.reviewing.queue(sent.filters, sent.sort, seed=sent.seed))

    @app.post("/api/review/open")
    def open(
        key: Annotated[str, Body()],
        who: Name,
        blank: Annotated[bool, Body()] = False,
        both: Annotated[bool, Body()] = False,
        ahead: Annotated[bool, Body()] = False,
    ) -> Response:
        """A picture with the masks to begin from."""
        return json_answer(session.reviewing.open(key, who, blank=blank, both=both, ahead=ahead))

    @app.post("/api/review/answer")
    def answer(asked: Asked) -> Response:
        """The mask that clicks ask for."""
        return json_answer(_answer(session, asked))

    @app.post("/api/review/save")
    def save(sent: SentSave) -> Response:
        """Keeps what a person made. Raises InputError for masks that are none."""
        try:
            masks = [mask.work() for mask in sent.masks]
        except ValueError as exc:
            raise InputError(f"picture {sent.key}: {exc}") from exc
        kept = session.reviewing.save(
            sent.key,
            sent.who,
            sent.opening,
            sent.sitting,
            masks,
            rejected=sent.rejected,
            finished=sent.finished,
            seconds=sent.seconds,
            clicks=sent.clicks,
        )
        in_force = kept.standing.in_force
        by = None if in_force is None else in_force.who
        return json_answer({"number": kept.save.number, "beside": kept.is_beside, "in_force_by": by})

    @app.get("/api/review/summary")
    def told() -> Response:
        """How far reviewing is."""
        return json_answer(summary(session))


def _add_presence(app: FastAPI, session: Session) -> None:
    @app.post("/api/review/here")
    def here(key: Annotated[str, Body()], who: Name) -> Response:
        """Somebody has a picture open; says who else has, and which saves there are."""
        return json_answer(session.reviewing.here(key, who))

    @app.post("/api/review/leave")
    def leave(key: Annotated[str, Body()], who: Name) -> Response:
        """Somebody has closed a picture."""
        session.catalogue.planned(key)
        session.people.release(key, who)
        return json_answer({})


def _answer(session: Session, asked: Asked) -> dict[str, Any]:
    """The mask that clicks ask for. Raises InputError, StorageError, WeightsError."""
    from maskmill.pipeline.segmenters.interactive import Clicks

    began_s = time.perf_counter()
    session.catalogue.planned(asked.key)
    try:
        clicks = Clicks(asked.points, asked.labels, asked.box, asked.choice)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    found = session.answers.answer(asked.key, clicks)
    return {
        "segmentation": found.mask.to_coco(),
        "predicted_iou": found.predicted_iou,
        "outputs": found.outputs,
        "seconds": time.perf_counter() - began_s,
    }
