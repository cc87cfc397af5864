"""A generation as self-contained SA-1B tars of `sa_<image id>.jpg` and `.json`, as the released dataset's.

How it works: the joined samples are re-sharded, in the generation's order, into `sa_000000.tar`, ...; each
tar is published whole and then noted in `parts/`, so a killed export goes on after its last whole tar.
`export.json` is written last, with the sha256 of every tar.

What it does not do: copy rejected images, or balance tars across workers; one process writes them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.workers.exports.parts import Ahead, export_parts, note_part
from maskmill.workers.exports.report import ExportedFile, ExportReport
from maskmill.workers.exports.samples import ExportImage

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportTask

TAR_BLOCK_BYTES = 512


def write(task: ExportTask) -> ExportReport:
    """Writes a generation as SA-1B tars; see `WriteExport`."""
    return export_parts(task, _tar_name, _write_tar)


def _write_tar(
    target: ObjectStore, name: str, images: Ahead, max_images: int, max_bytes: int
) -> ExportedFile:
    num_masks = 0

    def samples() -> Iterator[Sample]:
        """The images of this tar, counting masks."""
        nonlocal num_masks
        part = images.part(
            _size_in_tar, max_images=max_images, max_bytes=max_bytes, head_bytes=2 * TAR_BLOCK_BYTES
        )
        for image in part:
            num_masks += image.num_masks
            yield Sample(image.stem, _files_of(image))

    written = write_shard(target, name, samples())
    file = ExportedFile(
        name=name,
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        num_images=written.num_samples,
        num_masks=num_masks,
    )
    note_part(target, file)
    return file


def _files_of(image: ExportImage) -> dict[str, bytes]:
    return {"jpg": image.jpeg, "json": image.record_json()}


def _size_in_tar(image: ExportImage) -> int:
    return sum(_member_bytes(len(data)) for data in _files_of(image).values())


def _member_bytes(size_bytes: int) -> int:
    """What a file takes in a tar: its header and whole blocks."""
    return TAR_BLOCK_BYTES + -(-size_bytes // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES


def _tar_name(number: int, split: str = "") -> str:
    return f"sa_{split}_{number:06d}.tar" if split else f"sa_{number:06d}.tar"
