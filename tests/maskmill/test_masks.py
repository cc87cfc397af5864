"""What `Masks` gives: arrays, COCO as pycocotools reads it, supervision's detections, pictures."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import maskmill
from maskmill.pipeline.annotation import AnnotatedImage, Annotation, to_sa1b
from maskmill.pipeline.rle import encode_mask

HEIGHT, WIDTH = 6, 8


def box_mask(x: int, y: int, width: int, height: int) -> Annotation:
    """A mask that fills a box."""
    mask_HW = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask_HW[y : y + height, x : x + width] = True
    return Annotation(
        segmentation=encode_mask(mask_HW),
        bbox_xywh=(x, y, width - 1, height - 1),
        area_px=width * height,
        predicted_iou=0.5 + x / 10,
        stability_score=0.75,
        crop_box_xywh=(0, 0, WIDTH - 1, HEIGHT - 1),
        point_xy=((x, y),),
        output_token=1,
    )


def masks_of(*annotations: Annotation, image_id: int = 1, words: tuple[str, ...] = ()) -> maskmill.Masks:
    image = AnnotatedImage(WIDTH, HEIGHT, annotations)
    record = to_sa1b(image, image_id=image_id, file_name=f"{image_id}.jpg")
    for row, word in zip(record["annotations"], words, strict=False):
        row["names"] = [{"name": word, "score": 0.9}]
    return maskmill.Masks(record=record, picture=partial(np.full, (HEIGHT, WIDTH, 3), 200, np.uint8))


TWO = (box_mask(1, 2, 3, 2), box_mask(4, 0, 4, 6))


def test_masks_are_counted_walked_and_columns() -> None:
    masks = masks_of(*TWO)
    assert len(masks) == 2 and list(masks) == [masks[0], masks[1]] == list(TWO)
    assert masks[-1].area_px == 24
    assert masks.boxes_xyxy.tolist() == [[1, 2, 3, 3], [4, 0, 7, 5]]
    assert masks.predicted_iou.tolist() == [0.6, 0.9]
    assert masks.stability_score.tolist() == [0.75, 0.75]
    assert repr(masks) == "<Masks: 2 masks of 1.jpg, 8 x 6 px>"
    assert repr(masks_of(TWO[0])) == "<Masks: 1 mask of 1.jpg, 8 x 6 px>"


def test_arrays_have_every_pixel() -> None:
    masks_NHW = masks_of(*TWO).to_numpy()
    assert masks_NHW.shape == (2, HEIGHT, WIDTH) and masks_NHW.dtype == np.bool_
    assert np.argwhere(masks_NHW[0]).tolist() == [[2, 1], [2, 2], [2, 3], [3, 1], [3, 2], [3, 3]]
    assert masks_NHW.sum(axis=(1, 2)).tolist() == [6, 24]


def test_no_masks_are_empty_arrays_and_lists() -> None:
    masks = masks_of()
    assert len(masks) == 0 and not masks and list(masks) == []
    assert masks.to_numpy().shape == (0, HEIGHT, WIDTH)
    assert masks.boxes_xyxy.shape == (0, 4)
    assert masks.to_coco()["annotations"] == []
    assert masks.show().size == (WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_pycocotools_reads_several_images_in_one(tmp_path: Path) -> None:
    images = [masks_of(*TWO, words=("cup", "cup")), masks_of(), masks_of(TWO[0], image_id=7)]
    images[1] = masks_of(image_id=2)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(maskmill.to_coco(images)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert sorted(coco.getImgIds()) == [1, 2, 7]
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["object", "cup"]
    found = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [(row["category_id"], row["bbox"]) for row in found] == [
        (2, [1.0, 2.0, 3.0, 2.0]),
        (2, [4.0, 0.0, 4.0, 6.0]),
    ]
    decoded = np.stack([coco.annToMask(row) for row in found]).astype(np.bool_)
    assert (decoded == images[0].to_numpy()).all()
    assert 0 not in coco.getAnnIds()


def test_two_images_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 image ids stand for several images \(such as 1\)"):
        maskmill.to_coco([masks_of(TWO[0]), masks_of(TWO[1])])


def test_pictures_show_the_masks() -> None:
    masks = masks_of(TWO[0])
    shown = np.asarray(masks.show())
    changed_HW = (shown != 200).any(axis=2)
    assert (changed_HW == masks.to_numpy()[0]).all()
    with Image.open(io.BytesIO(masks._repr_png_())) as picture:
        assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match="opacity must be between 0 and 1"):
        masks.show(opacity=2)


def test_they_travel_between_processes() -> None:
    masks = pickle.loads(pickle.dumps(masks_of(*TWO)))
    assert list(masks) == list(TWO)
    assert masks.show().size == (WIDTH, HEIGHT)


def test_without_supervision_the_error_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        masks_of(*TWO).to_supervision()


@pytest.mark.parametrize("words", [(), ("cup", "spoon")])
def test_supervision_gets_boxes_masks_scores_and_names(words: tuple[str, ...]) -> None:
    pytest.importorskip("supervision", reason="an optional package: pip install supervision")
    masks = masks_of(*TWO, words=words)
    found = masks.to_supervision()
    assert len(found) == 2
    assert found.xyxy.tolist() == [[1, 2, 3, 3], [4, 0, 7, 5]]
    assert (found.mask == masks.to_numpy()).all()
    assert found.confidence.tolist() == pytest.approx([0.6, 0.9])
    if words:
        assert found.data["class_name"].tolist() == list(words)
        assert found.class_id.tolist() == [2, 3]
    assert len(found[found.confidence > 0.8]) == 1
    assert len(masks_of().to_supervision()) == 0
