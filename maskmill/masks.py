"""The masks of one image as people use them: counted, looked at, as arrays, as COCO, as supervision's.

A `Masks` is an SA-1B record, the same that a dataset stores, and its picture; everything else is made from
the two when asked for. Converters of a foreign format stand beside that format (workers/exports); here they
are only called.

Shape suffixes: N masks, H rows, W columns, 3 RGB, 4 corners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, from_sa1b
from maskmill.pipeline.rle import decode
from maskmill.workers.exports.categories import Categories
from maskmill.workers.exports.coco import annotation_entry
from maskmill.workers.pictures.render import draw_annotations, png_bytes, thumbnail
from maskmill.workers.reading.words import category_of

if TYPE_CHECKING:
    import supervision

NOTEBOOK_SIDE_PX = 900
"""The most a picture takes in a notebook's cell; `show` gives the whole."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Masks:
    """The masks of an image, in the order the stage gave them.

    `len(masks)`, `masks[0]` and `for mask in masks` give `Annotation`s: `bbox_xywh`, `area_px`,
    `predicted_iou`, `stability_score`, `parent`, and the mask itself as run lengths.

    Attributes:
        record: SA-1B's, `{"image": {...}, "annotations": [...]}`, as JSON; with the captions, labels and
            names of a dataset that has them.
        picture: gives the photograph, upright: uint8[H, W, 3], RGB.
    """

    record: Mapping[str, Any] = field(repr=False)
    picture: Callable[[], npt.NDArray[np.uint8]] = field(repr=False)

    @cached_property
    def annotated(self) -> AnnotatedImage:
        """The record, typed. Raises ValueError where it is none."""
        return from_sa1b(self.record)

    @property
    def width(self) -> int:
        """Of the image in px."""
        return self.annotated.width

    @property
    def height(self) -> int:
        """Of the image in px."""
        return self.annotated.height

    @property
    def names(self) -> tuple[str | None, ...]:
        """What each mask is called by a dataset's labels or names; None where nothing says."""
        return tuple(category_of(row) for row in self.record["annotations"])

    @property
    def made_by(self) -> tuple[str, ...]:
        """Who made each mask: "person" or "oracle" for those drawn or confirmed singly, else "automatic"."""
        return tuple(str(row.get("made_by", "automatic")) for row in self.record["annotations"])

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float64]:
        """float64[N, 4]: left, top, right, bottom in px, the corners' pixels included."""
        boxes_N4 = np.array([each.bbox_xywh for each in self], np.float64).reshape(-1, 4)
        boxes_N4[:, 2:] += boxes_N4[:, :2]
        return boxes_N4

    @property
    def predicted_iou(self) -> npt.NDArray[np.float64]:
        """float64[N]: the model's own estimate of each mask's IoU with its object."""
        return np.array([each.predicted_iou for each in self], np.float64)

    @property
    def stability_score(self) -> npt.NDArray[np.float64]:
        """float64[N], in [0, 1]: how little each mask changes with its cut-off."""
        return np.array([each.stability_score for each in self], np.float64)

    def __len__(self) -> int:
        return len(self.annotated.annotations)

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self.annotated.annotations)

    def __getitem__(self, place: int) -> Annotation:
        return self.annotated.annotations[place]

    def __repr__(self) -> str:
        count = "1 mask" if len(self) == 1 else f"{len(self)} masks"
        return f"<Masks: {count} of {self.record['image']['file_name']}, {self.width} x {self.height} px>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        sides = (min(self.width, NOTEBOOK_SIDE_PX), min(self.height, NOTEBOOK_SIDE_PX))
        return png_bytes(thumbnail(self.picture(), self.annotated, *sides))

    def to_numpy(self) -> npt.NDArray[np.bool_]:
        """bool[N, H, W], every mask at the image's size; N x H x W bytes. uint8 arrays count as well as bool
        ones in most libraries: `.view("uint8")` copies nothing."""
        masks_NHW = np.zeros((len(self), self.height, self.width), np.bool_)
        for mask_HW, each in zip(masks_NHW, self, strict=True):
            mask_HW[:] = decode(each.segmentation)
        return masks_NHW

    def to_coco(self) -> dict[str, Any]:
        """COCO's JSON of this image; see `maskmill.to_coco` for several in one."""
        return to_coco([self])

    def to_supervision(self) -> supervision.Detections:
        """Roboflow supervision's detections: boxes, masks, predicted IoU as confidence, class names where
        the masks have any.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as exc:
            raise ImportError("to_supervision needs supervision: pip install supervision") from exc
        data: dict[str, Any] = {"stability_score": self.stability_score.astype(np.float32)}
        class_id = None
        if any(name is not None for name in self.names):
            class_id = np.array(Categories().count(self.names), np.int64)
            data["class_name"] = np.array([name if name is not None else "object" for name in self.names])
        return supervision.Detections(
            xyxy=self.boxes_xyxy.astype(np.float32),
            mask=self.to_numpy(),
            confidence=self.predicted_iou.astype(np.float32),
            class_id=class_id,
            data=data,
        )

    def show(self, *, opacity: float = 0.45) -> Image.Image:
        """The photograph under its masks, as Pillow's picture: notebooks display it, `.show()` opens a
        viewer, `.save("masks.png")` keeps it.

        Args:
            opacity: of the masks' inside, 0 to 1.

        Raises:
            ValueError: the opacity is out of range.
        """
        return Image.fromarray(draw_annotations(self.picture(), self.annotated, opacity=opacity))


def to_coco(images: Iterable[Masks]) -> dict[str, Any]:
    """COCO's JSON of several images, as pycocotools, detectron2 and others read it.

    Args:
        images: with distinct image ids: what one call of `annotate` gave, or the samples of one dataset.

    Returns:
        `{"images": [...], "annotations": [...], "categories": [...]}`, ready for `json.dump`; a mask's
        category is what it is called, else "object".

    Raises:
        ValueError: two images of one id.
    """
    categories = Categories()
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for masks in images:
        info, rows = masks.record["image"], masks.record["annotations"]
        entry = {"id": info["image_id"], **{name: info[name] for name in ("file_name", "width", "height")}}
        entries.append(entry)
        for category_id, row in zip(categories.count(masks.names), rows, strict=True):
            annotations.append(annotation_entry(row, image_id=entry["id"], category_id=category_id))

    twice = [number for number, count in Counter(entry["id"] for entry in entries).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} image ids stand for several images (such as {twice[0]}): annotate them in one "
            "list, whose images are numbered"
        )
    return {"images": entries, "annotations": annotations, "categories": categories.coco()}
