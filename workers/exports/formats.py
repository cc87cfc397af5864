"""The formats that a generation can be exported in. To add one: a file in this folder, and its line here.

A format's file is named like it and has one function, `write`, a `WriteExport`. It is imported when the
format is used: this list costs nothing to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from maskmill.pipeline.checks import check_choice, check_int, check_range, check_type
from maskmill.workers.exports.chosen.splits import parse as parse_split

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.report import ExportReport

PEOPLE, AUTOMATIC = "people", "automatic"
PREFERENCES = (PEOPLE, AUTOMATIC)

Progress = Callable[[int], None]
"""Called with the number of images written so far."""


@dataclass(frozen=True)
class ExportTask:
    """What a format is asked to write.

    Attributes:
        store: the dataset.
        generation: what of it to export.
        destination: an empty or new folder or s3:// prefix, or one where this export was begun.
        choices: what is taken, and how it is written.
        progress: called with the number of images written so far.
    """

    store: ObjectStore
    generation: Generation
    destination: str
    choices: ExportChoices
    progress: Progress | None = None


class WriteExport(Protocol):
    """A format's `write`."""

    def __call__(self, task: ExportTask) -> ExportReport:
        """Writes a generation in the format.

        Returns:
            What was written; an export that is complete already is only reported.

        Raises:
            ExportError: the destination holds something else.
            maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
            maskmill.storage.errors.DatasetError: images were forgotten since the generation was published:
                the files written so far may hold them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format.

    Attributes:
        name: what it is asked for by.
        holds: what it writes, in a few words.
        writer: gives what writes it, from the format's own file.
        images_optional: whether it can be written without the photographs.
        polygons_optional: whether its masks are run lengths, or polygons where those are asked for.
        keeps_ids: whether it can number classes (and pictures, where it does number them) as an import does.
        comes_back: whether edits of it are taken back, by `maskmill import`.
    """

    name: str
    holds: str
    writer: Callable[[], WriteExport]
    images_optional: bool = False
    polygons_optional: bool = False
    keeps_ids: bool = False
    comes_back: bool = False


def _sa1b() -> WriteExport:
    from maskmill.workers.exports import sa1b

    return sa1b.write


def _coco() -> WriteExport:
    from maskmill.workers.exports import coco

    return coco.write


def _lvis() -> WriteExport:
    from maskmill.workers.exports import lvis

    return lvis.write


def _yolo() -> WriteExport:
    from maskmill.workers.exports import yolo

    return yolo.write


def _hf() -> WriteExport:
    from maskmill.workers.exports import hf

    return hf.write


def _panoptic() -> WriteExport:
    from maskmill.workers.exports.maps import panoptic

    return panoptic.write


def _semantic() -> WriteExport:
    from maskmill.workers.exports.maps import semantic

    return semantic.write


def _label_studio() -> WriteExport:
    from maskmill.workers.tools import label_studio

    return label_studio.write


def _fiftyone() -> WriteExport:
    from maskmill.workers.tools import fiftyone

    return fiftyone.write


def _cvat() -> WriteExport:
    from maskmill.workers.tools import cvat

    return cvat.write


FORMATS = (
    ExportFormat(name="sa1b", holds="tars of jpg + json", writer=_sa1b),
    ExportFormat(
        name="coco",
        holds="images + one annotations file",
        writer=_coco,
        images_optional=True,
        polygons_optional=True,
        keeps_ids=True,
    ),
    ExportFormat(
        name="lvis",
        holds="the same with LVIS's fields",
        writer=_lvis,
        images_optional=True,
        polygons_optional=True,
        keeps_ids=True,
    ),
    ExportFormat(name="yolo", holds="Ultralytics: images + polygons", writer=_yolo, keeps_ids=True),
    ExportFormat(name="hf", holds="Parquet for Hugging Face's datasets", writer=_hf, keeps_ids=True),
    ExportFormat(
        name="panoptic",
        holds="COCO's PNGs of segments",
        writer=_panoptic,
        images_optional=True,
        keeps_ids=True,
    ),
    ExportFormat(
        name="semantic", holds="PNGs of classes", writer=_semantic, images_optional=True, keeps_ids=True
    ),
    ExportFormat(
        name="label_studio",
        holds="tasks with predictions",
        writer=_label_studio,
        images_optional=True,
        comes_back=True,
    ),
    ExportFormat(
        name="cvat", holds="CVAT for images 1.1", writer=_cvat, images_optional=True, comes_back=True
    ),
    ExportFormat(name="fiftyone", holds="a FiftyOneDataset", writer=_fiftyone, comes_back=True),
)


def format_names() -> tuple[str, ...]:
    """What can be asked for."""
    return tuple(one.name for one in FORMATS)


def format_named(name: str) -> ExportFormat:
    """The format of this name.

    Raises:
        ValueError: there is none.
    """
    check_choice("format", name, format_names())
    return next(one for one in FORMATS if one.name == name)


def without_images() -> tuple[str, ...]:
    """Those that can be written without the photographs."""
    return tuple(one.name for one in FORMATS if one.images_optional)


def with_ids() -> tuple[str, ...]:
    """Those that can keep an import's numbers."""
    return tuple(one.name for one in FORMATS if one.keeps_ids)


