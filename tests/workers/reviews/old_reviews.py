"""A review column as it was written before there were saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, latest, publish_rows
from maskmill.storage.dataset.join import join, read_record
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.storage.stores.base import ObjectStore

NOW = "2025-01-01T00:00:00+00:00"
OLD = "9" * 16


def old_record(masks: Mapping[str, Any], *, mode: str = "assisted") -> dict[str, Any]:
    """What the oracle stored of a picture: every mask `made_by` person, whoever clicked."""
    rows = [
        {
            **row,
            "parent": None,
            "output_token": None,
            "made_by": "automatic" if mode == "semi" and place else "person",
            "clicks": 2,
            "clicked_iou": 0.8,
            "drawn": False,
        }
        for place, row in enumerate(masks["annotations"])
    ]
    facts = {"by": "oracle", "mode": mode, "complete": True, "ignore": None}
    return {"image": masks["image"], "annotations": rows, "review": facts}


def publish_old_reviews(store: ObjectStore, keys: Mapping[str, str]) -> Generation:
    """Publishes reviews of these pictures (key -> mode) beside the latest generation's masks."""
    parent = latest(store)
    assert parent is not None
    version = ColumnVersion(store, "review", OLD)
    rows = list(parent.rows())
    for images in [row for row in parent.rows() if row.column == "images"]:
        samples = []
        for sample in join(store, parent, ("images", "masks"), shards=[images.shard]):
            masks = json.loads(sample.files["masks"]["json"])
            mode = keys.get(sample.key)
            record = old_record(masks, mode=mode) if mode is not None else None
            samples.append(Sample(sample.key, {"json": json.dumps(record).encode()}))
        attempt = f"{images.shard:016d}"
        data = write_shard(store, version.data_name(images.shard, attempt), samples)
        record = CommitRecord(
            column="review",
            fingerprint=OLD,
            shard=images.shard,
            attempt=attempt,
            data=data,
            num_read=data.num_samples,
            num_written=data.num_samples,
            inputs={"images": read_record(store, images).sha256},
            models={"annotator": "oracle"},
            created_utc=NOW,
        )
        rows.append(row_of(version, version.commit(record)))
    facts = {
        "columns": {**parent.columns, "review": OLD},
        "settings": parent.settings,
        "models": parent.models,
        "totals": parent.totals,
    }
    in_order = tuple(sorted(rows, key=lambda row: (row.shard, row.column)))
    return publish_rows(store, in_order, facts, NOW, made_by="review")
