"""Named sets of pictures: what somebody chose while looking through, for later work.

    sets/<name>/000001.json      numbered put-if-absent records; the highest is in force

A set is the keys as they were chosen, not the question that found them: it stays the same while masks change.
Saving a name again makes the next record; the earlier ones stay.

It doesn't know: how keys were found (storage/browse/), or what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from maskmill.storage.errors import DamagedObject, InputError, NoSuchThing, StoreUnavailable
from maskmill.storage.json_text import load_json, sealed
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore

FORMAT_VERSION = 1
FOLDER = "sets"
MAX_RACES = 20
MOST_KEYS = 5_000_000

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A set of pictures.

    Attributes:
        name: small letters, digits and ". _ -", at most 63.
        keys: of its pictures, in order, each once.
        generation: that was looked through.
        said: what was asked for, in words, for people.
        who: chose them.
        created_utc: ISO 8601.
        number: of this record, from 1.
    """

    name: str
    keys: tuple[str, ...]
    generation: int
    said: str
    who: str
    created_utc: str
    number: int = 0


def save_set(store: ObjectStore, found: PictureSet) -> PictureSet:
    """Keeps a set under its name, in front of an earlier one.

    Args:
        store: the dataset.
        found: its number is given here.

    Raises:
        InputError: the name cannot be a set's, or there are no pictures, or too many.
        StoreUnavailable: too many others save this name at once.
    """
    if not _NAME.fullmatch(found.name):
        raise InputError(
            f"{found.name[:80]!r} cannot be a set's name: use small letters, digits, '.', '_' and '-', "
            "at most 63"
        )
    if not 1 <= len(found.keys) <= MOST_KEYS:
        raise InputError(f"a set of {len(found.keys)} pictures: 1 to {MOST_KEYS:,} can be kept")
    keys = tuple(sorted(set(found.keys)))
    for _ in range(MAX_RACES):
        number = max(_numbers(store).get(found.name, ()), default=0) + 1
        numbered = replace(found, keys=keys, number=number)
        data = sealed({**asdict(numbered), "format_version": FORMAT_VERSION})
        if store.put_if_absent(f"{FOLDER}/{found.name}/{number:06d}.json", data):
            return numbered
    raise StoreUnavailable(f"{store.root}: others keep saving set {found.name!r}; try again")


def load_set(store: ObjectStore, name: str) -> PictureSet:
    """The set in force, less forgotten pictures.

    Raises:
        NoSuchThing: there is no such set; says which there are.
        DamagedObject: it cannot be read.
    """
    numbers = _numbers(store)
    if name not in numbers:
        there = ", ".join(sorted(numbers)) or "none: `maskmill browse` saves what is found as a set"
        raise NoSuchThing(f"{store.root}: there is no set of pictures {name[:80]!r}; there are {there}")
    place = f"{FOLDER}/{name}/{max(numbers[name]):06d}.json"
    try:
        fields = load_json(store.read(place))
        if fields.pop("format_version") != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{place}: of a newer format; update maskmill")
        found = PictureSet(**{**fields, "keys": tuple(str(key) for key in fields["keys"])})
    except (ValueError, KeyError, TypeError) as exc:
        raise DamagedObject(f"{store.root}/{place}: not a readable set of pictures ({exc})") from exc
    forgotten = load_plans(store).forgotten
    return replace(found, keys=tuple(key for key in found.keys if key not in forgotten))


def set_numbers(store: ObjectStore) -> Mapping[str, int]:
    """The names of all sets, and the number of the record in force of each."""
    return {name: max(numbers) for name, numbers in sorted(_numbers(store).items())}


def shards_of(store: ObjectStore, keys: Iterable[str]) -> frozenset[int]:
    """The shards that pictures are in. Raises DatasetError for a key that no plan has."""
    plan = load_plans(store)
    return frozenset(plan.shard_of(key) for key in keys)


def _numbers(store: ObjectStore) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for info in store.list(f"{FOLDER}/"):
        _, name, *rest = info.name.split("/")
        if len(rest) == 1 and rest[0].endswith(".json") and rest[0][:-5].isdigit():
            found.setdefault(name, []).append(int(rest[0][:-5]))
    return found
