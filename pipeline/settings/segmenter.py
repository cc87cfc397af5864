"""Which segmenter runs, and how."""

from __future__ import annotations

import dataclasses

from maskmill.pipeline.checks import check_choice, check_int
from maskmill.pipeline.settings.families import SEGMENTERS
from maskmill.pipeline.settings.roles import DTYPES, NEUTRAL, check_device


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterSettings:
    """Which segmenter runs, and how.

    Args:
        model: one of `families.SEGMENTERS`.
        weights: a checkpoint file, a folder written by save_pretrained, or a hub id (families.py says
            which a model takes); None is the shipped file, which only nano has. Neutral: the sha256 of
            what it holds stands for it in fingerprints.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps". Neutral.
        dtype: the number format of the model, one of `DTYPES`. With bfloat16, predicted IoU and the logits
            that decide stay float32; with float16 only the encoder computes in it.
        threads: torch's CPU threads; None leaves torch's own choice. Neutral.

    Raises:
        ValueError: a value out of its range.
    """

    model: str = "nano"
    weights: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    device: str = dataclasses.field(default="auto", metadata=NEUTRAL)
    dtype: str = "float32"
    threads: int | None = dataclasses.field(default=None, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        check_choice("model", self.model, SEGMENTERS)
        check_choice("dtype", self.dtype, DTYPES)
        check_device(self.device)
        if self.weights is not None and (not isinstance(self.weights, str) or not self.weights):
            raise ValueError(
                f"weights={self.weights!r} is no path: name a file, or leave it out for nano's own"
            )
        if self.threads is not None:
            check_int("threads", self.threads, 1, 1024)
