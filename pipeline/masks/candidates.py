"""Masks as they were before thresholds and NMS, as bytes: so that other thresholds need no model.

Form: zlib over one line of JSON (`form`, `height`, `width`, `num`) and then, one after another and
little-endian, for N candidates: predicted_iou float32[N], stability float32[N], area_px int64[N], box_xyxy
int32[N, 4] (inclusive corners), point_xy float64[N, 2], output_token int8[N], crop int16[N], length of each
mask's run lengths int32[N], and the run lengths themselves, COCO's compressed strings end to end.

Numbers are kept as the stage compares them, so selecting from the bytes gives what selecting at once gave.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.masks.measure import MaskBatch, object_column, run_lengths_of
from maskmill.pipeline.rle import Rle

FORM = 1
LEVEL = 3
"""zlib's: half of level 6's time for a twentieth more bytes."""

_COLUMNS = (
    ("predicted_iou_N", "<f4", ()),
    ("stability_N", "<f4", ()),
    ("area_px_N", "<i8", ()),
    ("box_xyxy_N4", "<i4", (4,)),
    ("point_xy_N2", "<f8", (2,)),
    ("output_token_N", "<i1", ()),
    ("crop_N", "<i2", ()),
)


@dataclass(frozen=True, eq=False)
class Candidates:
    """An image's candidates, all with run lengths.

    Attributes:
        height, width: of the image in px.
        batch: N masks of it.
    """

    height: int
    width: int
    batch: MaskBatch


def to_bytes(candidates: Candidates) -> bytes:
    """The stored form; equal candidates give equal bytes."""
    batch = candidates.batch
    counts = [rle.counts for rle in run_lengths_of(batch)]
    head = {"form": FORM, "height": candidates.height, "width": candidates.width, "num": len(batch)}
    parts = [json.dumps(head, sort_keys=True).encode() + b"\n"]
    parts += [np.ascontiguousarray(getattr(batch, name), kind).tobytes() for name, kind, _ in _COLUMNS]
    parts.append(np.array([len(text) for text in counts], "<i4").tobytes())
    return zlib.compress(b"".join([*parts, *counts]), LEVEL)


def from_bytes(data: bytes) -> Candidates:
    """The inverse of `to_bytes`.

    Raises:
        ValueError: the bytes are damaged, or of a newer form.
    """
    try:
        head, _, rest = zlib.decompress(data).partition(b"\n")
        facts = json.loads(head)
        form, height, width, num = (int(facts[name]) for name in ("form", "height", "width", "num"))
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not stored candidates ({error})") from error
    if form != FORM:
        raise ValueError(f"candidates of form {form}; this version reads {FORM}: update maskmill")
    place, columns = 0, {}
    for name, kind, tail in _COLUMNS:
        columns[name], place = _take(rest, place, kind, (num, *tail))
    lengths, place = _take(rest, place, "<i4", (num,))
    ends = place + np.cumsum(lengths)
    if len(rest) != (int(ends[-1]) if num else place):
        raise ValueError("stored candidates end in the middle")
    starts = ends - lengths
    rles = [Rle(height, width, rest[start:end]) for start, end in zip(starts, ends, strict=True)]
    return Candidates(height, width, _batch(columns, rles))


def _batch(columns: dict[str, npt.NDArray[np.generic]], rles: list[Rle]) -> MaskBatch:
    return MaskBatch(
        predicted_iou_N=columns["predicted_iou_N"].astype(np.float32),
        stability_N=columns["stability_N"].astype(np.float32),
        area_px_N=columns["area_px_N"].astype(np.int64),
        box_xyxy_N4=columns["box_xyxy_N4"].astype(np.int64),
        point_xy_N2=columns["point_xy_N2"].astype(np.float64),
        output_token_N=columns["output_token_N"].astype(np.int64),
        crop_N=columns["crop_N"].astype(np.int64),
        mask_N=object_column(rles),
    )


def _take(data: bytes, place: int, kind: str, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.generic], int]:
    count = int(np.prod(shape))
    end = place + count * np.dtype(kind).itemsize
    if end > len(data):
        raise ValueError("stored candidates end in the middle")
    return np.frombuffer(data, kind, count, place).reshape(shape), end
