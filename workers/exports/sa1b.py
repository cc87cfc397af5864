"""A generation as self-contained SA-1B tars of `sa_<image id>.jpg` and `.json`, as the released dataset's.

How it works: the joined samples are re-sharded, in the generation's order, into `sa_000000.tar`, ...; each
tar is published whole and then noted in `parts/`, so a killed export goes on after its last whole tar.
`export.json` is written last, with the sha256 of every tar.

What it does not do: copy rejected images, or balance tars across workers; one process writes them all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from storage.errors import ObjectNotFound
from storage.objects import open_store
from storage.shards import Sample, write_shard
from workers.exports.report import ExportedFile, ExportPlan, ExportReport, claim, find_complete, finish
from workers.exports.samples import ExportImage, count_unannotated, export_images
from workers.survey import count_rejects

if TYPE_CHECKING:
    from storage.generations import Generation
    from storage.objects import ObjectStore

TAR_BLOCK_BYTES = 512


def export_sa1b(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    *,
    max_images: int = 1000,
    max_bytes: int = 1 << 30,
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Writes a generation as SA-1B tars.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: an empty or new folder or s3:// prefix, or one where this export was begun.
        max_images: images in a tar.
        max_bytes: size of a tar; a single larger image still gets a tar of its own.
        progress: called with the number of images written so far.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ValueError: a limit below 1.
        ExportError: the destination holds something else.
        storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    if max_images < 1 or max_bytes < 1:
        raise ValueError(f"max_images={max_images} and max_bytes={max_bytes} must be at least 1")
    options = {"max_images": max_images, "max_bytes": max_bytes}
    plan = ExportPlan(format="sa1b", dataset=store.root, generation=generation.number, options=options)
    target = open_store(destination)
    complete = find_complete(target, plan)
    if complete is not None:
        return complete
    started_s = time.monotonic()
    claim(target, plan)
    files = _finished_tars(target)
    first = sum(file.num_images for file in files)
    images = _Ahead(export_images(store, generation, skip=first), first, progress)
    while images.next is not None:
        files.append(_write_tar(target, len(files), images, max_images, max_bytes))
    report = ExportReport(
        format="sa1b",
        destination=target.root,
        generation=generation.number,
        num_images=sum(file.num_images for file in files),
        num_masks=sum(file.num_masks for file in files),
        rejects=count_rejects(store, generation),
        num_unannotated=count_unannotated(generation),
        files=tuple(files),
        size_bytes=sum(file.size_bytes for file in files),
        seconds=time.monotonic() - started_s,
    )
    finish(target, plan, report)
    for file in files:
        target.delete(_part_name(file.name))
    return report


class _Ahead:
    """Images with the next one known before it is taken, so that a tar can be closed in time."""

    def __init__(
        self, images: Iterator[ExportImage], num_taken: int, progress: Callable[[int], None] | None
    ) -> None:
        self._images = images
        self._progress = progress
        self.num_taken = num_taken
        self.next = next(images, None)

    def take(self) -> ExportImage:
        taken = self.next
        assert taken is not None
        self.next = next(self._images, None)
        self.num_taken += 1
        if self._progress is not None:
            self._progress(self.num_taken)
        return taken


def _write_tar(
    target: ObjectStore, number: int, images: _Ahead, max_images: int, max_bytes: int
) -> ExportedFile:
    name = f"sa_{number:06d}.tar"
    num_masks = 0

    def samples() -> Iterator[Sample]:
        nonlocal num_masks
        num_images, size_bytes = 0, 2 * TAR_BLOCK_BYTES
        while images.next is not None:
            files = {"jpg": images.next.jpeg, "json": images.next.record_json()}
            size_bytes += sum(_member_bytes(len(data)) for data in files.values())
            if num_images and (num_images == max_images or size_bytes > max_bytes):
                return
            image = images.take()
            num_images += 1
            num_masks += image.num_masks
            yield Sample(image.stem, files)

    written = write_shard(target, name, samples())
    file = ExportedFile(
        name=name,
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        num_images=written.num_samples,
        num_masks=num_masks,
    )
    target.put(_part_name(name), json.dumps(asdict(file)).encode())
    return file


def _member_bytes(size_bytes: int) -> int:
    """What a file takes in a tar: its header and whole blocks."""
    return TAR_BLOCK_BYTES + -(-size_bytes // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES


def _part_name(tar_name: str) -> str:
    return f"parts/{tar_name.removesuffix('.tar')}.json"


def _finished_tars(target: ObjectStore) -> list[ExportedFile]:
    """The tars that an earlier run finished, up to the first that is missing or of another size."""
    files: list[ExportedFile] = []
    while True:
        name = f"sa_{len(files):06d}.tar"
        try:
            file = ExportedFile(**json.loads(target.read(_part_name(name))))
            if target.stat(name).size_bytes != file.size_bytes:
                return files
        except (ObjectNotFound, ValueError, TypeError):
            return files
        files.append(file)
