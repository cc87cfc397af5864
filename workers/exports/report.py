"""What an export says of itself, and how a destination is claimed and closed.

A destination holds `export.started.json` while an export is on its way and `export.json` once it is whole:
what was exported, every file with its size and sha256, and the counts. So a run that was killed goes on, a
run that is complete says so, and a folder that holds anything else is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maskmill.storage.dataset.generations import Generation, refuse_forgotten
from maskmill.storage.errors import DatasetError, ObjectNotFound, Recalled, StorageError
from maskmill.storage.stores.base import ObjectStore

FORMAT_VERSION = 1
STARTED = "export.started.json"
FINISHED = "export.json"
SCHEMA = "schema"
"""The option that numbers a format's schema: what is half done by another is not gone on with."""
TOTALS = ("num_images", "num_masks", "num_unannotated", "size_bytes", "num_loose_images")
LATER_TOTALS = ("num_reviewed_images", "num_reviewed_masks")
"""Of exports written since there are any."""


class ExportError(StorageError, ValueError):
    """A destination cannot take this export: the message names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file of an export. `num_images` and `num_masks` are what it holds; `sha256` is hexadecimal."""

    name: str
    size_bytes: int
    sha256: str
    num_images: int
    num_masks: int


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What makes two exports the same one: the source and every choice that changes what is written.

    Attributes:
        format: its name.
        dataset: the last part of its root: the rest is the maker's machine's, and no reader's.
        generation: its number.
        manifest_sha256: of it, which no other dataset's generation has.
        options: choices that change what is written.
    """

    format: str
    dataset: str
    generation: int
    manifest_sha256: str
    options: Mapping[str, int | bool | str | float]


def plan_of(
    format: str, store: ObjectStore, generation: Generation, options: Mapping[str, int | bool | str | float]
) -> ExportPlan:
    """The plan of an export of this generation."""
    return ExportPlan(
        format=format,
        dataset=_last_part(store.root),
        generation=generation.number,
        manifest_sha256=generation.manifest.sha256,
        options=options,
    )


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        format: its name; see formats.py.
        destination: local path or s3:// address.
        generation: the exported generation's number.
        num_images: images written, each with its masks (there may be none).
        num_masks: masks written.
        rejects: reason -> count of the generation's images that have no masks record and are not exported.
        num_unannotated: images whose shard had no masks yet when the generation was published.
        files: data files, in the order written; loose images are counted in `num_loose_images`.
        size_bytes: of everything written.
        seconds: of this run; 0 when it found the export complete.
        num_loose_images: image files beside the data files (COCO's `images` folder).
        left_out: reason -> masks that the format cannot hold and that were not written.
        num_reviewed_images: images whose masks people left so; the others have automatic ones alone.
        num_reviewed_masks: of these images: masks that a person, or an oracle, drew or confirmed singly.
        already_complete: an earlier run had finished; nothing was written.
    """

    format: str
    destination: str
    generation: int
    num_images: int
    num_masks: int
    rejects: Mapping[str, int]
    num_unannotated: int
    files: tuple[ExportedFile, ...]
    size_bytes: int
    seconds: float
    num_loose_images: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    num_reviewed_images: int = 0
    num_reviewed_masks: int = 0
    already_complete: bool = False


def begin(destination: ObjectStore, plan: ExportPlan) -> ExportReport | None:
    """The report of an export that is complete already, or None once the destination is taken for this one.

    Raises:
        ExportError: it holds something that is not ours, another export, or lacks files that its
            `export.json` names.
    """
    complete = _find_complete(destination, plan)
    if complete is None:
        _claim(destination, plan)
    return complete