def formats_told() -> str:
    """All of them, for help texts: "sa1b (tars of jpg + json), coco (...) or hf (...)"."""
    *others, last = (f"{one.name} ({one.holds})" for one in FORMATS)
    return f"{', '.join(others)} or {last}"


@dataclass(frozen=True, kw_only=True)
class ExportChoices:
    """How a generation is written out.

    Args:
        format: one of `FORMATS`.
        max_images: images in a file, for formats of several ("sa1b", "hf"), at least 1.
        max_bytes: bytes in such a file, at least 1; a single larger image still gets a file of its own.
        images: write the photographs too; only formats whose annotations stand alone can leave them out.
        column: that has the masks: "masks", or one that was imported.
        prefer: "people": their masks where a picture was reviewed, automatic ones elsewhere; "automatic":
            these alone. It has no say over another column than "masks".
        polygons: masks as polygons in place of run lengths, for readers that know no other (detectron2's of
            LVIS); COCO of an imported column keeps the words it came in.
        ids_of: an imported column whose category ids, image ids and file names, as far as the format has
            them, are taken for the masks of `column`; "" numbers anew.
        where: SQL on the generation's tables, rows of `images`: which images; "" takes all.
        only: the name of a set of pictures, saved in the page: these alone; "" takes all.
        masks_where: SQL on a mask's numbers and words: which masks; "" takes all.
        limit: the first so many of these images, at least 1; None takes all.
        split: percents of train, val and test, such as "90/5/5"; "" splits nothing, but for YOLO (95/5).
        classes: the classes there are; masks of others are left out. None listed: all that turn up.
        class_map: class by word; "*" is for words that aren't listed, "" says nothing.
        min_label_score: grounded labels below this don't count, 0 to 1.

    Raises:
        ValueError: an unknown format, a limit below 1, a format without the images it needs, polygons
            where they aren't a choice, ids kept where they can't be, other masks than those that edits come
            back to, a split that is none, or classes given twice.
    """

    format: str = "sa1b"
    max_images: int = 1000
    max_bytes: int = 2**30
    images: bool = True
    column: str = "masks"
    polygons: bool = False
    where: str = ""
    masks_where: str = ""
    limit: int | None = None
    split: str = ""
    classes: tuple[str, ...] = ()
    class_map: Mapping[str, str] = field(default_factory=dict)
    min_label_score: float = 0.0
    prefer: str = PEOPLE
    ids_of: str = ""
    only: str = ""

    @property
    def people(self) -> bool:
        """Whether people's masks stand in place of automatic ones."""
        return self.prefer == PEOPLE

    def __post_init__(self) -> None:
        chosen = format_named(self.format)
        if self.max_images < 1 or self.max_bytes < 1:
            limits = f"max_images={self.max_images} and max_bytes={self.max_bytes}"
            raise ValueError(f"{limits} must be at least 1")
        check_choice("prefer", self.prefer, PREFERENCES)
        check_type("images", self.images, bool)
        if not self.images and not chosen.images_optional:
            raise ValueError(
                f"images=False: {self.format} always holds its images; leave images on, or use one of "
                f"{', '.join(without_images())}"
            )
        check_type("polygons", self.polygons, bool)
        if self.polygons and not chosen.polygons_optional:
            either = ", ".join(one.name for one in FORMATS if one.polygons_optional)
            raise ValueError(f"polygons=True: {self.format} has one form of masks; {either} have a choice")
        if self.polygons and self.format == "coco" and self.column != "masks":
            raise ValueError(
                f"polygons=True: COCO of column={self.column!r} is written in the words it came in; leave "
                'polygons off, or use format="lvis"'
            )
        if self.ids_of and not chosen.keeps_ids:
            raise ValueError(
                f"ids_of={self.ids_of!r}: {self.format} numbers nothing; {', '.join(with_ids())} can keep ids"
            )
        if self.ids_of and self.ids_of == self.column and self.format == "coco":
            raise ValueError(f"ids_of={self.ids_of!r}: that column's export keeps its own ids; leave it off")
        if chosen.comes_back and (self.column != "masks" or not self.people):
            other = f"column={self.column!r}" if self.column != "masks" else f"prefer={self.prefer!r}"
            raise ValueError(
                f"{other}: edits of {self.format} come back to the masks in force, people's where there are "
                "any, and would be held against the wrong ones; leave it out, or export coco"
            )
        self._check_selection()

    @property
    def some_masks(self) -> bool:
        """Whether masks of an image that is taken may be left out."""
        return bool(self.masks_where or self.classes or self.class_map or self.min_label_score)

    def _check_selection(self) -> None:
        if self.limit is not None:
            check_int("limit", self.limit, 1, 2**40)
        parse_split(self.split)
        check_range("min_label_score", self.min_label_score, 0.0, 1.0)
        twice = [name for name, times in Counter(self.classes).items() if times > 1 or not name.strip()]
        if twice:
            raise ValueError(f"classes={twice[0]!r}: each class has a name of its own")
        unknown = sorted({name for name in self.class_map.values() if name} - set(self.classes))
        if self.classes and unknown:
            raise ValueError(f"class_map gives {unknown[0]!r}, which classes doesn't list")
