"""What the masks column stores of a picture: an SA-1B record, and a row of the index a mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b, to_sa1b
from maskmill.workers.stages.base import EncodedSample, Picture, encode_record


def decode_masks(files: Mapping[str, bytes]) -> AnnotatedImage:
    """The inverse of `encode_masks`. Raises ValueError, KeyError."""
    return from_sa1b(json.loads(files["json"]))


def encode_masks(picture: Picture, image: AnnotatedImage) -> EncodedSample:
    """The SA-1B record of a picture and its index rows."""
    record = to_sa1b(image, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    encoded = encode_record(picture.key, record)
    return EncodedSample(encoded.sample, mask_rows(picture, record), len(image.annotations))


def mask_rows(picture: Picture, record: Mapping[str, Any]) -> list[dict[str, object]]:
    """The index's rows of a record that has masks in SA-1B's form: `MASK_INDEX`."""
    return [
        {
            "key": picture.key,
            "image_id": picture.image_id,
            "annotation_id": row["id"],
            "area_px": row["area"],
            **dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), row["bbox"], strict=True)),
            "predicted_iou": row["predicted_iou"],
            "stability_score": row["stability_score"],
            "output_token": row["output_token"],
            "parent": row["parent"],
            "source": picture.source,
        }
        for row in record["annotations"]
    ]
