"""Exports of many files of limited size: each is published whole and noted, so a killed export goes on.

parts/<name>.json     what a finished file holds, until `export.json` says it for all
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

from storage.errors import ObjectNotFound
from storage.objects import ObjectStore
from workers.exports.report import ExportedFile
from workers.exports.samples import ExportImage


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
    """The files that an earlier run finished, up to the first that is missing or of another size."""
    files: list[ExportedFile] = []
    while True:
        name = name_of(len(files))
        try:
            file = ExportedFile(**json.loads(target.read(_note_name(name))))
            if target.stat(name).size_bytes != file.size_bytes:
                return files
        except (ObjectNotFound, ValueError, TypeError):
            return files
        files.append(file)


def drop_notes(target: ObjectStore, files: list[ExportedFile]) -> None:
    """Removes the notes of an export that is whole."""
    for file in files:
        target.delete(_note_name(file.name))


def _note_name(name: str) -> str:
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return f"parts/{stem}.json"
