"""Exports of many files of limited size: each is published whole and noted, so a killed export goes on.

parts/<name>.json     what a finished file holds, until `export.json` says it for all
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Protocol

from maskmill.storage.errors import DamagedObject, ObjectNotFound
from maskmill.storage.shards.shards import WrittenObject, check_object
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.chosen.selection import Selection
from maskmill.workers.exports.report import ExportedFile, ExportReport, begin, finish, plan_of, refuse_late
from maskmill.workers.exports.samples import ExportImage, count_unannotated, source_options
from maskmill.workers.reading.survey import count_rejects

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.workers.exports.formats import ExportTask

CARD = "README.md"


class NameFile(Protocol):
    """Names the file of a number, of a split."""

    def __call__(self, number: int, split: str = "") -> str: ...


WriteFile = Callable[[ObjectStore, str, "Ahead", int, int], ExportedFile]
"""Writes the file of a name from the images ahead, at most so many, of at most so many bytes."""


def export_parts(
    task: ExportTask,
    file_name: NameFile,
    write_file: WriteFile,
    card: Callable[[Generation, Sequence[ExportedFile]], bytes] | None = None,
    extra: Mapping[str, int] | None = None,
) -> ExportReport:
    """Writes a generation as files of limited size, going on after those that an earlier run finished.

    Args:
        task: what a format is asked to write.
        file_name: of the file of a number, of a split.
        write_file: writes and notes one.
        card: makes the README.md that tells of all files; None writes none.
        extra: what else makes two exports of this format the same.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
        maskmill.storage.errors.DatasetError: images were forgotten since the generation was published: the
            files written so far may hold them.
    """
    store, generation, choices = task.store, task.generation, task.choices
    selection = Selection(store, generation, choices)
    options: dict[str, int | bool | str | float] = {
        "max_images": choices.max_images,
        "max_bytes": choices.max_bytes,
        **source_options(generation, choices),
        **selection.options(),
    }
    plan = plan_of(choices.format, store, generation, {**options, **(extra or {})})
    target = open_store(task.destination)
    started_s = time.monotonic()
    complete = begin(target, plan)
    if complete is not None:
        return complete

    # Split after split, file after file, from the first image that none holds yet
    files: list[ExportedFile] = []
    for split in selection.split_names:
        name_of = partial(file_name, split=split)
        own = finished_parts(target, name_of)
        first, before = sum(file.num_images for file in own), sum(file.num_images for file in files)
        images = Ahead(selection.images(skip=first, split=split), before + first, task.progress)
        while images.next is not None:
            own.append(write_file(target, name_of(len(own)), images, choices.max_images, choices.max_bytes))
        files += own
    text = card(generation, files) if card is not None else b""
    if text:
        target.put(CARD, text)

    reviewed = selection.reviewed()
    report = ExportReport(
        format=choices.format,
        destination=target.root,
        generation=generation.number,
        num_images=sum(file.num_images for file in files),
        num_masks=sum(file.num_masks for file in files),
        rejects=count_rejects(store, generation),
        num_unannotated=count_unannotated(generation, choices, reviewed),
        files=tuple(files),
        size_bytes=sum(file.size_bytes for file in files) + len(text),
        seconds=time.monotonic() - started_s,
        num_reviewed_images=reviewed.images,
        num_reviewed_masks=reviewed.masks,
        left_out=dict(selection.left_out),
    )
    refuse_late(store, generation, target)
    finish(target, plan, report)
    drop_notes(target, files)
    return report


class Ahead:
    """Images with the next one known before it is taken, so that a file can be closed in time."""

    def __init__(
        self, images: Iterator[ExportImage], num_taken: int, progress: Callable[[int], None] | None
    ) -> None:
        self._images = images
        self._progress = progress
        self.num_taken = num_taken
        self.next = next(images, None)

    def take(self) -> ExportImage:
        """The next image. There must be one."""
        taken = self.next
        assert taken is not None
        self.next = next(self._images, None)
        self.num_taken += 1
        if self._progress is not None:
            self._progress(self.num_taken)
        return taken

    def part(
        self, size_of: Callable[[ExportImage], int], *, max_images: int, max_bytes: int, head_bytes: int = 0
    ) -> Iterator[ExportImage]:
        """The images of one file: as many as its limits allow, at least one."""
        num_images, size_bytes = 0, head_bytes
        while self.next is not None:
            size_bytes += size_of(self.next)
            if num_images and (num_images == max_images or size_bytes > max_bytes):
                return
            num_images += 1
            yield self.take()


def note_part(target: ObjectStore, file: ExportedFile) -> None:
    """Takes note of a finished file."""
    target.put(_note_name(file.name), json.dumps(asdict(file)).encode())


def finished_parts(target: ObjectStore, name_of: Callable[[int], str]) -> list[ExportedFile]:
    """The files that an earlier run finished, up to the first that is missing or not what was written."""
    files: list[ExportedFile] = []
    while True:
        name = name_of(len(files))
        try:
            file = ExportedFile(**json.loads(target.read(_note_name(name))))
            check_object(target, WrittenObject(name, file.size_bytes, file.sha256, file.num_images))
        except (ObjectNotFound, DamagedObject, ValueError, TypeError):
            return files
        files.append(file)


def drop_notes(target: ObjectStore, files: list[ExportedFile]) -> None:
    """Removes the notes of an export that is whole."""
    for file in files:
        target.delete(_note_name(file.name))


def _note_name(name: str) -> str:
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return f"parts/{stem}.json"
