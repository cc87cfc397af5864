"""Pictures show every mask, leave the rest alone, and keep names from becoming anything else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import encode_mask
from maskmill.workers.pictures.render import (
    Cell,
    draw_annotations,
    draw_sheet,
    label_map,
    mask_colours,
    outlines,
    png_bytes,
    thumbnail,
)


def _image_of(*boxes_xyxy: tuple[int, int, int, int], size: tuple[int, int] = (60, 80)) -> AnnotatedImage:
    annotations = []
    for x0, y0, x1, y1 in boxes_xyxy:
        mask_HW = np.zeros(size, dtype=bool)
        mask_HW[y0:y1, x0:x1] = True
        box_xywh = (float(x0), float(y0), float(x1 - x0 - 1), float(y1 - y0 - 1))
        area_px = int(mask_HW.sum())
        annotations.append(
            Annotation(encode_mask(mask_HW), box_xywh, area_px, 0.9, 0.96, (0, 0, 80, 60), ((x0, y0),))
        )
    return AnnotatedImage(size[1], size[0], tuple(annotations))


GREY = np.full((60, 80, 3), 100, np.uint8)


def test_small_masks_lie_over_large_ones_whatever_their_order() -> None:
    small, large = (10, 10, 20, 20), (5, 5, 50, 40)
    for boxes in ((small, large), (large, small)):
        labels_HW = label_map(_image_of(*boxes))
        assert labels_HW[15, 15] == boxes.index(small) + 1
        assert labels_HW[30, 40] == boxes.index(large) + 1
        assert labels_HW[50, 70] == 0


def test_pixels_outside_masks_stay_and_inside_are_tinted() -> None:
    drawn = draw_annotations(GREY, _image_of((10, 10, 40, 40)), outline_px=1)
    assert (drawn[45:, 45:] == 100).all()
    inside = drawn[20:30, 20:30].reshape(-1, 3)
    assert (inside == inside[0]).all() and (inside[0] != 100).any()
    assert drawn[10, 20].astype(int).sum() > inside[0].astype(int).sum(), "outlines are lighter"
    assert (GREY == 100).all(), "the photograph given is left alone"


def test_opacity_zero_draws_outlines_alone() -> None:
    drawn = draw_annotations(GREY, _image_of((10, 10, 40, 40)), opacity=0.0, outline_px=1)
    assert (drawn[12:38, 12:38] == 100).all()
    assert (drawn[10, 10:40] != 100).any(axis=1).all()


def test_no_masks_leave_the_photograph() -> None:
    assert (draw_annotations(GREY, AnnotatedImage(80, 60, ())) == GREY).all()


def test_a_photograph_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(60, 80, 3\).*\(60, 90, 3\)"):
        draw_annotations(GREY, AnnotatedImage(90, 60, ()))
    with pytest.raises(ValueError, match="opacity"):
        draw_annotations(GREY, _image_of((1, 1, 5, 5)), opacity=1.5)


def test_outlines_are_as_thick_as_asked_and_stay_inside() -> None:
    labels_HW = label_map(_image_of((20, 20, 40, 40)))
    for thickness in (1, 3):
        edge_HW = outlines(labels_HW, thickness)
        assert edge_HW[30].sum() == 2 * thickness
        assert not edge_HW[labels_HW == 0].any()


def test_touching_masks_share_one_line() -> None:
    labels_HW = label_map(_image_of((0, 0, 40, 60), (40, 0, 80, 60)))
    assert outlines(labels_HW, 1)[30].sum() == 1


def test_neighbouring_colours_differ_and_repeat_every_run() -> None:
    colours = mask_colours(60).astype(int)
    assert (colours == mask_colours(60)).all()
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 40
    assert len({tuple(colour) for colour in colours}) == 60
    assert mask_colours(0).shape == (0, 3)


@pytest.mark.parametrize("shape", [(400, 40), (40, 400), (30, 30)])
def test_thumbnails_fit_their_box_and_fill_one_side(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    for annotated in (None, _image_of((1, 1, 20, 20), size=shape)):
        picture = thumbnail(image, annotated, 100, 80)
        assert picture.width <= 100 and picture.height <= 80
        assert picture.width == 100 or picture.height == 80


def test_a_sheet_shows_each_cell_and_survives_any_name() -> None:
    pictures = [Image.new("RGB", (100, 70), colour) for colour in ("red", "green", "blue")]
    cells = [Cell((picture, picture), "long name " * 40 + "\n\x00\u202e<b>", "0001") for picture in pictures]
    sheet = np.asarray(Image.open(io.BytesIO(png_bytes(draw_sheet("title", cells, 2, 206)))))
    found = {tuple(int(v) for v in colour) for colour in sheet.reshape(-1, 3)[::7]}
    assert {(255, 0, 0), (0, 128, 0), (0, 0, 255)} <= found
    assert sheet.shape[1] == 2 * 24 + 2 * 206 + 20
