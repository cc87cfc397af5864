"""Reviewing a picture in the page: what it opens with, what is left of it, and what is next.

A page opens a picture once and may save it often: after each mask, so that nothing is lost with the server.
All saves of one such sitting say what became of the masks it opened with, and each takes the place of the one
before; so a step taken back is taken back in the next save too. The page brings along what it opened
(`Opening`), and the server keeps nothing between two requests.

It does not know: the web (review_routes.py), and how a save is kept (workers/reviews/keep.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.saves import Base, read_save
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.plan import identity
from maskmill.workers.reviews.keep import Start, Work, begin, keep
from maskmill.workers.reviews.rows import AS_IT_WAS, MaskWork
from maskmill.workers.stages.review import REVIEW

if TYPE_CHECKING:
    from maskmill.storage.browse.filters import Filters
    from maskmill.workers.page.session import Session
    from maskmill.workers.page.shown import Shown
    from maskmill.workers.reviews.keep import Kept

TOOL = "page"
MOST_QUEUED = 1000
WAITED_S = 20.0  # for a search that still goes on
LOOKED_AT = 20_000  # pictures of a search that are looked through for ones that nobody finished


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a page opened, brought along with each save.

    Attributes:
        generation: that was browsed.
        column: of the masks it opened with; None for an empty picture.
        save: the save whose masks it opened with; None where there was none.
        saves: all saves that its person was shown.
    """

    generation: int
    column: str | None = None
    save: int | None = None
    saves: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """A page's work on a picture so far, from opening it.

    Attributes:
        name: drawn by the page when it opened the picture.
        number: of this save within it, from 1.
        last: the dataset's number of its save before; None for the first.
    """

    name: str
    number: int
    last: int | None = None

    @property
    def save_id(self) -> str:
        """The same save sent twice is kept once."""
        return f"{self.name}-{self.number}"


