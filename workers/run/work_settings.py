"""How a worker shares its machine between reading, the model and writing; changes nothing of what is written.

One place has these names, ranges and defaults: a run's `[run]` section has them, a `RunSpec` carries them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from maskmill.pipeline.checks import check_int


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """A worker's threads and batches.

    Args:
        decode_threads: threads of each worker that read and decode ahead of the model, 1 to 64; None is 2
            beside a CPU, 4 beside a GPU, which a worker gets up to four CPUs for.
        encode_threads: threads of each worker that write behind it, 1 to 64.
        images_per_batch: images that the model embeds together, 1 to 1024; None is 1 on a CPU, where it keeps
            runs equal byte for byte and more gain nothing, and 8 on a GPU, halved where memory runs out.

    Raises:
        ValueError: a value out of its range.
    """

    decode_threads: int | None = None
    encode_threads: int = 1
    images_per_batch: int | None = None

    def __post_init__(self) -> None:
        if self.decode_threads is not None:
            check_int("decode_threads", self.decode_threads, 1, 64)
        check_int("encode_threads", self.encode_threads, 1, 64)
        if self.images_per_batch is not None:
            check_int("images_per_batch", self.images_per_batch, 1, 1024)

    def work(self) -> WorkSettings:
        """These alone, of a section that has more."""
        return WorkSettings(**{one.name: getattr(self, one.name) for one in dataclasses.fields(WorkSettings)})

    def on(self, device: str) -> Resolved:
        """What is in force beside a device, by its kind ("cpu", "cuda", ...)."""
        usual = BESIDE_CPU if device == "cpu" else BESIDE_GPU
        return Resolved(
            decode_threads=usual.decode_threads if self.decode_threads is None else self.decode_threads,
            encode_threads=self.encode_threads,
            images_per_batch=usual.images_per_batch
            if self.images_per_batch is None
            else self.images_per_batch,
        )


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """`WorkSettings` with nothing left open."""

    decode_threads: int
    encode_threads: int
    images_per_batch: int


BESIDE_CPU = Resolved(decode_threads=2, encode_threads=1, images_per_batch=1)
BESIDE_GPU = Resolved(decode_threads=4, encode_threads=1, images_per_batch=8)
"""By arithmetic, not yet by measurement: docs/engine.md, and maskmill prove on your own."""
