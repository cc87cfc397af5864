"""What changed between two generations of a dataset: masks by IoU, captions, labels and the like by value.

Only shards whose bytes differ are read, and of those at most `max_shards`, spread over the dataset. Masks of
an image are paired by IoU, best pair first: equal run lengths are the same mask, a pair of at least
`PAIRED_IOU` is one mask that changed, anything else was removed or added.

What it doesn't know: which of two generations is right.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskmill.storage.dataset.diff import RowChange, SettingChange, changed_rows, changed_settings
from maskmill.storage.dataset.join import read_row
from maskmill.storage.errors import DamagedObject
from maskmill.workers.reading.survey import spread

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.shards.shards import Sample
    from maskmill.storage.stores.base import ObjectStore

PAIRED_IOU = 0.5
BANDS = (("0.95 to 1", 0.95), ("0.80 to 0.95", 0.8), ("0.50 to 0.80", PAIRED_IOU))
MAX_SHARDS = 64
MAX_LARGEST = 24
MAX_EXAMPLES = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ImageChange:
    """What changed in one image's masks.

    Attributes:
        key, shard: which image.
        same, added, removed, changed: counts of masks.
        difference: share of its masks, of both sides together, that are not the same; a changed pair counts
            by 1 - IoU. 0 to 1.
    """

    key: str
    shard: int
    same: int
    added: int
    removed: int
    changed: int
    difference: float


@dataclass(frozen=True, kw_only=True)
class MaskChanges:
    """Masks of the images that were compared.

    Attributes:
        images: compared; those only one generation has are counted in `images_added`, `images_removed`.
        images_changed: with any difference.
        same, added, removed: masks.
        changed: IoU band -> masks that were paired and differ.
    """

    images: int
    images_changed: int
    images_added: int
    images_removed: int
    same: int
    added: int
    removed: int
    changed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ValueChange:
    """A sample of another column that differs; None where one side has none."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class ColumnChanges:
    """Samples of a column other than images and masks; `examples` are the first few."""

    column: str
    same: int
    changed: int
    added: int
    removed: int
    examples: tuple[ValueChange, ...]


@dataclass(frozen=True, kw_only=True)
class DiffReport:
    """What changed from one generation to another.

    Attributes:
        before, after: their numbers.
        settings, models: that differ.
        shards_changed: by column: shards with other bytes, or that only one of the two has.
        shards_read, shards_to_read: of the masks; where the first is less, mask counts are of a spread part.
        masks: None where no masks differ.
        columns: the other columns that differ, but images.
        largest: images with the largest differences, the largest first.
    """

    dataset: str
    before: int
    after: int
    settings: tuple[SettingChange, ...]
    models: tuple[SettingChange, ...]
    shards_changed: Mapping[str, int]
    shards_read: int
    shards_to_read: int
    masks: MaskChanges | None
    columns: tuple[ColumnChanges, ...]
    largest: tuple[ImageChange, ...]


def compare(
    store: ObjectStore,
    before: Generation,
    after: Generation,
    *,
    max_shards: int = MAX_SHARDS,
    progress: Callable[[int, int], None] | None = None,
) -> DiffReport:
    """Compares two generations of one dataset.

    Args:
        store: the dataset.
        before, after: its generations, in any order of age.
        max_shards: shards of a column to read at most.
        progress: called with the shards read so far, and in all.

    Raises:
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    # Shards that differ, and the part of them that is read
    rows = changed_rows(before, after)
    by_column: dict[str, list[RowChange]] = {}
    for row in rows:
        by_column.setdefault(row.column, []).append(row)
    chosen = {column: _part(found, max_shards) for column, found in by_column.items() if column != "images"}
    total, done = sum(len(found) for found in chosen.values()), 0

    # Masks by how they overlap, other columns as values
    tally = _MaskTally()
    columns: list[ColumnChanges] = []
    for column, found in chosen.items():
        values = _ValueTally(column)
        for row in found:
            for pair in _pairs(store, row):
                (tally if column == "masks" else values).see(pair)
            done += 1
            if progress is not None:
                progress(done, total)
        if column != "masks":
            columns.append(values.result())

    return DiffReport(
        dataset=store.root,
        before=before.number,
        after=after.number,
        settings=changed_settings(before.settings, after.settings),
        models=changed_settings(before.models, after.models),
        shards_changed={column: len(found) for column, found in by_column.items()},
        shards_read=len(chosen.get("masks", ())),
        shards_to_read=len(by_column.get("masks", ())),
        masks=tally.result() if "masks" in chosen else None,
        columns=tuple(columns),
        largest=tally.largest(),
    )


def changed_pictures(
    store: ObjectStore,
    before: Generation,
    after: Generation,
    *,
    column: str = "masks",
    shards: Sequence[int] | None = None,
) -> Iterator[ImageChange]:
    """The images whose masks are not the same in two generations, shard by shard.

    Args:
        store: the dataset.
        before, after: its generations.
        column: that has the masks.
        shards: only these.

    Raises:
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    wanted = None if shards is None else set(shards)
    for row in changed_rows(before, after):
        if row.column == column and (wanted is None or row.shard in wanted):
            for pair in _pairs(store, row):
                change, _ = _image_change(pair)
                if change.difference > 0:
                    yield change