class Reviewing:
    """Pictures opened and saved. Safe to share between threads; keeps nothing itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def queue(self, filters: Filters, sort: str, *, seed: int = 0) -> dict[str, Any]:
        """The keys that are next in an order: pictures found that nobody finished.

        Returns:
            `keys`, and whether they are `complete`: more may be found when it is asked again.

        Raises:
            StorageError: the search fails.
        """
        search = self._session.search(filters, sort)
        found, is_complete = search.keys_so_far(sort, seed=seed, most=LOOKED_AT, wait_s=WAITED_S)
        is_complete = is_complete and len(found) < LOOKED_AT
        people = self._session.people
        saved = people.numbers(fresh=True)
        left: list[str] = []
        for key in found:
            newest = people.newest(key) if key in saved else None
            if newest is None or not newest.finished:
                left.append(key)
            if len(left) == MOST_QUEUED:
                is_complete = False
                break
        return {"keys": left, "complete": is_complete}

    def open(
        self, key: str, who: str, *, blank: bool = False, both: bool = False, ahead: bool = False
    ) -> dict[str, Any]:
        """A picture as its reviewer finds it, what a verifier said of its masks, and who else is there.

        Args:
            key: of the picture.
            who: opens it.
            blank: from an empty picture, where nobody saved yet.
            both: after somebody saved beside: masks of all of them.
            ahead: it comes next: nobody has it open yet.

        Raises:
            StorageError: there is no such picture, or it cannot be read.
        """
        session = self._session
        session.people.numbers(fresh=True)
        column, record = self._record(key, session.shown)
        start = begin(
            session.store,
            key,
            record=record,
            generation=session.generation.number,
            column=column,
            blank=blank,
            both=both,
        )
        session.answers.prepare(key)
        if not ahead:
            session.people.claim(key, who)
        standing = start.standing
        opening = Opening(
            generation=session.generation.number,
            column=start.base.column,
            save=None if standing.in_force is None else standing.in_force.number,
            saves=start.base.saves,
        )
        return {
            "key": key,
            "image": {**start.image, "source": session.catalogue.planned(key).label},
            "rows": list(start.rows),
            "verdict": session.shown.verdict(key),
            "finished": start.finished,
            "opening": opening,
            "saved_by": None if standing.in_force is None else standing.in_force.who,
            "beside": [
                {"who": save.who, "number": save.number, "rows": list(save.annotations) if both else []}
                for save in standing.beside
            ],
            "others": [] if ahead else session.people.others(key, who),
            "saves": list(standing.numbers),
        }

    def here(self, key: str, who: str) -> dict[str, Any]:
        """Somebody has a picture open: who else has, and the saves there are. Raises StorageError."""
        people = self._session.people
        self._session.catalogue.planned(key)
        people.claim(key, who)
        return {"others": people.others(key, who), "saves": list(people.numbers(fresh=True).get(key, ()))}

    def save(
        self,
        key: str,
        who: str,
        opening: Opening,
        sitting: Sitting,
        masks: Sequence[MaskWork],
        *,
        rejected: Sequence[int],
        finished: bool,
        seconds: float,
        clicks: int,
    ) -> Kept:
        """Keeps what is left of a picture.

        Args:
            key, who: of the picture and the person.
            opening, sitting: what the page opened, and how far it is.
            masks, rejected, finished, seconds, clicks: as `Work` has them, since the opening.

        Raises:
            InputError: the work doesn't fit what was opened; nothing is kept.
            StorageError: it cannot be kept.
        """
        store = self._session.store
        if identity(store) != self._session.identity:
            raise DatasetError(f"{store.root}: another dataset lies here now; start `maskmill browse` anew")
        start = self._start(key, opening)
        seen = {*opening.saves, *self._own(key, opening, sitting)}
        start = replace(start, base=replace(start.base, saves=tuple(sorted(seen))))
        known = {int(row["id"]): row for row in start.rows}
        try:
            work = Work(
                who=who,
                tool=TOOL,
                masks=[_with_earlier(mask, known) for mask in masks],
                rejected=tuple(rejected),
                finished=finished,
                seconds=seconds,
                clicks=clicks,
                ignore=start.ignore,
                save_id=sitting.save_id,
            )
        except ValueError as exc:
            raise InputError(f"picture {key}: {exc}") from exc
        kept = keep(store, start, work, created_utc=now_utc())
        self._session.people.numbers(fresh=True)
        return kept

    def _own(self, key: str, opening: Opening, sitting: Sitting) -> Iterator[int]:
        """The sitting's own saves: the last one it was told, and one whose answer it never got."""
        known = max((*opening.saves, sitting.last or 0), default=0)
        if sitting.last is not None:
            yield sitting.last
        if sitting.number == 1:
            return
        for number in self._session.people.numbers(fresh=True).get(key, ()):
            if number > known:
                save_id = read_save(self._session.store, key, number).save_id
                if save_id.startswith(f"{sitting.name}-") and save_id != sitting.save_id:
                    yield number

    def _record(self, key: str, shown: Shown) -> tuple[str, Mapping[str, Any]]:
        """What a picture opens with where nobody saved it: the column, and its record."""
        column = shown.column
        if (reviewed := shown.reviewed(key)) is not None:
            return REVIEW, reviewed
        if (automatic := shown.automatic(key)) is not None:
            return column, automatic
        width, height = shown.size(key)
        image_id = self._session.catalogue.planned(key).image_id
        image = {"image_id": image_id, "width": width, "height": height, "file_name": f"{key}.jpg"}
        return column, {"image": image, "annotations": []}

    def _start(self, key: str, opening: Opening) -> Start:
        """What a page opened, again, of whichever generation it was. Raises InputError, StorageError."""
        if opening.save is not None:
            save = read_save(self._session.store, key, opening.save)
            base = _base(opening)
            return Start(key=key, image=save.image, rows=save.annotations, base=base, ignore=save.ignore)
        column, record = self._record(key, self._session.shown_in(opening.generation))
        if opening.column is None:
            return Start(key=key, image=record["image"], rows=(), base=_base(opening))
        if opening.column != column:
            raise InputError(f"picture {key}: was opened with masks of {opening.column!r}; reload the page")
        rows = tuple({"made_by": "automatic", **row} for row in record["annotations"])
        ignore = (record.get("review") or {}).get("ignore")
        return Start(key=key, image=record["image"], rows=rows, base=_base(opening), ignore=ignore)


def _base(opening: Opening) -> Base:
    return Base(generation=opening.generation, column=opening.column, saves=opening.saves)


def _with_earlier(mask: MaskWork, known: Mapping[int, Mapping[str, Any]]) -> MaskWork:
    """Work on a mask that stays as it was adds to what it had cost before."""
    row = known.get(mask.sources[0]) if mask.how in AS_IT_WAS else None
    if row is None:
        return mask
    return replace(
        mask,
        clicks=mask.clicks + int(row.get("clicks", 0)),
        seconds=mask.seconds + float(row.get("seconds", 0.0)),
        drawn=mask.drawn or bool(row.get("drawn", False)),
    )
