"""The rows that `maskmill query` shows of each column with words, made from the column's records.

    captions   a row per text: the picture's (annotation_id null) and its crops'; dropped ones have kept 0
    labels     a row per label, with its box in px and the mask it names
    names      a row per name of a mask, the best has place 0
    and of annotations that were imported a row per mask, as in the index of masks; of reviewed ones also what
    became of each, and whose it is

It does not know: torch, models, and which columns a dataset has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from maskmill.storage.dataset.record_rows import Kind, RecordRows

Record = Mapping[str, Any]
Row = dict[str, object]


def _box(xywh: Any) -> Row:
    names = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
    if xywh is None:
        return dict.fromkeys(names)
    return {name: float(value) for name, value in zip(names, xywh, strict=True)}


def _captions(record: Record) -> Iterator[Row]:
    image_id = record["image"]["image_id"]
    for part in (record, *record["crops"]):
        for name, kept in (("texts", 1), ("dropped", 0)):
            for text in part[name]:
                yield {
                    "image_id": image_id,
                    "annotation_id": part.get("mask"),
                    "text": text["text"],
                    "score": text["score"],
                    "origin": text["origin"],
                    "kept": kept,
                    "is_caption": int(bool(kept) and text["text"] == part["caption"]),
                }


def _labels(record: Record) -> Iterator[Row]:
    for label in record["labels"]:
        yield {
            "image_id": record["image"]["image_id"],
            "annotation_id": label["mask"],
            "label": label["label"],
            "phrase": label["phrase"],
            "score": label["score"],
            **_box(label["box"]),
            "link_iou": label["link_iou"],
        }


def _names(record: Record) -> Iterator[Row]:
    for mask in record["names"]:
        for place, named in enumerate(mask["names"]):
            yield {
                "image_id": record["image"]["image_id"],
                "annotation_id": mask["id"],
                "place": place,
                "name": named["name"],
                "score": named["score"],
                "made_by": mask["by"],
            }


def _annotations(record: Record) -> Iterator[Row]:
    for annotation in record.get("annotations") or ():
        yield {
            "image_id": record["image"]["image_id"],
            "annotation_id": annotation.get("id"),
            "area_px": annotation.get("area"),
            **_box(annotation.get("bbox")),
            "predicted_iou": annotation.get("predicted_iou"),
            "stability_score": annotation.get("stability_score"),
            "label": annotation.get("label"),
            "made_by": annotation.get("made_by"),
        }


def _reviewed(record: Record) -> Iterator[Row]:
    facts = record.get("review") or {}
    told = {name: facts.get(name) for name in ("who", "tool", "save")}
    for annotation, row in zip(record.get("annotations") or (), _annotations(record), strict=True):
        yield {
            **row,
            **told,
            "how": annotation.get("how"),
            "clicks": annotation.get("clicks"),
            "seconds": annotation.get("seconds"),
            "drawn": int(bool(annotation.get("drawn"))),
            "finished": int(bool(facts.get("complete"))),
        }


_BOX: Mapping[str, Kind] = {
    "bbox_x": "float64",
    "bbox_y": "float64",
    "bbox_w": "float64",
    "bbox_h": "float64",
}
_IDS: Mapping[str, Kind] = {"image_id": "int64", "annotation_id": "int64"}

WORD_ROWS: Mapping[str, RecordRows] = {
    "captions": RecordRows(
        {
            **_IDS,
            "text": "string",
            "score": "float64",
            "origin": "string",
            "kept": "int64",
            "is_caption": "int64",
        },
        _captions,
    ),
    "labels": RecordRows(
        {**_IDS, "label": "string", "phrase": "string", "score": "float64", **_BOX, "link_iou": "float64"},
        _labels,
    ),
    "names": RecordRows(
        {**_IDS, "place": "int64", "name": "string", "score": "float64", "made_by": "string"}, _names
    ),
}
"""By column."""

ANNOTATION_ROWS = RecordRows(
    {
        **_IDS,
        "area_px": "float64",
        **_BOX,
        "predicted_iou": "float64",
        "stability_score": "float64",
        "label": "string",
        "made_by": "string",
    },
    _annotations,
)
"""Of every other column, whose records have SA-1B's annotations, or none."""


REVIEW_ROWS = RecordRows(
    {
        **ANNOTATION_ROWS.fields,
        "how": "string",
        "clicks": "int64",
        "seconds": "float64",
        "drawn": "int64",
        "who": "string",
        "tool": "string",
        "save": "int64",
        "finished": "int64",
    },
    _reviewed,
)
"""Of what people reviewed; those before there were saves say less."""


def rows_for(column: str) -> RecordRows:
    """How a column's records become rows."""
    return REVIEW_ROWS if column == "review" else WORD_ROWS.get(column, ANNOTATION_ROWS)
