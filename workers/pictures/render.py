"""Pictures of a dataset: masks drawn over photographs, and contact sheets for people to look at.

How it works: the masks of an image are flattened to one label map, larger masks first so that small ones
stay visible; every label has its own colour; outlines are where the label changes. Pictures are painted at
twice the wanted size and reduced, which smooths the outlines.

What it does not show: the part of a mask that lies under a smaller one. `preview.py` draws every mask as a
path of its own.

Shape suffixes: H, W height and width of an image; 3 RGB; N masks.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.pipeline.rle import decode
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.join import read_row
from maskmill.storage.errors import DatasetError
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.reading.survey import SampledImage, sample_images, shown_column
from maskmill.workers.run.columns import IMAGES

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore

GOLDEN_RATIO = 0.618033988749895

PAPER, INK, SOFT_INK, MAT = (255, 255, 255), (22, 26, 33), (104, 114, 128), (238, 241, 245)
MARGIN_PX, GAP_PX, LINE_PX, FONT_PX = 24, 20, 18, 13

UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]


def mask_colours(num_masks: int) -> UInt8Array:
    """Colours that neighbours in the list share with nobody near: uint8[N, 3], the same for every run."""
    colours = [
        colorsys.hsv_to_rgb(
            (0.58 + i * GOLDEN_RATIO) % 1.0, (0.62, 0.85, 0.48)[i % 3], (1.0, 0.88, 0.96)[i % 3]
        )
        for i in range(num_masks)
    ]
    return np.round(np.array(colours, dtype=np.float64).reshape(num_masks, 3) * 255).astype(np.uint8)


def label_map(annotated: AnnotatedImage) -> Int32Array:
    """Which mask is on top of each pixel, the larger ones drawn first.

    Returns:
        int32[H, W]: 0 for no mask, else 1 + the index of the annotation.
    """
    labels_HW: Int32Array = np.zeros((annotated.height, annotated.width), dtype=np.int32)
    order = sorted(range(len(annotated.annotations)), key=lambda i: -annotated.annotations[i].area_px)
    for i in order:
        labels_HW[decode(annotated.annotations[i].segmentation)] = i + 1
    return labels_HW


def draw_annotations(
    image_HW3: UInt8Array, annotated: AnnotatedImage, *, opacity: float = 0.45, outline_px: int | None = None
) -> UInt8Array:
    """The photograph under translucent, distinctly coloured masks with thin outlines.

    Args:
        image_HW3: uint8[H, W, 3], RGB, of the size that `annotated` names.
        annotated: the masks of that image.
        opacity: of the masks' inside, 0 to 1.
        outline_px: thickness of the outlines, in pixels of the image; by default a 500th of its longer side.

    Returns:
        uint8[H, W, 3]; the input is left as it was.

    Raises:
        ValueError: the image's size is not the annotations' size, or the opacity is out of range.
    """
    size = (annotated.height, annotated.width)
    if image_HW3.shape != (*size, 3):
        raise ValueError(
            f"the image has shape {image_HW3.shape} but its masks are for {(*size, 3)}; "
            "draw masks over the image that they were made from"
        )
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity}")
    thickness = outline_px if outline_px is not None else max(1, round(max(size) / 500))
    return _paint(image_HW3, label_map(annotated), len(annotated.annotations), opacity, thickness)


def _paint(
    image_HW3: UInt8Array, labels_HW: Int32Array, num_masks: int, opacity: float, outline_px: int
) -> UInt8Array:
    colours_N3 = np.concatenate([np.zeros((1, 3), np.uint8), mask_colours(num_masks)]).astype(np.float32)
    colour_HW3 = colours_N3[labels_HW]
    photo_HW3 = image_HW3.astype(np.float32)

    # Inside: the colour over the photograph's own light and shade
    weight_HW1 = np.where(labels_HW > 0, np.float32(opacity), np.float32(0))[..., None]
    painted_HW3 = photo_HW3 * (1 - weight_HW1) + colour_HW3 * weight_HW1

    # Outlines: a lighter tone of the same colour, nearly opaque
    edge_HW = outlines(labels_HW, outline_px)
    light_HW3 = colour_HW3 * 0.55 + 255 * 0.45
    painted_HW3[edge_HW] = photo_HW3[edge_HW] * 0.15 + light_HW3[edge_HW] * 0.85
    final_HW3: UInt8Array = np.clip(np.round(painted_HW3), 0, 255).astype(np.uint8)
    return final_HW3


def outlines(labels_HW: Int32Array, thickness_px: int) -> NDArray[np.bool_]:
    """Pixels of a mask within `thickness_px` of a pixel with another label: bool[H, W].

    Where two masks meet, only the higher-numbered label's side is drawn, so lines stay thin.
    """
    edge_HW = np.zeros(labels_HW.shape, dtype=bool)
    for step in range(1, thickness_px + 1):
        for axis in (0, 1):
            if labels_HW.shape[axis] <= step:
                continue
            before = labels_HW[:-step] if axis == 0 else labels_HW[:, :-step]
            after = labels_HW[step:] if axis == 0 else labels_HW[:, step:]
            edge_before = edge_HW[:-step] if axis == 0 else edge_HW[:, :-step]
            edge_after = edge_HW[step:] if axis == 0 else edge_HW[:, step:]
            edge_before |= before > after
            edge_after |= after > before
    return edge_HW


def thumbnail(
    image_HW3: UInt8Array,
    annotated: AnnotatedImage | None,
    width_px: int,
    height_px: int,
    *,
    opacity: float = 0.45,
) -> Image.Image:
    """The image, with its masks where given, to fit in `width_px` x `height_px`; outlines are smoothed."""
    height, width = image_HW3.shape[:2]
    scale = min(width_px / width, height_px / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if annotated is None:
        return Image.fromarray(image_HW3).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    fine = (size[0] * 2, size[1] * 2)
    photo = np.asarray(Image.fromarray(image_HW3).resize(fine, Image.Resampling.BICUBIC))
    labels = Image.fromarray(label_map(annotated)).resize(fine, Image.Resampling.NEAREST)
    painted = _paint(photo, np.asarray(labels, dtype=np.int32), len(annotated.annotations), opacity, 2)
    return Image.fromarray(painted).resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Cell:
    """One image of a sheet: its pictures side by side, and two lines under them."""

    pictures: tuple[Image.Image, ...]
    heading: str
    note: str


def contact_sheet(
    store: ObjectStore,
    generation: Generation,
    *,
    num_images: int = 12,
    columns: int = 3,
    cell_px: int = 480,
    seed: int = 0,
    column: str | None = None,
) -> bytes:
    """A PNG for people: photographs and their masks side by side, with key, source name and number of masks.

    Args:
        store: the dataset.
        generation: one of its generations.
        num_images: images to show, spread over the dataset; fewer if it has fewer.
        columns: cells in a row.
        cell_px: width of a cell, which holds two pictures.
        seed: draws which images.
        column: that has the masks; None as in `preview_page`.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: a count below 1, or cells too narrow to show anything.
        maskmill.storage.errors.DatasetError: the generation holds no annotated image.
        maskmill.storage.errors.DamagedObject: a shard that is read is not what was written.
    """
    if num_images < 1 or columns < 1:
        raise ValueError(f"num_images={num_images} and columns={columns} must be at least 1")
    if cell_px < 64:
        raise ValueError(f"cell_px={cell_px} is too narrow: use at least 64")
    samples = sample_images(store, generation, num_images, seed=seed, column=shown_column(generation, column))
    cells = [_cell_of(sample, cell_px) for sample in samples]
    title = f"Generation {generation.number}   {len(cells)} images, spread over the dataset"
    return png_bytes(draw_sheet(title, cells, columns, cell_px))


def image_picture(store: ObjectStore, generation: Generation, key: str, shard: int) -> bytes:
    """A PNG of one image with its masks drawn over it.

    Raises:
        maskmill.storage.errors.DatasetError: the generation has no masks of it.
    """
    for sample in read_annotated(store, generation, shards=[shard]):
        if sample.key == key:
            pixels_HW3 = decode_image(sample.jpeg())
            return png_bytes(Image.fromarray(draw_annotations(pixels_HW3, from_sa1b(sample.record))))
    raise DatasetError(f"{store.root}: generation {generation.number} has no masks of image {key}")


def plain_picture(store: ObjectStore, rows: Sequence[GenerationRow], key: str) -> bytes:
    """A PNG of one image as it was taken in.

    Args:
        store: the dataset.
        rows: of the image's shard.
        key: of the image.

    Raises:
        maskmill.storage.errors.DatasetError: it isn't taken in, or was rejected.
        maskmill.storage.errors.DamagedObject: the shard is not what its record says.
    """
    for row in rows:
        if row.column != IMAGES:
            continue
        for sample in read_row(store, row):
            if sample.key == key:
                return png_bytes(Image.fromarray(decode_image(stored_image(sample).jpeg)))
    raise DatasetError(
        f"{store.root}: there is no picture of image {key}: it is rejected, or not taken in yet"
    )


def _cell_of(sample: SampledImage, cell_px: int) -> Cell:
    width = (cell_px - 6) // 2
    pictures = (
        thumbnail(sample.image_HW3, None, width, width),
        thumbnail(sample.image_HW3, sample.annotated, width, width),
    )
    masks = len(sample.annotated.annotations)
    note = f"{sample.key}   {masks:,} {'mask' if masks == 1 else 'masks'}"
    return Cell(pictures, sample.source.rstrip("/").rsplit("/", 1)[-1], note)


def draw_sheet(title: str, cells: Sequence[Cell], columns: int, cell_px: int) -> Image.Image:
    """Cells in rows under a title; a row is as high as its highest picture."""
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(p.height for cell in row for p in cell.pictures) + 2 * LINE_PX + 8 for row in rows]
    width = 2 * MARGIN_PX + min(columns, max(len(cells), 1)) * (cell_px + GAP_PX) - GAP_PX
    height = 2 * MARGIN_PX + 34 + sum(heights) + GAP_PX * max(len(rows) - 1, 0)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX - 6), title, fill=INK, font=ImageFont.load_default(FONT_PX + 4))
    top = MARGIN_PX + 34
    for row, row_height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = MARGIN_PX + column * (cell_px + GAP_PX)
            _draw_cell(sheet, draw, cell, (left, top, cell_px, row_height - 2 * LINE_PX - 8))
        top += row_height + GAP_PX
    return sheet


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, place_xywh: tuple[int, int, int, int]
) -> None:
    left, top, width, picture_height = place_xywh
    slot = (width - 6 * (len(cell.pictures) - 1)) // len(cell.pictures)
    for i, picture in enumerate(cell.pictures):
        x = left + i * (slot + 6)
        draw.rectangle((x, top, x + slot - 1, top + picture_height - 1), fill=MAT)
        sheet.paste(picture, (x + (slot - picture.width) // 2, top + (picture_height - picture.height) // 2))
    font = ImageFont.load_default(FONT_PX)
    below = top + picture_height + 5
    draw.text((left, below), _fit(draw, cell.heading, font, width), fill=INK, font=font)
    draw.text((left, below + LINE_PX), _fit(draw, cell.note, font, width), fill=SOFT_INK, font=font)


def _fit(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> str:
    """The text with its middle left out where it is too long; control characters shown as blanks."""
    text = "".join(c if c.isprintable() else " " for c in text)
    shown = text
    keep = len(text)
    while keep > 4 and draw.textlength(shown, font=font) > width_px:
        keep -= 1
        shown = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
