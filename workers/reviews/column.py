"""The `review` column, made from the saves in force when a generation is published.

A sample holds null for an image that nobody reviewed, else an SA-1B record like that of `masks`: the rows of
the save in force (rows.py), and

    "review": {"by": "person", "who": "Ana", "tool": "page", "save": 7, "beside": [], "complete": true,
               "ignore": null, "seconds": 95.0, "clicks": 14, "rejected": 3, "created_utc": ...}

A shard is written anew only where its saves changed since; all others stay as the generation before has them,
and so does what was reviewed before there were saves, until a save takes its place. So nothing that people
made is ever dropped, whatever is published, and publishing twice writes nothing the second time.

It doesn't know: how a save came about (keep.py), or who publishes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maskmill.pipeline.rle import Rle, area_px, box_xyxy
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, Publication, latest, publish_over
from maskmill.storage.dataset.join import read_record, read_row
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.merge import count_rows
from maskmill.storage.dataset.records import CommitRecord, fingerprint, new_attempt
from maskmill.storage.dataset.row_set import Key, RowSet
from maskmill.storage.dataset.saves import Save, Standing, read_standings, saved_numbers
from maskmill.storage.errors import DamagedObject
from maskmill.storage.plan.plan import image_id_of, load_plans
from maskmill.storage.shards.shards import Sample, read_shard, write_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.foreign.shapes import fitted
from maskmill.workers.run.columns import IMAGES
from maskmill.workers.stages.review import REVIEW

REVISION = 3
SAVES = "saves"
"""In a record's models: a digest of the saves that the shard was made from."""

Numbers = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Reviewed:
    """Rows of a generation to be, with the saves of now in them.

    Attributes:
        rows: those given, with what changes.
        fingerprint: of the version that was written; None where no save is newer than the rows.
        shards: written anew.
        damage: saves that cannot be read, a sentence each; their shards' reviews are left as they were.
    """

    rows: RowSet
    fingerprint: str | None = None
    shards: tuple[int, ...] = ()
    damage: tuple[str, ...] = ()

    def columns(self, others: Mapping[str, str]) -> dict[str, str]:
        """The fingerprints of a generation's columns, the review's among them where it has one."""
        return {**others, REVIEW: self.fingerprint} if self.fingerprint is not None else dict(others)


def with_reviews(store: ObjectStore, rows: RowSet, *, created_utc: str) -> Reviewed:
    """Rows that are to be published, with the `review` column as the saves of now make it.

    Args:
        store: the dataset.
        rows: of the generation to be; a shard's `review` row, if it has one, is as it was last published.
        created_utc: of new records, ISO 8601.

    Raises:
        DamagedObject: a shard that has to be read is not what was written.
    """
    saved = _by_shard(store)
    found = rows.of_shards(saved)
    changed = {
        shard: numbers
        for shard, numbers in sorted(saved.items())
        if IMAGES in found.get(shard, {}) and not _holds(store, found[shard].get(REVIEW), numbers)
    }
    standings, damage = dict[str, Standing](), []
    for shard, numbers in list(changed.items()):
        try:
            standings |= dict(read_standings(store, numbers))
        except DamagedObject as exc:
            del changed[shard]
            damage.append(f"{exc}; the reviews of shard {shard} stay as they were until it is put back")
    if not changed:
        return Reviewed(rows, damage=tuple(damage))

    # A version that holds just what changed, named by all that it is made from
    before = {shard: found[shard].get(REVIEW) for shard in changed}
    facts = {
        SAVES: {str(shard): _digest(numbers) for shard, numbers in changed.items()},
        "before": {str(shard): row.record_sha256 for shard, row in before.items() if row is not None},
        "images": {str(shard): found[shard][IMAGES].record_sha256 for shard in changed},
    }
    version = ColumnVersion(store, REVIEW, fingerprint(facts, weights=None, revision=REVISION, inputs={}))
    made: dict[Key, GenerationRow] = {}
    for shard, numbers in changed.items():
        some = {key: standings[key] for key in numbers}
        models = {SAVES: _digest(numbers)}
        images = found[shard][IMAGES]
        made[shard, REVIEW] = _committed(version, images, before[shard], some, models, created_utc)
    return Reviewed(rows.changed(made), version.fingerprint, tuple(changed), tuple(damage))


def publish_saves(store: ObjectStore, *, created_utc: str, made_by: str = "review") -> Generation | None:
    """The latest generation with the saves of now; itself where none is newer, None where there is none yet.

    Args:
        store: the dataset; the caller is its one writer.
        created_utc: ISO 8601.
        made_by: the kind of command.

    Raises:
        DamagedObject: a save, or a shard that has to be read, is not what was written.
    """
    if latest(store) is None:
        return None

    def make(parent: Generation | None) -> Publication:
        """The rows in force, with reviews.

        Raises:
            DamagedObject: a save, or a shard that has to be read, is not what was written.
        """
        assert parent is not None
        made = with_reviews(store, parent.row_set(), created_utc=created_utc)
        if made.damage:
            raise DamagedObject(made.damage[0])
        facts: dict[str, Mapping[str, Any]] = {
            "columns": made.columns(parent.columns),
            "settings": parent.settings,
            "models": parent.models,
            "totals": count_rows(store, made.rows) if made.shards else parent.totals,
        }
        return Publication(made.rows, facts)

    return publish_over(store, make, created_utc, made_by=made_by)


