"""How reviewing goes: masks an hour, seconds a mask by what became of it, by person, and what is left.

Of each sitting the last save counts; its seconds are of work, idle time out, as the page counted them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.saves import Save, saves_of
from maskmill.workers.page.agreement import agreements
from maskmill.workers.page.reviewing import TOOL
from maskmill.workers.reviews.rows import KEPT, fates

if TYPE_CHECKING:
    from maskmill.workers.page.session import Session


@dataclass
class _Tally:
    """What somebody made, or everybody."""

    pictures: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    seconds: float = 0.0
    clicks: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    seconds_by_fate: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, save: Save) -> None:
        """The last save of a sitting."""
        self.pictures.add(save.key)
        if save.finished:
            self.finished.add(save.key)
        self.seconds += save.seconds
        self.clicks += save.clicks
        self.fates.update(dict(fates(save.annotations, save.rejected)))
        for row in save.annotations:
            if row.get("how") != KEPT:
                self.seconds_by_fate[str(row.get("how"))] += float(row.get("seconds", 0.0))

    def facts(self) -> dict[str, Any]:
        """For the page."""
        decided = sum(count for how, count in self.fates.items() if how != KEPT)
        return {
            "pictures": len(self.pictures),
            "finished": len(self.finished),
            "seconds": self.seconds,
            "clicks": self.clicks,
            "masks": decided,
            "masks_an_hour": 3600 * decided / self.seconds if self.seconds else None,
            "fates": [
                {
                    "how": how,
                    "masks": count,
                    "seconds_a_mask": self.seconds_by_fate[how] / count
                    if self.seconds_by_fate[how]
                    else None,
                }
                for how, count in self.fates.most_common()
            ],
        }


def summary(session: Session) -> dict[str, Any]:
    """What the summary page shows. Raises StorageError."""
    people: defaultdict[str, _Tally] = defaultdict(_Tally)
    total = _Tally()
    in_force_finished = 0
    numbers = session.people.numbers(fresh=True)
    sittings: list[list[Save]] = []
    for key in numbers:
        sittings.append(list(last_of_sittings(saves_of(session.store, key))))
        for save in sittings[-1]:
            people[save.who].add(save)
            total.add(save)
        newest = session.people.newest(key)
        in_force_finished += newest is not None and newest.finished
    return {
        "images": session.catalogue.num_images,
        "begun": len(numbers) - in_force_finished,
        "finished": in_force_finished,
        "left": session.catalogue.num_images - in_force_finished,
        "total": total.facts(),
        "people": [{"who": who, **tally.facts()} for who, tally in sorted(people.items())],
        "agreement": agreements(sittings),
        "open": [
            {"key": key, "who": who, "age_s": age_s}
            for key, some in session.people.claimed().items()
            for who, age_s in some
        ],
    }


def last_of_sittings(saves: Iterable[Save]) -> Iterator[Save]:
    """Of one picture's saves those that no later save of the same sitting took the place of."""
    last: dict[str, Save] = {}
    for save in saves:
        sitting = save.save_id.rpartition("-")[0] if save.tool == TOOL else ""
        last[sitting or save.save_id] = save
    yield from last.values()
