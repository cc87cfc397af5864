"""The one way in for what people make: begin a picture, and keep what was left of it.

    start = begin(store, key, generation=3, column="masks", record=record)
    work = Work(who="Ana", tool="page", masks=..., rejected=..., finished=True)
    kept = keep(store, start, work, created_utc=now_utc())

`begin` gives what there is: the save in force; else what was reviewed before there were saves; else the
automatic masks. `keep` checks, and puts a save that nothing overwrites. Where somebody else saved meanwhile
it is kept beside theirs, and both are told of (storage/dataset/saves.py).

Takes no lock and needs none; the `review` column takes saves up when a generation is published (column.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskmill.pipeline.checks import check_choice, check_int, check_range, check_type
from maskmill.pipeline.rle import Rle
from maskmill.storage.dataset.saves import Base, Save, Standing, put_save, standing_of
from maskmill.storage.errors import InputError
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.reviews.rows import AUTOMATIC, MAKERS, PERSON, MaskWork, rows_of
from maskmill.workers.run.columns import MASKS

MAX_NAME = 200
MAX_NOTE = 10_000


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a person finds of a picture.

    Attributes:
        key: of the picture.
        image: image_id, width, height, file_name.
        rows: its masks, each with an id and `made_by`; ids are good until the next save.
        base: to be handed back with what was made of it.
        standing: the saves there were.
        finished: whether somebody said that nothing is missing.
        ignore: pixels that count nowhere, as COCO run lengths.
    """

    key: str
    image: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    base: Base
    standing: Standing = field(default_factory=Standing)
    finished: bool = False
    ignore: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a person leaves of a picture.

    Args:
        who: the person's name.
        tool: what it was made with.
        masks: all that there are now.
        rejected: ids of the base's masks that are no masks.
        finished: everything that is to be found is there.
        made_by: "person", or "oracle" for one that stands in for people.
        seconds: of work, without idle time.
        clicks: given in all.
        ignore: pixels that count nowhere, as COCO run lengths.
        note: for people.
        save_id: of this work: the same again is the same save; "" makes one.

    Raises:
        ValueError: a value out of its range.
    """

    who: str
    tool: str
    masks: Sequence[MaskWork]
    rejected: Sequence[int] = ()
    finished: bool = False
    made_by: str = PERSON
    seconds: float = 0.0
    clicks: int = 0
    ignore: Mapping[str, Any] | None = None
    note: str = ""
    save_id: str = ""

    def __post_init__(self) -> None:
        for name in ("who", "tool", "note", "save_id"):
            check_type(name, getattr(self, name), str)
            most = MAX_NOTE if name == "note" else MAX_NAME
            check_int(f"length of {name}", len(getattr(self, name)), 0, most)
        if not self.who.strip() or not self.tool.strip():
            raise ValueError("a save says who made it and with what: give a name")
        check_choice("made_by", self.made_by, MAKERS)
        check_type("finished", self.finished, bool)
        check_range("seconds", self.seconds, 0.0, 1e9)
        check_int("clicks", self.clicks, 0, 10**9)


@dataclass(frozen=True)
class Kept:
    """What was kept.

    Attributes:
        save: as it is stored.
        standing: the saves of the picture now.
    """

    save: Save
    standing: Standing

    @property
    def is_beside(self) -> bool:
        """Somebody else saved since this was begun: theirs is in force, and a person has to look at both."""
        in_force = self.standing.in_force
        return in_force is not None and self.save.number not in (in_force.number, *in_force.earlier)


def begin(
    store: ObjectStore,
    key: str,
    *,
    record: Mapping[str, Any],
    generation: int | None,
    column: str = MASKS,
    blank: bool = False,
    both: bool = False,
) -> Start:
    """What there is of a picture, to go on from.

    Args:
        store: the dataset.
        key: of the picture.
        record: SA-1B's, of that column; of the review column where it has one (`made_by` stays).
        generation: the record's.
        column: the record's.
        blank: begin from an empty picture where nobody saved yet (assisted-manual).
        both: the person is shown what stands beside too, so that the next save takes the place of all. Masks
            taken over from there are `added`: the rows are those of the save in force.

    Raises:
        DamagedObject: a save cannot be read.
    """
    found = standing_of(store, key)
    if found.in_force is not None:
        save = found.in_force
        return Start(
            key=key,
            image=save.image,
            rows=save.annotations,
            base=Base(generation=generation, column=column, saves=found.numbers if both else (save.number,)),
            standing=found,
            finished=save.finished,
            ignore=save.ignore,
        )
    facts = record.get("review") or {}
    if blank and not facts:
        return Start(key=key, image=record["image"], rows=(), base=Base(generation=generation))
    rows = tuple({"made_by": AUTOMATIC, **row} for row in record["annotations"])
    return Start(
        key=key,
        image=record["image"],
        rows=rows,
        base=Base(generation=generation, column=column),
        finished=bool(facts.get("complete", False)),
        ignore=facts.get("ignore"),
    )


def keep(store: ObjectStore, start: Start, work: Work, *, created_utc: str) -> Kept:
    """Keeps what was left of a picture.

    Args:
        store: the dataset.
        start: as `begin` gave it, or one with the same base and rows.
        work: what was made of it.
        created_utc: ISO 8601.

    Raises:
        InputError: the work and what it was begun from don't fit; says how. Nothing is kept.
        Recalled: the picture was forgotten meanwhile.
        StoreUnavailable, OutOfSpace, AccessDenied: the store does not take it.
    """
    try:
        rows = rows_of(work.masks, work.rejected, base=start.rows, image=start.image, made_by=work.made_by)
        if work.ignore is not None:
            Rle.from_coco(work.ignore)
    except ValueError as exc:
        raise InputError(f"picture {start.key}: {exc}") from exc

    save = put_save(
        store,
        Save(
            key=start.key,
            save_id=work.save_id or uuid.uuid4().hex[:16],
            who=work.who.strip(),
            made_by=work.made_by,
            tool=work.tool,
            created_utc=created_utc,
            seconds=float(work.seconds),
            clicks=work.clicks,
            base=start.base,
            finished=work.finished,
            image=dict(start.image),
            annotations=rows,
            rejected=tuple(work.rejected),
            ignore=work.ignore,
            note=work.note,
        ),
    )
    return Kept(save, standing_of(store, start.key))
