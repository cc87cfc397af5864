"""Saves: what people made of a picture, each a numbered record that nothing changes.

    review/saves/<key>/000007.json      put-if-absent, sealed; the whole of what one person left at one time

A save says who, when, how long, with how many clicks and which tool; what it began from (`Base`); every mask
that there is now, and the masks of its base that were rejected. It stands alone: no other record is needed to
read its masks.

Which one is in force follows from the saves alone, in the order of their numbers: the first is; a later one
takes its place where it names it among the saves it began from. One that doesn't was begun from something
older, or from nothing: two people worked on one picture, or a file was read that didn't know of the other. It
stands beside, readable and shown, until a save that began from both follows. So no save ever covers another
that its maker has not seen, and none is lost.

It doesn't know: what a mask is, or the words for what became of one (workers/reviews/); who is at work now
(drivers/claims.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from maskmill.storage.errors import DamagedObject, DatasetError, InputError, Recalled, StoreUnavailable
from maskmill.storage.json_text import from_json, load_object, sealed
from maskmill.storage.plan.marks import forget_command
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order

FORMAT_VERSION = 1
FOLDER = "review/saves"
MAX_RACES = 100
THREADS = 16

_NAME = re.compile(rf"{FOLDER}/([^/]+)/(\d{{6,}})\.json")


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a save began from.

    Attributes:
        generation: whose masks its maker saw; None where there was none.
        column: of that generation: "masks", an import's name, or "review" for what was reviewed before there
            were saves. None: an empty picture.
        saves: numbers of the saves that its maker saw, and that it takes the place of: none, the one in
            force, or that one and those beside it.
    """

    generation: int | None = None
    column: str | None = None
    saves: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Save:
    """What one person left of one picture.

    Attributes:
        key: of the picture.
        number: from 1, given by `put_save`.
        save_id: of this work; putting it again is the same save.
        who: a person's name, or what stood in for one.
        made_by: "person" or "oracle".
        tool: what it was made with: "page", "import", "given", "assisted", ...
        created_utc: ISO 8601.
        seconds: of work, without idle time; 0 where nobody counted.
        clicks: given in all.
        base: what it began from.
        earlier: numbers of all saves that it takes the place of, at any remove; given by `put_save`.
        finished: everything that is to be found in the picture is there.
        image: image_id, width, height, file_name.
        annotations: every mask that there is now: SA-1B's rows, with made_by, how, from, clicks, seconds,
            drawn and label (workers/reviews/rows.py).
        rejected: ids of the base's masks that are no masks.
        ignore: COCO run lengths of pixels that count nowhere (crowds).
        note: for people.
    """

    key: str
    number: int = 0
    save_id: str
    who: str
    made_by: str
    tool: str
    created_utc: str
    seconds: float
    clicks: int
    base: Base
    earlier: tuple[int, ...] = ()
    finished: bool
    image: Mapping[str, Any]
    annotations: tuple[Mapping[str, Any], ...]
    rejected: tuple[int, ...] = ()
    ignore: Mapping[str, Any] | None = None
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """How the saves of a picture stand to each other.

    Attributes:
        in_force: what counts; None where there is no save.
        beside: those that were begun from something older and wait for a person to look at both.
    """

    in_force: Save | None = None
    beside: tuple[Save, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """What a save that has seen all of this names as its base."""
        newest = (self.in_force,) if self.in_force is not None else ()
        return tuple(sorted(save.number for save in (*newest, *self.beside)))


def put_save(store: ObjectStore, save: Save) -> Save:
    """Keeps a save under the next number, whoever else saves meanwhile.

    Args:
        store: the dataset.
        save: its number is given here; its `save_id` makes a repeated call the same save.

    Returns:
        As it is kept, with its number; the earlier one where this work was kept before.

    Raises:
        InputError: no such picture is planned, or the save names saves that are not there.
        Recalled: the picture was forgotten; nothing of the save is kept.
        StoreUnavailable: too many others save this picture at once.
        DamagedObject: an earlier save of the picture cannot be read.
    """
    _refuse_forgotten(store, save.key)
    based = [read_save(store, save.key, number) for number in _known(store, save)]
    again = next((one for one in based if one.save_id == save.save_id), None)
    if again is not None:
        return again
    earlier = {number for one in based for number in (one.number, *one.earlier)}
    newest = max(save.base.saves, default=0)
    for _ in range(MAX_RACES):
        # A save that was begun from these has a higher number: was this very work kept before?
        there = _numbers(store, f"{FOLDER}/{save.key}/")[save.key]
        for number in sorted(number for number in there if number > newest):
            newest, found = number, read_save(store, save.key, number)
            if found.save_id == save.save_id:
                return found

        numbered = replace(save, number=max(there, default=0) + 1, earlier=tuple(sorted(earlier)))
        name = save_name(save.key, numbered.number)
        if store.put_if_absent(name, _bytes(numbered)):
            _look_again(store, name, save.key)
            return numbered
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other saves of {save.key} came meanwhile; try again")


def _known(store: ObjectStore, save: Save) -> tuple[int, ...]:
    """The saves that one was begun from. Raises InputError where one isn't there."""
    there = set(_numbers(store, f"{FOLDER}/{save.key}/")[save.key]) if save.base.saves else set[int]()
    for number in save.base.saves:
        if number not in there:
            raise InputError(f"{store.root}: picture {save.key} has no save {number} to begin from")
    return save.base.saves


def _look_again(store: ObjectStore, name: str, key: str) -> None:
    """After the write: was the picture forgotten since the first look? Raises Recalled."""
    try:
        _refuse_forgotten(store, key)
    except Recalled:
        store.delete(name)
        raise


def saves_of(store: ObjectStore, key: str) -> tuple[Save, ...]:
    """Every save of a picture, the oldest first; none if nobody saved it. Raises DamagedObject."""
    return tuple(read_save(store, key, number) for number in sorted(_numbers(store, f"{FOLDER}/{key}/")[key]))


def standing(saves: Sequence[Save]) -> Standing:
    """Which save of one picture is in force, and which stand beside.

    Args:
        saves: all of the picture, the oldest first.
    """
    in_force: Save | None = None
    for save in saves:
        if in_force is None or in_force.number in save.earlier:
            in_force = save
    if in_force is None:
        return Standing()

    seen = {in_force.number, *in_force.earlier}
    left = [save for save in saves if save.number not in seen]
    covered = {number for save in left for number in save.earlier}
    return Standing(in_force, tuple(save for save in left if save.number not in covered))


def standing_of(store: ObjectStore, key: str) -> Standing:
    """The saves of a picture and how they stand; reads the newest alone where it has seen all others.

    Raises:
        DamagedObject: a save cannot be read.
    """
    numbers = set(_numbers(store, f"{FOLDER}/{key}/")[key])
    if not numbers:
        return Standing()
    newest = read_save(store, key, max(numbers))
    if numbers <= {newest.number, *newest.earlier}:
        return Standing(newest)
    return standing(saves_of(store, key))


def saved_numbers(store: ObjectStore) -> dict[str, tuple[int, ...]]:
    """The numbers of the saves of every picture that has any, by key; from the names alone."""
    return {key: tuple(sorted(numbers)) for key, numbers in sorted(_numbers(store, f"{FOLDER}/").items())}


def read_standings(store: ObjectStore, keys: Collection[str]) -> Iterator[tuple[str, Standing]]:
    """The standing of many pictures, in the order of their keys, a few in memory at a time.

    Raises:
        DamagedObject: a save cannot be read.
    """

    def read(key: str) -> Iterator[tuple[str, Standing]]:
        """One picture's."""
        yield key, standing_of(store, key)

    with closing(in_order(sorted(keys), read, THREADS)) as found:
        yield from found


def save_name(key: str, number: int) -> str:
    """Where a save is."""
    return f"{FOLDER}/{key}/{number:06d}.json"


def read_save(store: ObjectStore, key: str, number: int) -> Save:
    """One save.

    Raises:
        DamagedObject: it isn't what was written, is of a newer format, or of another picture or number.
        ObjectNotFound: there is none of this number.
    """
    name = save_name(key, number)
    try:
        fields = load_object(store.read(name))
        if fields.pop("format_version", None) != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{name}: of a newer format; update maskmill")
        save = from_json(Save, fields)
    except ValueError as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable save ({exc})") from exc
    if (save.key, save.number) != (key, number):
        raise DamagedObject(f"{store.root}/{name}: says it is save {save.number} of {save.key}")
    return save


def _refuse_forgotten(store: ObjectStore, key: str) -> None:
    """Raises InputError for a key that was never planned, Recalled for one that was forgotten."""
    plan = load_plans(store)
    try:
        plan.shard_of(key)
    except DatasetError as exc:
        raise InputError(f"{store.root}: {exc}") from exc
    if key in plan.forgotten:
        raise Recalled(
            f"{store.root}: picture {key} was forgotten ({forget_command(store, [key])}); "
            "nothing of it can be saved"
        )


def _numbers(store: ObjectStore, prefix: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for info in store.list(prefix):
        match = _NAME.fullmatch(info.name)
        if match:
            found[match[1]].append(int(match[2]))
    return found


def _bytes(save: Save) -> bytes:
    return sealed({**asdict(save), "format_version": FORMAT_VERSION}, compact=True)
