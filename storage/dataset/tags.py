"""Tags: names for generations, such as "best" or "paper".

    tags/<name>/000001.json      numbered put-if-absent records; the highest is in force

A tag can be moved and taken away, and keeps its history: each change is a further record, numbered when its
writer looked. So of two writers of one tag the later one is told, also where it slept in between: a move
never covers another that its writer has not seen.

It doesn't know: whether the generation it names has been looked at; `set_tag` checks that it exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from maskmill.storage.dataset.generations import (
    Generation,
    latest,
    list_generations,
    load_generation,
    none_yet,
)
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import DamagedObject, InputError, NoSuchThing, Overtaken
from maskmill.storage.json_text import load_json, sealed
from maskmill.storage.stores.base import ObjectStore

FORMAT_VERSION = 1
FOLDER = "tags"
LONGEST_NUMBER = 20
"""Digits of a generation that are read: more would be no number of one, however it went on."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Tag:
    """What a tag says.

    Attributes:
        name: small letters, digits and ". _ -", at most 63; no number, which would be a generation's own.
        generation: the one it names; None once it was taken away.
        created_utc: of this record, ISO 8601.
        note: for people.
    """

    name: str
    generation: int | None
    created_utc: str
    note: str = ""


def set_tag(
    store: ObjectStore, name: str, generation: int | None, *, created_utc: str, note: str = ""
) -> Tag:
    """Names a generation, moves the name, or takes it away (None).

    Raises:
        InputError: the name cannot be a tag's.
        NoSuchThing: there is no such generation, or a tag to be taken away isn't there.
        Overtaken: somebody else moved it meanwhile, elsewhere.
        LeaseLost: this driver counts as dead.
    """
    if not _NAME.fullmatch(name) or name.isdigit() or name == "latest":
        raise InputError(
            f"{name!r} cannot be a tag: use small letters, digits, '.', '_' and '-', at most 63, "
            "not a number alone and not 'latest'"
        )
    number = max(_numbers(store, name), default=0) + 1
    if generation is None and name not in tags(store):
        raise NoSuchThing(
            f"{store.root}: there is no tag {name!r}; there are {sorted(tags(store)) or 'none'}"
        )
    if generation is not None:
        load_generation(store, generation)

    tag = Tag(name=name, generation=generation, created_utc=created_utc, note=note)
    place = f"{FOLDER}/{name}/{number:06d}.json"
    check_lease(store)
    if store.put_if_absent(place, sealed({**asdict(tag), "format_version": FORMAT_VERSION})):
        return tag

    winner = tag_history(store, name)[-1]
    if winner.generation == generation:
        return winner
    names = "was taken away" if winner.generation is None else f"names generation {winner.generation} now"
    raise Overtaken(
        f"{store.root}: somebody else moved tag {name!r} meanwhile: it {names}; "
        "look, and run the same command again if it is still right"
    )


def tags(store: ObjectStore) -> dict[str, Tag]:
    """The tags in force, by name. Raises DamagedObject."""
    newest: dict[str, str] = {}
    for info in store.list(f"{FOLDER}/"):
        parts = info.name.split("/")
        if len(parts) == 3 and parts[2].endswith(".json"):
            newest[parts[1]] = info.name  # listed by name: the last one is the highest
    found = {name: _read(store, place) for name, place in sorted(newest.items())}
    return {name: tag for name, tag in found.items() if tag.generation is not None}


def tag_history(store: ObjectStore, name: str) -> list[Tag]:
    """Every record of a tag, the oldest first."""
    return [_read(store, f"{FOLDER}/{name}/{number:06d}.json") for number in sorted(_numbers(store, name))]


def resolve(store: ObjectStore, text: str) -> int | None:
    """The generation that a person means: a number, a tag, or "latest" (None).

    Raises:
        NoSuchThing: no tag of this name; says which there are.
    """
    if text == "latest":
        return None
    if text.isascii() and text.isdigit():
        return int(text[:LONGEST_NUMBER])
    found = tags(store)
    if text not in found and not list_generations(store):
        raise none_yet(store)
    if text not in found:
        raise NoSuchThing(
            f"{store.root}: {text[:60]!r} is no generation: use a number, 'latest' or a tag "
            f"({', '.join(sorted(found)) or 'there are none'})"
        )
    return found[text].generation


def find_generation(store: ObjectStore, which: int | str | None = None) -> Generation:
    """A generation by number or tag, or the latest.

    Raises:
        NoSuchThing: there is none yet, or none of this number or tag.
    """
    number = resolve(store, which) if isinstance(which, str) else which
    found = load_generation(store, number) if number is not None else latest(store)
    if found is None:
        raise none_yet(store)
    return found


def _numbers(store: ObjectStore, name: str) -> Iterator[int]:
    prefix = f"{FOLDER}/{name}/"
    for info in store.list(prefix):
        stem = info.name[len(prefix) :].removesuffix(".json")
        if stem.isdigit():
            yield int(stem)


def _read(store: ObjectStore, name: str) -> Tag:
    try:
        fields = load_json(store.read(name))
        if fields.pop("format_version") != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{name}: of a newer format; update maskmill")
        return Tag(**fields)
    except (ValueError, KeyError, TypeError) as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable tag ({exc})") from exc
