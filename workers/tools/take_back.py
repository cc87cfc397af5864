"""Edits that come back from another editor: reviews by the person who made them, and nothing else.

How it works: a picture is held against the masks that its editor was given: those of a generation, people's
where they had some, less those that the export left out, which stay. A mask of the same pixels and label was
kept, one of other pixels changed, one that isn't there any more rejected, one that wasn't there added; a mask
whose id was lost on the way is known by its pixels. A picture on which nothing changed gets no save. What was
saved meanwhile is not overwritten: the edit then stands beside it. The same file again is the same saves.
All files are read, and all edits held against their pictures, before the first is kept.

It doesn't know: editors' files (label_studio.py, cvat.py, fiftyone.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.dataset.saves import Base, standing_of
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.plan import image_key, load_plans
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.reading.words import category_of
from maskmill.workers.reviews.keep import Start, Work, keep
from maskmill.workers.reviews.rows import ADDED, AUTOMATIC, CHANGED, CONFIRMED, KEPT, MaskWork, rows_of
from maskmill.workers.run.columns import MASKS
from maskmill.workers.stages.review import REVIEW
from maskmill.workers.tools import cvat, fiftyone, label_studio
from maskmill.workers.tools.edited import EditedImage, EditedMask

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

READERS: Mapping[str, Callable[[Path], Iterator[EditedImage]]] = {
    "label_studio": label_studio.read,
    "cvat": cvat.read,
    "fiftyone": fiftyone.read,
}
"""The editors whose files are known, by the name of their export."""

SAME, SAVED, BESIDE, THERE = "as they were", "edited", "edited, beside later work", "taken before"


@dataclass
class TakenBack:
    """What came back.

    Attributes:
        pictures: by what became of them: as they were, edited, edited beside later work, taken before;
            skipped, not annotated or a draft in the editor.
        masks: of the edited ones, by what became of them: kept, confirmed, changed, added, rejected.
        people: edited pictures, by who edited them.
        absent: annotated pictures of the generation that no file has: they are as they were.
    """

    pictures: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    absent: int = 0


def take_back(
    store: ObjectStore,
    paths: Sequence[Path],
    *,
    format: str,
    generation: Generation,
    who: str,
    created_utc: str,
    progress: Callable[[int, int], None] | None = None,
) -> TakenBack:
    """Keeps the edits of an editor's files as saves.

    Args:
        store: the dataset.
        paths: files of the editor's.
        format: one of `READERS`.
        generation: that the editor was given, where its files don't tell.
        who: made the edits, where the files don't tell.
        created_utc: ISO 8601.
        progress: called with the pictures done, and in all.

    Raises:
        InputError: a file that can't be read, a picture that isn't in the dataset, or masks that can't be of
            it. Nothing was kept then.
        DamagedObject: a shard, or a save, is not what was written.
    """
    images = [image for path in paths for image in READERS[format](path)]
    taken = TakenBack(Counter(image.left for image in images if image.left))
    done = [image for image in images if not image.left]
    starts = _starts(store, done, generation)
    works = [_checked(image, starts[_which(image, generation)], format, who) for image in done]

    for number, (image, work) in enumerate(zip(done, works, strict=True), 1):
        start = starts[_which(image, generation)]
        outcome = SAME if work is None else _keep(store, start, work, created_utc)
        taken.pictures[outcome] += 1
        if work is not None and outcome != THERE:
            taken.masks.update(mask.how for mask in work.masks)
            taken.masks["rejected"] += len(work.rejected)
            taken.people[work.who] += 1
        if progress is not None:
            progress(number, len(done))
    found = generation.row_set().scan("column", "num_written")
    annotated = sum(num_written for column, num_written in found if column == MASKS)
    taken.absent = max(0, annotated - len({image.image_id for image in images}))
    return taken


def _checked(image: EditedImage, start: Start, tool: str, who: str) -> Work | None:
    """What somebody made of a picture, as it can be kept. Raises InputError; says where it stands."""
    try:
        work = work_of(image, start, tool=tool, who=image.who or who)
        if work is not None:
            rows_of(work.masks, work.rejected, base=start.rows, image=start.image, made_by=work.made_by)
    except ValueError as exc:
        raise InputError(f"{image.place}: {exc}") from exc
    return work


def work_of(image: EditedImage, start: Start, *, tool: str, who: str) -> Work | None:
    """What somebody made of a picture; None where it is as it was.

    Raises:
        InputError: a mask of another size than the picture's.
        ValueError: a name that is too long, or no number of seconds.
    """
    base = {int(row["id"]): row for row in start.rows}
    by_pixels: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for mask_id, row in base.items():
        by_pixels[_pixels(row["segmentation"])].append(mask_id)

    size = int(start.image["height"]), int(start.image["width"])
    used, works = set[int](), list[MaskWork]()
    for mask in sorted(image.masks, key=lambda one: one.id is None):  # those that say who they are first
        found = Rle.from_coco(mask.segmentation)
        if (found.height, found.width) != size:
            raise InputError(
                f"picture {start.key}: a mask of {found.height} x {found.width} pixels; it has {size[0]} x "
                f"{size[1]}"
            )
        source = mask.id if mask.id in base and mask.id not in used else None
        if source is None:
            source = next((one for one in by_pixels[_pixels(mask.segmentation)] if one not in used), None)
        if source is not None:
            used.add(source)
        works.append(_mask_work(mask, source, base, image.given))

    # What isn't there any more was taken out, if it was ever there
    absent = sorted(base.keys() - used)
    shown = {one for one in absent if base[one]["area"] and (image.all_given or one in image.given)}
    works += [MaskWork(how=KEPT, sources=(one,)) for one in absent if one not in shown]
    rejected = tuple(sorted(shown))
    if not rejected and all(one.how == KEPT for one in works):
        return None
    told = [[one.how, one.sources, one.segmentation, one.label] for one in works]
    digest = hashlib.sha256(json.dumps([start.key, tool, who, told, rejected, start.base.saves]).encode())
    return Work(
        who=who,
        tool=tool,
        masks=works,
        rejected=rejected,
        seconds=image.seconds,
        save_id=digest.hexdigest()[:16],
    )


def _mask_work(
    mask: EditedMask, source: int | None, base: Mapping[int, Mapping[str, Any]], given: Mapping[int, str]
) -> MaskWork:
    """What became of one mask."""
    if source is None:
        label = None if mask.label == OBJECT else mask.label
        return MaskWork(how=ADDED, segmentation=mask.segmentation, label=label, drawn=True)
    row = base[source]
    label = None if mask.label == (given.get(source) or category_of(row) or OBJECT) else mask.label
    if _pixels(mask.segmentation) != _pixels(row["segmentation"]):
        return MaskWork(
            how=CHANGED, sources=(source,), segmentation=mask.segmentation, label=label, drawn=True
        )
    return MaskWork(how=KEPT if label is None else CONFIRMED, sources=(source,), label=label)


def _pixels(segmentation: Mapping[str, Any]) -> tuple[Any, ...]:
    """Equal for equal pixels, whoever wrote the run lengths."""
    mask = encode_mask(decode(Rle.from_coco(segmentation)))
    return mask.height, mask.width, mask.counts


def _which(image: EditedImage, latest: Generation) -> tuple[int, int]:
    """The generation that an editor was given, and the picture."""
    return (latest.number if image.generation is None else int(image.generation)), image.image_id


def _starts(
    store: ObjectStore, images: Iterable[EditedImage], latest: Generation
) -> dict[tuple[int, int], Start]:
    """What each picture's editor was given, by generation and picture. Raises InputError."""
    plan = load_plans(store)
    places: dict[tuple[int, int], str] = {}
    wanted: dict[tuple[int, int], set[int]] = defaultdict(set)
    for image in images:
        number, image_id = _which(image, latest)
        places[number, image_id] = image.place
        try:
            wanted[number, plan.shard_of(image_key(image_id))].add(image_id)
        except DatasetError as exc:
            raise InputError(
                f"{image.place}: {store.root} has no picture {image_id}: are these its edits?"
            ) from exc

    starts: dict[tuple[int, int], Start] = {}
    for (number, shard), ids in sorted(wanted.items()):
        generation = latest if number == latest.number else load_generation(store, number)
        samples = read_annotated(store, generation, shards=[shard], pictures=False, people=True, words=True)
        for sample in samples:
            image_id = int(sample.record["image"]["image_id"])
            if image_id in ids:
                starts[number, image_id] = _start(store, sample.key, sample.record, number)
        lacking = sorted(one for one in ids if (number, one) not in starts)
        if lacking:
            place = places[number, lacking[0]]
            raise InputError(
                f"{place}: picture {lacking[0]} of {store.root} has no masks in generation {number}: was the "
                "editor given another (--generation)?"
            )
    return starts


def _start(store: ObjectStore, key: str, record: Mapping[str, Any], generation: int) -> Start:
    facts = record.get("review") or {}
    base = Base(
        generation=generation,
        column=REVIEW if facts else MASKS,
        saves=(int(facts["save"]),) if facts.get("save") else (),
    )
    info = record["image"]
    return Start(
        key=key,
        image={name: info[name] for name in ("image_id", "width", "height", "file_name")},
        rows=tuple({"made_by": AUTOMATIC, **row} for row in record["annotations"]),
        base=base,
        standing=standing_of(store, key),
        finished=bool(facts.get("complete")),
        ignore=facts.get("ignore"),
    )


def _keep(store: ObjectStore, start: Start, work: Work, created_utc: str) -> str:
    """Keeps a picture's work; says what became of it."""
    standing = start.standing
    before = [one.save_id for one in (standing.in_force, *standing.beside) if one is not None]
    if work.save_id in before:
        return THERE
    kept = keep(store, start, work, created_utc=created_utc)
    return BESIDE if kept.is_beside else SAVED
