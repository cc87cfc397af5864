"""Settings of the `verdicts` column: which verifier judges the masks."""

from __future__ import annotations

import dataclasses

from maskmill.pipeline.checks import check_type
from maskmill.pipeline.settings.roles import NEUTRAL

SHIPPED = "shipped"
VERDICTS_REVISION = 2
"""Raised by hand when a verifier says other things of the same masks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerdictSettings:
    """Which verifier judges the masks; `verifier` None turns the column off.

    Args:
        verifier: "shipped", which was trained on nano's masks, or a file of pipeline/verify/train.py.
            Neutral: its sha256 stands for it.
        embedding: whether it looks at the segmenter's embedding too. Without, no encoder is ever needed.

    Raises:
        ValueError: an empty path.
    """

    verifier: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    embedding: bool = True

    def __post_init__(self) -> None:
        if self.verifier is not None and (not isinstance(self.verifier, str) or not self.verifier.strip()):
            raise ValueError(f"verifier={self.verifier!r} is no verifier: use {SHIPPED}, a file, or none")
        check_type("embedding", self.embedding, bool)
