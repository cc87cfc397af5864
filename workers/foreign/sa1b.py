"""The reader of SA-1B's records (a JSON an image, loose, in folders or in tars) to a `ForeignSet`."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import ForeignAnnotation, ForeignImage, ForeignSet, Tally
from maskmill.workers.foreign.coco import annotation_of, file_name_of, read_bytes, sides_of
from maskmill.workers.foreign.json_words import load_json
from maskmill.workers.foreign.matching import ForeignName

FORMAT = "sa1b"


def read_sa1b(paths: Sequence[Path]) -> ForeignSet:
    """Reads records.

    Args:
        paths: JSON files, folders of them, or tars.

    Raises:
        InputError: a file that cannot be read or is no record, or none at all.
    """
    images: list[ForeignImage] = []
    sha256, left_out, num_annotations = hashlib.sha256(), Tally(), 0
    for name, data in _files(paths):
        sha256.update(hashlib.sha256(data).digest())
        image, found = _parse(name, data, len(images), left_out)
        images.append(image)
        num_annotations += found
    where = ", ".join(map(str, paths))
    if not images:
        raise InputError(f"{where}: no SA-1B records (.json) in it")
    return ForeignSet(
        FORMAT, where, sha256.hexdigest(), tuple(images), num_annotations, left_out=left_out.left_out()
    )


def _parse(name: str, data: bytes, place: int, left_out: Tally) -> tuple[ForeignImage, int]:
    """A record, and how many annotations it has; its place among the files is its id."""
    record = load_json(data, name, "an SA-1B record")
    words, rows = record.get("image"), record.get("annotations")
    if not isinstance(words, dict) or not isinstance(rows, list) or not file_name_of(words):
        raise InputError(f"{name}: not an SA-1B record (it needs image, with its file_name, and annotations)")
    try:
        width, height = sides_of(words)
    except ValueError as exc:
        raise InputError(f"{name}: not an SA-1B record ({exc})") from exc

    annotations: list[ForeignAnnotation] = []
    for number, row in enumerate(rows):
        if isinstance(row, dict):
            annotations.append(annotation_of(row, number))
        else:
            left_out.add("not_an_object", f"{name}, annotation at place {number}")
    source = words.get("source")
    named = ForeignName(file_name_of(words), source if isinstance(source, str) else None)
    return ForeignImage(place, named, width, height, words, tuple(annotations)), len(rows)


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix in (".json", ".tar")]
            yield from _files([p for p in inside if not p.name.startswith("export")])
        elif path.suffix == ".tar":
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        content = tar.extractfile(member) if member.name.endswith(".json") else None
                        if content is not None:
                            yield f"{path}::{member.name}", content.read()
            except (OSError, tarfile.TarError) as exc:
                raise InputError(f"{path}: cannot be read ({exc})") from exc
        else:
            yield str(path), read_bytes(path)
