"""Settings of the `embeddings` column: what a segmenter's encoder saw, kept."""

from __future__ import annotations

import dataclasses

from maskmill.pipeline.checks import check_choice, check_type
from maskmill.pipeline.settings.roles import NEUTRAL

OFF, FLOAT16, INT8 = "off", "float16", "int8"
FORMS = (FLOAT16, INT8)
EMBEDDINGS_REVISION = 1
"""Raised by hand when other bytes are kept for the same settings and weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Whether embeddings are kept, and who reads them.

    Args:
        keep: "off"; "float16": 2 MiB an image of SAM, 0.4 MiB of nano; "int8": half of that.
        reuse: masks are made from what is kept, not from what the encoder just gave: other mask settings, a
            relabel or new boxes then need no encoder. Their masks differ from others' in last digits, and
            have fingerprints of their own. Neutral for embeddings.

    Raises:
        ValueError: an unknown form, or nothing kept to reuse.
    """

    keep: str = OFF
    reuse: bool = dataclasses.field(default=False, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        check_choice("keep", self.keep, (OFF, *FORMS))
        check_type("reuse", self.reuse, bool)
        if self.reuse and self.keep == OFF:
            raise ValueError("embeddings.reuse=True needs embeddings.keep: use float16 or int8")
