"""The protocol of a stage, and what goes through it: pictures in, samples of a column out.

A stage takes pictures and gives, for each, its output and an encoding still to be done: the model's part runs
in the worker's model thread, the rest (JSON, rows) in its encode threads. All stages of a worker see the same
decoded pictures, and embed through one segmenter, so that a picture is decoded and embedded once however many
ask. A stage that reads other columns finds their outputs in `Picture.given`: fresh from the same pass, or
read back with `Stage.decode` where only later columns are missing.

What it doesn't know: which stages there are (registry.py), files, threads, commits (workers/shard/turn.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from maskmill.storage.shards.shards import Sample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from maskmill.pipeline.segmenters.base import ImageEmbedding, Segmenter
    from maskmill.storage.plan.plan import Plan
    from maskmill.storage.shards.index import IndexField
    from maskmill.workers.run.columns import Sections


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A decoded image on its way through the stages.

    Attributes:
        key: of its sample.
        image_id: the dataset's integer for it.
        pixels_HWC: uint8 RGB, upright, as stored; never written to.
        caption: what came with the image, if anything.
        source: where the image came from, for people.
        given: output by column of the stages before, as far as later ones read it; a `Reject` where that
            column has none of this picture, which a stage never sees.
    """

    key: str
    image_id: int
    pixels_HWC: npt.NDArray[np.uint8]
    caption: str | None
    source: str
    given: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSample:
    """What a column stores for one image.

    Attributes:
        sample: goes into the tar.
        rows: go into the index, a mapping of its fields each; none where a column has no index.
        num_masks: to count progress by.
    """

    sample: Sample
    rows: Sequence[Mapping[str, object]] = ()
    num_masks: int = 0


@dataclass(frozen=True)
class StageResult:
    """A picture's result before its encoding.

    Attributes:
        encode: gives what is stored; may be called in any thread, once.
        seconds_by_step: what the model's part took.
        output: what later stages read; equal to what `Stage.decode` gives of the stored sample.
    """

    encode: Callable[[], EncodedSample]
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    output: object = None


class Stage(Protocol):
    """What turns pictures into a column. Stages inherit from it, for the defaults.

    Attributes:
        column: its name.
        fingerprint: of the column version it writes.
        models: identity of each model it uses, by role.
        index: fields of the index that its samples carry rows for; none writes no index.
        reads: columns whose outputs it needs, beside the images; they come before it.
        recorded: those of `reads` whose records its commit names, None for all: a column that is the same
            whether or not it was made from another names none.
        needs_pixels: False for one that may get pictures without any; where no stage of a turn needs them, no
            photograph is read.
    """

    column: str
    fingerprint: str
    models: Mapping[str, str]
    index: tuple[IndexField, ...] = ()
    reads: tuple[str, ...] = ()
    recorded: tuple[str, ...] | None = None
    needs_pixels: bool = True

    def prepare(self) -> None:
        """Loads its models, once; `run` does so too."""
        ...

    def decode(self, files: Mapping[str, bytes]) -> object:
        """The output that made a stored sample. Raises ValueError for bytes that are none of its."""
        ...

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """One result a picture, in order; running out of memory makes the turn go one by one."""
        ...


def _forget(pixels_HWC: npt.NDArray[np.uint8], embedding: ImageEmbedding) -> None:
    """Of a bench whose stages share nothing."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a worker has for a stage that it is about to make.

    Attributes:
        settings: of the run, resolved.
        fingerprint: of the column version to be written.
        segmenter: shared by all stages; loads when first asked for.
        plan: gives the dataset's plan as it is now.
        keep_embedding: told a picture's embedding that stages after this one use in place of the encoder's.
    """

    settings: Sections
    fingerprint: str
    segmenter: Segmenter
    plan: Callable[[], Plan]
    keep_embedding: Callable[[npt.NDArray[np.uint8], ImageEmbedding], None] = _forget


def encode_record(key: str, record: Mapping[str, Any], *, ascii_only: bool = True) -> EncodedSample:
    """A record as the one file of a sample: compact JSON, keys sorted.

    Args:
        key: of the sample.
        record: JSON values.
        ascii_only: other characters are escaped. (Names are written as they are.)
    """
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=ascii_only)
    return EncodedSample(Sample(key, {"json": text.encode()}))
