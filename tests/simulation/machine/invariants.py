"""What must hold of a dataset whatever happened to it, read from the store's bytes by other code than the
product's.

always      what was published, planned, tagged or promoted is never changed or removed
at rest     every planned image once, in every column, annotated or rejected with a reason; nothing named is
            missing or other bytes; nothing forgotten is anywhere; all small records can be read
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

from tests.simulation.machine.store import Objects

FOREVER = re.compile(
    r"plan/\d+\.json|generations/\d+/generation\.json|tags/.*\.json|models/.*\.json|review/saves/.*\.json"
)


@dataclass
class Watch:
    """Sees every change of the store as it happens.

    Attributes:
        broken: changes that must never be.
        objects: the dataset's, as they are.
    """

    broken: list[str] = field(default_factory=list)
    objects: Objects = field(default_factory=dict)
    _kept: dict[str, bytes] = field(default_factory=dict)
    _manifests: dict[str, str] = field(default_factory=dict)

    def change(self, space: str, name: str, data: bytes | None) -> None:
        """To be called before it."""
        if space != "data":
            return
        if FOREVER.fullmatch(name):
            if name in self._kept and data != self._kept[name] and not self._may_go(name, data):
                self.broken.append(f"{name} was {'removed' if data is None else 'changed'}")
            if data is not None:
                self._kept[name] = data
                if name.startswith("generations/"):
                    self._keep_manifest(json.loads(data))
        elif name in self._manifests and hashlib.sha256(data or b"").hexdigest() != self._manifests[name]:
            self.broken.append(f"{name}, a published manifest, was changed or removed")

    def _may_go(self, name: str, data: bytes | None) -> bool:
        """What people made of a picture that is to be forgotten."""
        return (
            data is None
            and name.startswith("review/saves/")
            and name.split("/")[2] in marked_keys(self.objects)
        )

    def _keep_manifest(self, generation: dict[str, Any]) -> None:
        self._manifests[generation["manifest"]["name"]] = generation["manifest"]["sha256"]


@dataclass(frozen=True)
class Looked:
    """What a look at a dataset found wrong; nothing in a sound one.

    Attributes:
        lost: images that are nowhere, or objects that are named and not there.
        wrong: images twice, bytes or keys that are not those that belong there.
        forgotten: images that are there though the plan marks them as forgotten.
    """

    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    forgotten: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not (self.lost or self.wrong or self.forgotten)


def look(objects: Objects) -> Looked:
    """At a dataset's bytes: its plans, its latest generation, every object."""
    plans = [_json(objects, name) for name in sorted(objects) if re.fullmatch(r"plan/\d+\.json", name)]
    keys = {f"{one + 1:09d}" for plan in plans for one in _ids(plan)}
    marked = marked_keys(objects)
    lost: list[str] = []
    wrong: list[str] = []
    rows = in_force(objects)
    columns: dict[str, Counter[str]] = {}
    passed: dict[int, set[str]] = {}
    for row in sorted(rows, key=lambda row: (row["column"] != "images", row["shard"])):
        found, rejects = _contents(objects, row, lost, wrong)
        seen = columns.setdefault(row["column"], Counter())
        seen.update(found + rejects)
        if row["column"] == "images":
            passed[row["shard"]] = set(found)
            seen_by_images = set(found) | set(rejects)
            wrong += [
                f"{key} in shard {row['shard']}, where it was not planned" for key in seen_by_images - keys
            ]
        elif set(found) | set(rejects) != passed.get(row["shard"], set()) and row["shard"] in passed:
            wrong.append(f"{row['column']} of shard {row['shard']} has other keys than images")
    wrong += [f"{key} twice in {name}" for name, seen in columns.items() for key, n in seen.items() if n > 1]
    if rows:
        lost += [
            f"{key} is not in the images" for key in sorted(keys - columns.get("images", Counter()).keys())
        ]
        reached = set().union(*passed.values()) if passed else set()
        lost += [f"{key} has no masks" for key in sorted(reached - columns.get("masks", Counter()).keys())]
    else:
        lost += [f"{key}: nothing is there of it" for key in sorted(keys)]
    return Looked(tuple(lost), tuple(wrong), tuple(_anywhere(objects, marked)))


def marked_keys(objects: Objects) -> set[str]:
    """Keys that a plan marks as forgotten."""
    plans = [name for name in objects if re.fullmatch(r"plan/\d+\.json", name)]
    return {key for name in plans for key in _json(objects, name)["forgotten"]}


def lost_saves(objects: Objects, saved: set[tuple[str, str]]) -> Iterator[str]:
    """Saves that a person was told are kept, and that nobody can read."""
    there = {
        (name.split("/")[2], _json(objects, name)["save_id"])
        for name in objects
        if name.startswith("review/saves/")
    }
    marked = marked_keys(objects)
    yield from (f"the save {one} is gone" for one in sorted(saved - there) if one[0] not in marked)


