"""A word stage made by hand, for what stages, columns and generations do with one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.storage.shards.shards import Sample
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult


class Word(Stage):
    """A stage that writes down what it was given, and passes on how long that is."""

    def __init__(self, column: str, fingerprint: str, reads: tuple[str, ...]) -> None:
        self.column, self.fingerprint, self.reads = column, fingerprint, reads
        self.models: Mapping[str, str] = {column: "fake"}
        self.seen: list[str] = []
        self.fails_on: str | None = None

    def prepare(self) -> None: ...

    def decode(self, files: Mapping[str, bytes]) -> int:
        return int(json.loads(files["json"])["length"])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        results = []
        for picture in pictures:
            self.seen.append(picture.key)
            if picture.key == self.fails_on:
                raise MemoryError("no room for this image")
            text = " ".join(f"{name}={_told(picture.given[name])}" for name in self.reads)
            record = {"text": text, "length": len(text)}
            results.append(StageResult(partial(_encode, picture.key, record), output=len(text)))
        return results


def _told(output: object) -> str:
    return str(len(output.annotations)) if isinstance(output, AnnotatedImage) else str(output)


def _encode(key: str, record: Mapping[str, object]) -> EncodedSample:
    return EncodedSample(Sample(key, {"json": json.dumps(record, sort_keys=True).encode()}))
