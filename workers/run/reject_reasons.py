"""Why an image has no sample, or an object no mask: every reason, with what it means and what helps.

A reason is a short word to count by; a reject's own detail says what exactly. docs/troubleshooting.md shows
this list (`reasons_table`), and a test holds it against every reason that the code gives. What a picture is
refused for by its header stands here whole: the reason with its check (`refuses`), first match counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from maskmill.storage.dataset.records import NOT_ANNOTATED
from maskmill.workers.run.ingest_settings import JPEG_MAX_SIDE_PX, IngestSettings


@dataclass(frozen=True)
class Header:
    """What an image file says of its picture before anything is decoded.

    Attributes:
        width, height: in px, as stored; not turned upright yet.
        format: Pillow's name of it, "JPEG".
        mode: Pillow's name of its kind of pixels, "RGB".
    """

    width: int
    height: int
    format: str
    mode: str

    def __str__(self) -> str:
        return f"{self.width}x{self.height} px"


@dataclass(frozen=True)
class Reason:
    """A reason.

    Attributes:
        name: the word; `no_<column>` stands for a column's name.
        means: a sentence, without the full stop.
        cure: what to do, without the full stop.
        of: "image", which is then a reject, or "object", which is left out of its image's record.
        refuses: what exactly it refuses of a header, None where it doesn't; a reason without one is given by
            the code that finds it.
    """

    name: str
    means: str
    cure: str
    of: Literal["image", "object"] = "image"
    refuses: Callable[[Header, IngestSettings], str | None] | None = None


def _too_many_pixels(header: Header, settings: IngestSettings) -> str | None:
    if header.width * header.height <= settings.max_pixels:
        return None
    return f"{header}, more than max_pixels={settings.max_pixels}"


def _too_small(header: Header, settings: IngestSettings) -> str | None:
    if min(header.width, header.height) >= settings.min_side_px:
        return None
    return f"{header}, a side under min_side_px={settings.min_side_px}"


def _too_long(header: Header, settings: IngestSettings) -> str | None:
    if max(header.width, header.height) <= JPEG_MAX_SIDE_PX:
        return None
    return f"{header}, JPEG holds {JPEG_MAX_SIDE_PX} at most"


REASONS = (
    # Found when the input is planned
    Reason(
        "duplicate",
        "the same bytes are in the dataset already, under another name",
        "nothing: the first one is kept",
    ),
    Reason(
        "missing", "there is no such file, or it is a link to nothing", "bring the file back and run again"
    ),
    Reason("unreadable", "the file or folder may not be read", "give the right to read it and run again"),
    Reason("not_a_file", "a folder, link, pipe or device, which is never opened", "give the file itself"),
    Reason(
        "unsupported",
        "an address of a manifest that is no image or tar",
        "give images or tars; the ending tells them apart",
    ),
    Reason(
        "tar_damaged",
        "an input tar is cut off; the whole members before the cut are in the dataset",
        "fetch the tar again and run again",
    ),
    Reason(
        "forgotten",
        "removed on request; it is not taken in again",
        "nothing: `maskmill forget` was asked for it (repair.md)",
    ),
    # Found when the bytes are read and decoded
    Reason("empty_file", "the file has no bytes", "fetch the file again and run again"),
    Reason("not_an_image", "the bytes are no image that is known", "convert it, or leave it out"),
    Reason("truncated", "the image ends too early", "fetch the file again and run again"),
    Reason("damaged", "the image's bytes contradict each other", "fetch the file again and run again"),
    Reason(
        "animated",
        "more than one frame, or pages that are no smaller copies of the first",
        "store the frame that is meant",
    ),
    Reason("heic", "a phone's HEIC picture", "convert it first, `heif-convert in.heic out.jpg`"),
    Reason(
        "too_thin",
        "thinner than a pixel at the model's input size (2048:1 for SAM, 640:1 for nano)",
        "cut it into parts",
    ),
    Reason(
        "model_refused",
        "a model raised an error for this picture, and works with others; the detail has its words",
        "look at the picture",
    ),
    Reason(
        "too_many_pixels",
        "more than `ingest.max_pixels`, told from the header before anything is decoded",
        "raise it, up to what Pillow opens, or scale the image",
        refuses=_too_many_pixels,
    ),
    Reason(
        "too_small",
        "a side is below `ingest.min_side_px`",
        "lower it, or leave the image out",
        refuses=_too_small,
    ),
    Reason(
        "too_long",
        "a side is longer than a JPEG can hold, 65,535 px",
        "scale the image, or cut it into several",
        refuses=_too_long,
    ),
    Reason(
        "unsupported_pixels",
        "values that have no agreed range as RGB, such as floating-point TIFF",
        "store 8 or 16 bit grey, or RGB; `ingest.range` = `percentile` or `min-max` takes them",
    ),
    Reason(
        "source_missing", "the file was planned and is gone", "bring it back, then `maskmill verify --repair`"
    ),
    Reason(
        "source_changed",
        "the file's bytes are not those that were planned",
        "bring the old ones back, or start a new dataset",
    ),
    # Found by a stage
    Reason(
        "out_of_memory",
        "one image alone is too much for its worker",
        "give a worker more memory, or lower `ingest.max_shorter_side_px`",
    ),
    Reason(
        "crashed_the_worker",
        "workers died whenever they had this image in hand",
        "look at the image, and at the worker's log",
    ),
    Reason(
        "no_<column>",
        "a column that this one is made from has rejected the image",
        "see that column's reason",
    ),
    Reason(
        "boxes_of_another_size",
        "the boxes' file has the picture in another shape",
        "correct the width and height in the boxes' file",
    ),
    Reason(
        NOT_ANNOTATED,
        "the imported annotations do not name the image",
        "check that file names are those of the sources, folders too",
    ),
    Reason(
        "ambiguous", "several names in the annotations could be the image", "write the folders in the file"
    ),
    Reason(
        "size_differs",
        "the annotations are of a picture of another shape",
        "import those of this picture, or correct its width and height",
    ),
    # Objects left out of a record, or of a file of annotations
    Reason("no_image_id", "an image of the file has no id", "give it one", of="object"),
    Reason(
        "bad_image_size", "an image of the file has a width or height that is none", "correct it", of="object"
    ),
    Reason("no_file_name", "an image of the file has no name", "name its file", of="object"),
    Reason("not_an_object", "an annotation is no JSON object", "correct the file", of="object"),
    Reason(
        "unknown_image",
        "an annotation is of an image that the file doesn't list, or lists wrongly",
        "list it, or correct what is said of it",
        of="object",
    ),
    Reason(
        "image_not_in_dataset",
        "an annotation's image is none of the dataset's",
        "check that file names are those of the sources, folders too",
        of="object",
    ),
    Reason(
        "picture_rejected",
        "an annotation's picture was rejected",
        "see the picture's own reason",
        of="object",
    ),
    Reason(
        "bad_polygon",
        "no ring with three points, finite and near the picture",
        "draw it again; a single bad ring is left out of its polygon",
        of="object",
    ),
    Reason("bad_run_lengths", "run lengths that don't add up", "write them again", of="object"),
    Reason(
        "mask_of_another_size", "run lengths of another size than the image", "scale the mask", of="object"
    ),
    Reason("bad_box", "a box is not four numbers with a size", "correct it", of="object"),
    Reason("bad_points", "points are not pairs of numbers, each with a label", "correct them", of="object"),
    Reason("bad_score", "a score is no number, or NaN (`null` is no score)", "correct it", of="object"),
    Reason("no_shape", "an annotation has neither a segmentation nor a box", "give one", of="object"),
    Reason("box_alone", "a box is no true mask to measure or review with", "draw the mask", of="object"),
    Reason("no_category", "an annotation's category is none of the file's", "list it", of="object"),
    Reason(
        "too_many",
        "an image has ids for 100,000 annotations; or more boxes were found than `labels.max_boxes`",
        "split the image; or raise it",
        of="object",
    ),
    Reason("crowd", "a given box is of a crowd, which is no object", "nothing", of="object"),
    Reason("low_score", "a given box scores below `boxes.min_score`", "lower it", of="object"),
    Reason(
        "outside_the_image",
        "a given box or point lies outside the picture",
        "correct the boxes' file",
        of="object",
    ),
    Reason("no_extent", "a found box has no part in the picture", "nothing", of="object"),
    Reason("no_phrase", "no word was marked for a found box", "lower `labels.text_threshold`", of="object"),
    Reason(
        "low_predicted_iou",
        "a found box's mask has no predicted IoU above `labels.predicted_iou`, by default "
        "`masks.predicted_iou`; its label stays",
        "lower it",
        of="object",
    ),
    Reason(
        "low_stability",
        "a found box's mask is less stable than `labels.stability`, by default `masks.stability`; its label "
        "stays",
        "lower it",
        of="object",
    ),
    Reason(
        "small_mask",
        "a found box's mask is smaller than `labels.min_area_px`, by default `masks.min_area_px`; its label "
        "stays",
        "lower it",
        of="object",
    ),
    Reason("empty_mask", "no pixel of the picture is in the mask", "look at the box or outline", of="object"),
)


@dataclass(frozen=True)
class Refusal:
    """A reason's name, and what exactly was refused."""

    reason: str
    detail: str


def refused(header: Header, settings: IngestSettings) -> Refusal | None:
    """Why a picture is not taken in, told by its header; None where nothing speaks against it."""
    for one in REASONS:
        if one.refuses is not None and (detail := one.refuses(header, settings)) is not None:
            return Refusal(one.name, detail)
    return None


def reason_names() -> frozenset[str]:
    """All names."""
    return frozenset(reason.name for reason in REASONS)


def explained(names: Iterable[str]) -> list[str]:
    """What reasons mean and what helps, a sentence each, for those that this list has."""
    known = {reason.name: reason for reason in REASONS}
    return [f"{name}: {known[name].means}; {known[name].cure}" for name in names if name in known]


def reasons_table(reasons: Sequence[Reason] = REASONS) -> str:
    """The list as docs/troubleshooting.md shows it, in Markdown."""
    lines = ["| reason | of | means | cure |", "|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.of} | {one.means} | {one.cure} |" for one in reasons]
    return "\n".join(lines)
