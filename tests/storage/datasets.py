"""Small datasets for tests: planned, with images and masks committed as a worker would, pictures faked."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.dataset.images import to_sample
from maskmill.storage.dataset.records import CommitRecord, Reject, new_attempt
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.sources import read_source
from maskmill.storage.shards.index import write_index
from maskmill.storage.shards.shards import Sample, WrittenObject, write_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

IMAGES, MASKS = "1" * 16, "2" * 16
CREATED = "2025-01-01T00:00:00+00:00"


def plan_pictures(store: ObjectStore, photos: str, num_images: int, *, shard_size: int = 4) -> None:
    """Plans `num_images` files of unlike bytes, one double and one empty one."""
    place = open_store(photos)
    for number in range(num_images):
        place.put(f"{number:04d}.jpg", f"picture {number}".encode())
    place.put("z double.jpg", b"picture 0")
    place.put("z empty.jpg", b"")
    make_plan(store, [photos], shard_size=shard_size, num_threads=2)


def commit_images(
    store: ObjectStore,
    shard: int,
    *,
    bad: Collection[str] = (),
    by_reference: bool = False,
    digits: str = IMAGES,
) -> CommitRecord:
    """Ingests a shard; the keys in `bad` are rejected."""
    planned = load_plans(store).images(shard)
    samples = [
        to_sample(image, jpeg=None if by_reference else read_source(image), width=4, height=3)
        for image in planned
        if image.key not in bad
    ]
    rejects = tuple(Reject(key, "not_an_image", "nonsense") for key in sorted(bad))
    return commit(ColumnVersion(store, "images", digits), shard, samples, rejects, {})


def commit_masks(
    store: ObjectStore,
    images: CommitRecord,
    *,
    bad: Collection[str] = (),
    digits: str = MASKS,
    change: Callable[[list[Sample]], list[Sample]] = lambda samples: samples,
) -> CommitRecord:
    """Annotates a shard; `change` spoils the samples before they are written."""
    keys = [sample.key for sample in ColumnVersion(store, "images", images.fingerprint).read(images)]
    samples = change([mask_sample(key) for key in keys if key not in bad])
    rejects = tuple(Reject(key, "out_of_memory", "too large") for key in sorted(bad))
    version = ColumnVersion(store, "masks", digits)
    return commit(
        version, images.shard, samples, rejects, {"images": images.sha256}, list(index_rows(keys, bad))
    )


def mask_sample(key: str) -> Sample:
    """A record of one mask."""
    return Sample(
        key, {"json": json.dumps({"image": {"image_id": int(key)}, "annotations": [{"id": 1}]}).encode()}
    )


def index_rows(keys: Collection[str], bad: Collection[str] = ()) -> Iterator[dict[str, object]]:
    """A row per key."""
    for key in keys:
        if key not in bad:
            box = {"bbox_x": 0.0, "bbox_y": 0.0, "bbox_w": 1.0, "bbox_h": 2.0}
            scores = {"predicted_iou": 0.9, "stability_score": 0.95, "output_token": 1, "parent": None}
            ids = {"image_id": int(key), "annotation_id": int(key) * 10_000, "area_px": 6}
            yield {"key": key, **ids, **box, **scores, "source": "somewhere"}


def make_dataset(
    store: ObjectStore, photos: str, num_images: int = 10, *, by_reference: bool = False
) -> Generation:
    """A sound dataset: one image rejected by ingest, one by masks, the rest annotated and published."""
    plan_pictures(store, photos, num_images)
    for shard in range(load_plans(store).num_shards):
        images = commit_images(
            store, shard, bad=["000000002"] if shard == 0 else [], by_reference=by_reference
        )
        commit_masks(store, images, bad=["000000006"] if shard == 1 else [])
    return publish_all(store)


def publish_all(store: ObjectStore, *, masks: str = MASKS) -> Generation:
    """Publishes what is committed."""
    return publish(
        store,
        {"images": IMAGES, "masks": masks},
        settings={"masks": {"stability": 0.95}},
        models={"segmenter": "fake"},
        totals={"masks": 8},
        created_utc=CREATED,
    )


def commit(
    version: ColumnVersion,
    shard: int,
    samples: list[Sample],
    rejects: tuple[Reject, ...],
    inputs: dict[str, str],
    rows: list[dict[str, object]] | None = None,
) -> CommitRecord:
    """Writes and commits a shard of any column; `rows` are its index."""
    attempt = new_attempt()
    data = write_shard(version.store, version.data_name(shard, attempt), samples)
    index: WrittenObject | None = None
    if rows is not None:
        index = write_index(version.store, version.index_name(shard, attempt), rows)
    return version.commit(
        CommitRecord(
            column=version.column,
            fingerprint=version.fingerprint,
            shard=shard,
            attempt=attempt,
            data=data,
            index=index,
            num_read=len(samples) + len(rejects),
            num_written=len(samples),
            rejects=rejects,
            inputs=inputs,
            created_utc=CREATED,
        )
    )