def unpublished(store: ObjectStore, generation: Generation) -> int:
    """How many pictures of a generation have saves that are newer than its review column."""
    saved = _by_shard(store)
    rows = generation.row_set().of_shards(saved)
    return sum(
        len(numbers)
        for shard, numbers in saved.items()
        if IMAGES in rows.get(shard, {}) and not _holds(store, rows[shard].get(REVIEW), numbers)
    )


def review_record(standing: Standing, image: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the column holds of a picture; None without a save.

    Args:
        standing: its saves.
        image: image_id, width, height and file_name as the picture is stored now: masks of a save that was
            made at another size are fitted.
    """
    save = standing.in_force
    if save is None:
        return None
    size = int(image["height"]), int(image["width"])
    same = (int(save.image["height"]), int(save.image["width"])) == size
    rows = [dict(row) for row in save.annotations] if same else list(_fitted(save, *size))
    facts = {
        "by": save.made_by,
        "who": save.who,
        "tool": save.tool,
        "mode": save.tool,
        "save": save.number,
        "beside": [one.number for one in standing.beside],
        "complete": save.finished,
        "ignore": save.ignore if same or save.ignore is None else _scaled(save.ignore, *size),
        "seconds": save.seconds,
        "clicks": save.clicks,
        "rejected": len(save.rejected),
        "created_utc": save.created_utc,
    }
    return {"image": dict(image), "annotations": rows, "review": facts}


def _fitted(save: Save, height: int, width: int) -> Iterator[dict[str, Any]]:
    """A save's rows at another size of its picture; a mask that has no pixel there keeps its place, empty."""
    for row in save.annotations:
        mask = fitted(Rle.from_coco(row["segmentation"]), height, width)
        left, top, right, bottom = (float(side) for side in box_xyxy(mask))
        yield {
            **row,
            "segmentation": mask.to_coco(),
            "area": area_px(mask),
            "bbox": [left, top, right - left, bottom - top],
            "crop_box": [0.0, 0.0, float(width), float(height)],
        }


def _scaled(segmentation: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    return fitted(Rle.from_coco(segmentation), height, width).to_coco()


def _by_shard(store: ObjectStore) -> dict[int, dict[str, tuple[int, ...]]]:
    """The numbers of all saves, by shard and key; forgotten pictures have none that count."""
    numbers = saved_numbers(store)
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    if not numbers:
        return found
    plan = load_plans(store)
    for key, some in numbers.items():
        if key not in plan.forgotten:
            found.setdefault(plan.shard_of(key), {})[key] = some
    return found


def _digest(numbers: Numbers) -> str:
    return fingerprint(
        {"numbers": {key: list(some) for key, some in numbers.items()}}, weights=None, revision=1, inputs={}
    )


def _holds(store: ObjectStore, row: GenerationRow | None, numbers: Numbers) -> bool:
    """Whether a review row was made from just these saves."""
    return row is not None and read_record(store, row).models.get(SAVES) == _digest(numbers)


def _committed(
    version: ColumnVersion,
    images: GenerationRow,
    before: GenerationRow | None,
    standings: Mapping[str, Standing],
    models: Mapping[str, str],
    created_utc: str,
) -> GenerationRow:
    """The shard in this version: as it is there, or written now."""
    store, shard = version.store, images.shard
    done = version.record(shard)
    if done is not None:
        return row_of(version, done)

    old = {sample.key: sample.files["json"] for sample in read_row(store, before)} if before else {}
    samples = [Sample(key, {"json": data}) for key, data in _samples(store, images, old, standings)]
    attempt = new_attempt()
    data = write_shard(store, version.data_name(shard, attempt), samples)
    record = CommitRecord(
        column=REVIEW,
        fingerprint=version.fingerprint,
        shard=shard,
        attempt=attempt,
        data=data,
        num_read=data.num_samples,
        num_written=data.num_samples,
        inputs={IMAGES: images.record_sha256},
        models={"annotator": _makers(sample.files["json"] for sample in samples), **models},
        created_utc=created_utc,
    )
    return row_of(version, version.commit(record))


def _samples(
    store: ObjectStore, images: GenerationRow, old: Mapping[str, bytes], standings: Mapping[str, Standing]
) -> Iterator[tuple[str, bytes]]:
    """Every picture of the shard with its review: the save in force, else what was there, else null."""
    for sample in read_shard(store, images.data):
        data = old.get(sample.key, b"null")
        if sample.key in standings:
            info = json.loads(sample.files["json"])
            image = {
                "image_id": image_id_of(sample.key),
                "width": int(info["width"]),
                "height": int(info["height"]),
                "file_name": f"{sample.key}.jpg",
            }
            record = review_record(standings[sample.key], image)
            data = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        yield sample.key, data


def _makers(records: Iterable[bytes]) -> str:
    """Who reviewed a shard's pictures: "person", "oracle", or both."""
    found = {(json.loads(data) or {}).get("review", {}).get("by") for data in records}
    return ", ".join(sorted(one for one in found if one)) or "nobody"
