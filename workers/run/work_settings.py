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
        decode_threads: threads of each worker that read and decode ahead of the model, 1 to 64.
        encode_threads: threads of each worker that write behind it, 1 to 64.
        images_per_batch: images that the model embeds together, 1 to 1024; 1 keeps runs on a CPU equal byte
            for byte.

    Raises:
        ValueError: a value out of its range.
    """

    decode_threads: int = 2
    encode_threads: int = 1
    images_per_batch: int = 1

    def __post_init__(self) -> None:
        check_int("decode_threads", self.decode_threads, 1, 64)
        check_int("encode_threads", self.encode_threads, 1, 64)
        check_int("images_per_batch", self.images_per_batch, 1, 1024)

    def work(self) -> WorkSettings:
        """These alone, of a section that has more."""
        return WorkSettings(**{one.name: getattr(self, one.name) for one in dataclasses.fields(WorkSettings)})
