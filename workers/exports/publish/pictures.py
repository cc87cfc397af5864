"""The pictures on a dataset's card: bars, and a few photographs under their masks, of the exported files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from maskmill.pipeline.annotation import from_sa1b
from maskmill.workers.pictures.render import INK, PAPER, SOFT_INK, draw_annotations, mask_colours, png_bytes
from maskmill.workers.reading.survey import spread

BARS_PX = (640, 300)
MARGIN_PX, BASE_PX, TOP_PX = 40, 50, 44
CELL_PX = 320


def bars(title: str, labels: Sequence[str], counts: Sequence[int]) -> bytes:
    """A PNG of bars, each with its count.

    Args:
        title: above them.
        labels: under them.
        counts: of each, not negative.
    """
    image = Image.new("RGB", BARS_PX, PAPER)
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(11), ImageFont.load_default(16)
    draw.text((MARGIN_PX, 12), title, fill=INK, font=large)

    wide, high = BARS_PX[0] - 2 * MARGIN_PX, BARS_PX[1] - BASE_PX - TOP_PX
    step, base = wide / max(1, len(counts)), BARS_PX[1] - BASE_PX
    (colour,) = mask_colours(1).tolist()
    for place, (label, count) in enumerate(zip(labels, counts, strict=True)):
        left = MARGIN_PX + place * step
        top = base - (high - 16) * count / max(1, *counts)
        draw.rectangle((left + 2, top, left + step - 2, base), fill=tuple(colour))
        middle = left + step / 2
        if count and step > 24:
            draw.text((middle, top - 3), f"{count:,}", fill=SOFT_INK, font=small, anchor="mb")
        if label:
            draw.text((middle, base + 6), label, fill=SOFT_INK, font=small, anchor="mt")
    draw.line((MARGIN_PX, base, BARS_PX[0] - MARGIN_PX, base), fill=SOFT_INK)
    return png_bytes(image)


def samples(folder: Path, names: Sequence[str], *, num_images: int = 6, columns: int = 3) -> bytes | None:
    """A PNG of photographs of an export under their masks; None where it has none.

    Args:
        folder: of the export.
        names: of its Parquet files.
        num_images: spread over the files.
        columns: side by side.
    """
    rows = list(_drawn(folder, names, num_images))
    if not rows:
        return None
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * CELL_PX, lines * CELL_PX), PAPER)
    for place, row in enumerate(rows):
        picture = Image.fromarray(_under_masks(row))
        picture.thumbnail((CELL_PX - 8, CELL_PX - 8))
        left, top = place % columns * CELL_PX, place // columns * CELL_PX
        sheet.paste(picture, (left + (CELL_PX - picture.width) // 2, top + (CELL_PX - picture.height) // 2))
    return png_bytes(sheet)


def _drawn(folder: Path, names: Sequence[str], num_images: int) -> Iterator[dict[str, Any]]:
    """Rows spread over the files."""
    files = [pq.ParquetFile(folder / name) for name in names]
    counts = [file.metadata.num_rows for file in files]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if counts else 0
    for place in spread(total, num_images, seed=0):
        at = int(np.searchsorted(ends, place, side="right"))
        file, row = files[at], place - int(ends[at] - counts[at])
        for group in range(file.num_row_groups):
            if row < file.metadata.row_group(group).num_rows:
                found: dict[str, Any] = file.read_row_group(group).slice(row, 1).to_pylist()[0]
                yield found
                break
            row -= file.metadata.row_group(group).num_rows


def _under_masks(row: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    size = [row["height"], row["width"]]
    annotations = [
        {
            **mask,
            "segmentation": {"size": size, "counts": mask["counts"]},
            "predicted_iou": mask["predicted_iou"] or 0.0,
            "stability_score": mask["stability_score"] or 0.0,
            "crop_box": mask["crop_box"] or mask["bbox"],
            "point_coords": mask["point_coords"] or (),
            "parent": None,
        }
        for mask in row["masks"]
    ]
    info = {name: row[name] for name in ("image_id", "width", "height")}
    record = {"image": {**info, "file_name": row["image"]["path"]}, "annotations": annotations}
    pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    return draw_annotations(pixels, from_sa1b(record))