def match_masks(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[int, list[float]]:
    """Pairs two lists of COCO run lengths, best IoU first.

    Returns:
        How many are equal, and the IoU of each further pair of at least `PAIRED_IOU`.
    """
    left = Counter(_counts(rle) for rle in before)
    common = left & Counter(_counts(rle) for rle in after)
    ours, theirs = _without(before, common), _without(after, common)
    if not ours or not theirs:
        return common.total(), []
    iou_NM = np.asarray(coco_mask.iou(ours, theirs, [0] * len(theirs)), np.float64).reshape(len(ours), -1)
    pairs: list[float] = []
    rows, places = np.nonzero(iou_NM >= PAIRED_IOU)
    free_N, free_M = np.ones(len(ours), bool), np.ones(len(theirs), bool)
    for i in np.argsort(-iou_NM[rows, places], kind="stable"):
        n, m = rows[i], places[i]
        if free_N[n] and free_M[m]:
            free_N[n] = free_M[m] = False
            pairs.append(float(iou_NM[n, m]))
    return common.total(), pairs


@dataclass(frozen=True)
class _Pair:
    """A key's sample on both sides, parsed; None where a side has none."""

    key: str
    shard: int
    before: Any
    after: Any


def _image_change(pair: _Pair) -> tuple[ImageChange, list[float]]:
    """What became of an image's masks, and the IoU of those that changed."""
    ours, theirs = _segmentations(pair.before), _segmentations(pair.after)
    same, paired = match_masks(ours, theirs)
    change = ImageChange(
        key=pair.key,
        shard=pair.shard,
        same=same,
        added=len(theirs) - same - len(paired),
        removed=len(ours) - same - len(paired),
        changed=len(paired),
        difference=_difference(len(ours), len(theirs), same, paired),
    )
    return change, paired


class _MaskTally:
    """Sums over images, and the images with the largest differences."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._bands = Counter[str]({name: 0 for name, _ in BANDS})
        self._heap: list[tuple[float, str, ImageChange]] = []

    def see(self, pair: _Pair) -> None:
        """Takes an image in."""
        if pair.before is None or pair.after is None:
            self._counts["images_added" if pair.before is None else "images_removed"] += 1
        else:
            self._counts["images"] += 1

        change, paired = _image_change(pair)

        # Sums, and the images that changed most
        self._counts.update(same=change.same, added=change.added, removed=change.removed)
        self._bands.update(_band(iou) for iou in paired)
        if change.difference > 0:
            self._counts["images_changed"] += 1
            heapq.heappush(self._heap, (change.difference, change.key, change))
            if len(self._heap) > MAX_LARGEST:
                heapq.heappop(self._heap)

    def result(self) -> MaskChanges:
        """The sums."""
        names = ("images", "images_changed", "images_added", "images_removed", "same", "added", "removed")
        return MaskChanges(**{name: self._counts[name] for name in names}, changed=dict(self._bands))

    def largest(self) -> tuple[ImageChange, ...]:
        """The images that changed most, most first."""
        return tuple(change for *_, change in sorted(self._heap, key=lambda item: (-item[0], item[1])))


@dataclass
class _ValueTally:
    """Samples of a column, compared as values."""

    column: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[ValueChange] = field(default_factory=list)

    def see(self, pair: _Pair) -> None:
        """Takes a sample in."""
        if pair.before == pair.after:
            self.counts["same"] += 1
            return
        kind = "added" if pair.before is None else "removed" if pair.after is None else "changed"
        self.counts[kind] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(ValueChange(key=pair.key, before=pair.before, after=pair.after))

    def result(self) -> ColumnChanges:
        """The counts, and a few examples."""
        names = ("same", "changed", "added", "removed")
        numbers = {name: self.counts[name] for name in names}
        return ColumnChanges(column=self.column, **numbers, examples=tuple(self.examples))


def _pairs(store: ObjectStore, change: RowChange) -> Iterator[_Pair]:
    """The samples of both sides, side by side in key order."""
    ours, theirs = _parsed(store, change.before), _parsed(store, change.after)
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        key = min(side[0] for side in (left, right) if side is not None)
        before = left[1] if left is not None and left[0] == key else None
        after = right[1] if right is not None and right[0] == key else None
        yield _Pair(key, change.shard, before, after)
        left = next(ours, None) if left is not None and left[0] == key else left
        right = next(theirs, None) if right is not None and right[0] == key else right


def _parsed(store: ObjectStore, row: GenerationRow | None) -> Iterator[tuple[str, Any]]:
    if row is not None:
        for sample in read_row(store, row):
            yield sample.key, _value(row.column, sample)


def _value(column: str, sample: Sample) -> Any:
    """A sample's JSON; its other files by their sizes, which is as much as a person wants to see."""
    try:
        value = json.loads(sample.files["json"]) if "json" in sample.files else {}
    except ValueError as exc:
        raise DamagedObject(f"{column} of {sample.key}: not JSON ({exc})") from exc
    others = {ending: hash(data) for ending, data in sample.files.items() if ending != "json"}
    return {**value, "files": others} if others and isinstance(value, dict) else value


def _part(rows: list[RowChange], most: int) -> list[RowChange]:
    return [rows[i] for i in spread(len(rows), most, seed=0)]


def _segmentations(record: Any) -> list[Mapping[str, Any]]:
    try:
        return [] if record is None else [row["segmentation"] for row in record["annotations"]]
    except (KeyError, TypeError) as exc:
        raise DamagedObject(f"not an SA-1B record ({exc!r})") from exc


def _counts(rle: Mapping[str, Any]) -> str:
    return f"{rle['size']}{rle['counts']}"


def _without(rles: Sequence[Mapping[str, Any]], common: Counter[str]) -> list[dict[str, Any]]:
    left = common.copy()
    rest = []
    for rle in rles:
        text = _counts(rle)
        if left[text]:
            left[text] -= 1
        else:
            rest.append({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return rest


def _difference(num_before: int, num_after: int, same: int, paired: Sequence[float]) -> float:
    total = num_before + num_after
    agreed = 2 * same + 2 * sum(paired)
    return 0.0 if not total else round(1 - agreed / total, 6)


def _band(iou: float) -> str:
    return next(name for name, low in BANDS if iou >= low)