def in_force(objects: Objects) -> list[dict[str, Any]]:
    """The latest generation's rows and, beyond it, what is committed of its column versions."""
    names = [name for name in sorted(objects) if re.fullmatch(r"generations/\d+/generation\.json", name)]
    rows = latest_rows(objects)
    there = {(row["shard"], row["column"]) for row in rows}
    for column, digits in (_json(objects, names[-1])["columns"] if names else _fullest(objects)).items():
        newest: dict[int, tuple[int, str]] = {}
        for name in objects:
            if found := re.fullmatch(rf"{column}/{digits}/commits/(\d+)(?:\.r(\d+))?\.json", name):
                newest[int(found[1])] = max(newest.get(int(found[1]), (-1, "")), (int(found[2] or 0), name))
        rows += [
            _row_of(objects, name) for shard, (_, name) in newest.items() if (shard, column) not in there
        ]
    return rows


def _fullest(objects: Objects) -> dict[str, str]:
    """Without a generation: the version of each column with the most shards, the first of equals."""
    shards = Counter(tuple(name.split("/")[:2]) for name in sorted(objects) if "/commits/" in name)
    best: dict[str, str] = {}
    for (column, digits), number in shards.items():
        if column not in best or number > shards[column, best[column]]:
            best[column] = digits
    return best


def _row_of(objects: Objects, name: str) -> dict[str, Any]:
    record = _json(objects, name)
    sha256 = hashlib.sha256(objects[name][0]).hexdigest()
    row = {"shard": record["shard"], "column": record["column"], "record": name, "record_sha256": sha256}
    for part in ("data", "index"):
        found = record[part] or {}
        row |= {f"{part}_name": found.get("name"), f"{part}_sha256": found.get("sha256")}
    return row


def latest_rows(objects: Objects) -> list[dict[str, Any]]:
    """The manifest's rows of the latest generation."""
    names = [name for name in sorted(objects) if re.fullmatch(r"generations/\d+/generation\.json", name)]
    if not names:
        return []
    manifest = _json(objects, names[-1])["manifest"]
    if manifest["name"] not in objects:
        return []
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(objects[manifest["name"]][0])).to_pylist()
    return rows


def broken_links(objects: Objects) -> Iterator[str]:
    """Manifests that a published generation of any number names, and that are gone or other bytes."""
    for name in sorted(objects):
        if re.fullmatch(r"generations/\d+/generation\.json", name):
            manifest = _json(objects, name)["manifest"]
            data = objects.get(manifest["name"], (b"", 0.0))[0]
            if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
                yield f"{name}: its manifest is gone or changed"


def _ids(plan: dict[str, Any]) -> range:
    first = plan["first_image_id"] - 1
    return range(first, first + plan["num_images"])


def _contents(
    objects: Objects, row: dict[str, Any], lost: list[str], wrong: list[str]
) -> tuple[list[str], list[str]]:
    """Keys that a row's tar holds, and those that its record rejects."""
    for name, sha256 in _named(row):
        if name not in objects:
            lost.append(f"{name} is named and gone")
            return [], []
        if hashlib.sha256(objects[name][0]).hexdigest() != sha256:
            wrong.append(f"{name} is not what its name stands for")
            return [], []
    record = _json(objects, row["record"])
    keys = list(dict.fromkeys(name.partition(".")[0] for name in _members(objects[row["data_name"]][0])))
    return keys, [reject["key"] for reject in record["rejects"]]


def _named(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield row["record"], row["record_sha256"]
    yield row["data_name"], row["data_sha256"]
    if row["index_name"] is not None:
        yield row["index_name"], row["index_sha256"]


def _anywhere(objects: Objects, marked: set[str]) -> Iterator[str]:
    """Objects that hold a forgotten image, or anything that came from it."""
    for name, (data, _) in objects.items() if marked else ():
        keys = {member.partition(".")[0] for member in _members(data)} if "/data/" in name else set()
        if marked & keys:
            yield f"{name} holds what was forgotten: {', '.join(sorted(marked & keys))}"
        if name.startswith("review/saves/") and name.split("/")[2] in marked:
            yield f"{name} holds what was forgotten: {name.split('/')[2]}"


@lru_cache(maxsize=4096)
def _members(data: bytes) -> tuple[str, ...]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return tuple(tar.getnames())
    except tarfile.TarError:
        return ()


def _json(objects: Objects, name: str) -> dict[str, Any]:
    return _parsed(objects[name][0])


@lru_cache(maxsize=4096)
def _parsed(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found