def _find_complete(destination: ObjectStore, plan: ExportPlan) -> ExportReport | None:
    """The report of an earlier run of the same export, if it finished and its files are there.

    Raises:
        ExportError: the destination holds another export, or lacks files that its `export.json` names.
    """
    record = _read_json(destination, FINISHED)
    if record is None:
        return None
    _same_plan(destination, record, plan, finished=True)

    try:
        files = tuple(ExportedFile(**file) for file in record["files"])
        totals = {name: int(record[name]) for name in TOTALS}
        totals |= {name: int(record.get(name, 0)) for name in LATER_TOTALS}
        rejects = {str(reason): int(number) for reason, number in record["rejects"].items()}
        left_out = {str(reason): int(number) for reason, number in record.get("left_out", {}).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ExportError(
            f"{destination.root}/{FINISHED}: not a record of ours; choose an empty destination"
        ) from exc

    for file in files:
        _check_there(destination, file)
    return ExportReport(
        format=plan.format,
        destination=destination.root,
        generation=plan.generation,
        rejects=rejects,
        left_out=left_out,
        files=files,
        seconds=0.0,
        already_complete=True,
        **totals,
    )


def _claim(destination: ObjectStore, plan: ExportPlan) -> None:
    """Takes an empty destination for this export, or takes up a run of the same one that did not finish.

    Raises:
        ExportError: it holds something that is not ours, or another export that is not finished.
    """
    record = _read_json(destination, STARTED)
    if record is not None:
        _same_plan(destination, record, plan)
        return
    stranger = next(iter(destination.list()), None)
    if stranger is not None:
        raise ExportError(
            f"{destination.root} is not empty (it holds {stranger.name}) and is no export of maskmill's; "
            "choose an empty or new destination"
        )
    destination.put_if_absent(STARTED, _json({"format_version": FORMAT_VERSION, **asdict(plan)}))
    record = _read_json(destination, STARTED)
    if record is not None:
        _same_plan(destination, record, plan)


def refuse_late(store: ObjectStore, generation: Generation, target: ObjectStore) -> None:
    """An export takes hours: to be asked before it is finished, whether images were forgotten meanwhile.

    Raises:
        DatasetError: the files hold images that were forgotten.
    """
    try:
        refuse_forgotten(store, generation.row_set())
    except Recalled as exc:
        raise DatasetError(
            f"{target.root}: not finished, since it holds images that were forgotten meanwhile; remove it, "
            f"and export the generation that `maskmill forget` published ({exc})"
        ) from exc


def finish(destination: ObjectStore, plan: ExportPlan, report: ExportReport) -> None:
    """Writes `export.json`, the last file of an export, and drops the mark of one on its way."""
    totals = asdict(report)
    for name in ("already_complete", "seconds", "destination", "format", "generation"):
        del totals[name]
    destination.put(FINISHED, _json({"format_version": FORMAT_VERSION, **asdict(plan), **totals}))
    destination.delete(STARTED)


def _same_plan(
    destination: ObjectStore, record: Mapping[str, Any], plan: ExportPlan, *, finished: bool = False
) -> None:
    """Whether a record is of this export; one that is finished may be of an earlier version's schema.

    Raises:
        ExportError: it is not.
    """
    wanted = asdict(plan)
    had = record.get("options")
    if finished and isinstance(had, dict) and SCHEMA in wanted["options"]:
        record = {**record, "options": {**had, SCHEMA: wanted["options"][SCHEMA]}}
    if "manifest_sha256" not in record:  # written by a version that named the dataset's whole address
        record = {**record, "dataset": _last_part(str(record.get("dataset")))}
        del wanted["manifest_sha256"]
    different = [name for name in wanted if record.get(name) != wanted[name]]
    if different:
        name = different[0]
        raise ExportError(
            f"{destination.root} holds another export: its {name} is {record.get(name)!r}, this one's is "
            f"{wanted[name]!r}; choose an empty or new destination"
        )


def _last_part(root: str) -> str:
    return root.rstrip("/").rpartition("/")[2]


def _check_there(destination: ObjectStore, file: ExportedFile) -> None:
    try:
        size_bytes: int | None = destination.stat(file.name).size_bytes
    except ObjectNotFound:
        size_bytes = None
    if size_bytes != file.size_bytes:
        found = "is missing" if size_bytes is None else f"has {size_bytes} bytes, not {file.size_bytes}"
        raise ExportError(
            f"{destination.root}: the export was complete but {file.name} {found}; "
            f"remove the destination and export again"
        )


def _read_json(store: ObjectStore, name: str) -> dict[str, Any] | None:
    try:
        data = store.read(name)
    except ObjectNotFound:
        return None
    try:
        record = json.loads(data)
    except ValueError as exc:
        raise ExportError(f"{store.root}/{name}: not JSON; choose an empty or new destination") from exc
    if not isinstance(record, dict):
        raise ExportError(f"{store.root}/{name}: not a record of ours; choose an empty or new destination")
    return record


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
