"""What a dataset's history says: its generations, one image with everything that is known of it.

From names and small records alone, but for `show`, which reads one sample of each column.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.columns import list_columns, list_versions, making_order
from maskmill.storage.dataset.diff import changed_settings
from maskmill.storage.dataset.generations import list_generations, load_generation
from maskmill.storage.dataset.join import check_row, read_record
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.tags import find_generation, tags
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.plan import image_id_of, image_key, load_plans
from maskmill.storage.shards.shards import read_shard
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore


def history(dataset: str) -> list[dict[str, Any]]:
    """Every generation, the newest first: lineage, tags, models, totals, and the settings that changed.

    Raises:
        DatasetError: there is none yet.
    """
    store = open_store(dataset)
    find_generation(store)  # says so where there is none
    named: dict[int, list[str]] = defaultdict(list)
    for name, tag in tags(store).items():
        if tag.generation is not None:
            named[tag.generation].append(name)
    loaded = {number: load_generation(store, number) for number in list_generations(store)}
    entries = []
    for number, generation in sorted(loaded.items(), reverse=True):
        parent = loaded.get(generation.parent) if generation.parent is not None else None
        changes = changed_settings(parent.settings, generation.settings) if parent else ()
        entries.append(
            {
                "number": number,
                "parent": generation.parent,
                "created_utc": generation.created_utc,
                "tags": sorted(named[number]),
                "models": dict(generation.models),
                "totals": dict(generation.totals),
                "columns": dict(generation.columns),
                "versions": _versions(generation),
                "settings": generation.settings,
                "changed": {change.name: [change.before, change.after] for change in changes},
            }
        )
    return entries


def _versions(generation: Generation) -> dict[str, dict[str, int]]:
    """Column -> fingerprint -> shards: more than one where a generation mixes versions."""
    versions: dict[str, dict[str, int]] = defaultdict(dict)
    for row in generation.rows():
        versions[row.column][row.fingerprint] = versions[row.column].get(row.fingerprint, 0) + 1
    return dict(versions)


def show_image(dataset: str, key: str, generation: int | str | None = None) -> dict[str, Any]:
    """One image: where it came from, and its sample of every column with what made it.

    Args:
        key: the sample's key, or its image id.
        generation: number or tag; None is the latest, or, before the first, all that is committed.

    Raises:
        InputError: no image of this key is planned.
        DatasetError, DamagedObject: the generation has none, or a shard is not what was written.
    """
    from dataclasses import asdict

    store = open_store(dataset)
    plan = load_plans(store)
    taken_in = generation is None and plan.num_shards and not list_generations(store)
    found = None if taken_in else find_generation(store, generation)
    image_id = (int(key) if key.isascii() and key.isdigit() else image_id_of(key)) or 0
    try:
        shard = plan.shard_of(image_key(image_id))
    except DatasetError as exc:
        raise InputError(
            f"{dataset}: there is no image {key!r}; keys are 000000001 to {image_key(plan.num_images)}. "
            "`maskmill query DATASET \"select key, source from images where source like '%NAME%'\"` finds one"
        ) from exc
    planned = next(image for image in plan.images(shard) if image.image_id == image_id)
    rows = _committed(store, shard) if found is None else [row for row in found.rows() if row.shard == shard]
    return {
        "key": planned.key,
        "generation": found.number if found is not None else None,
        "shard": shard,
        "planned": asdict(planned),
        "columns": [_column(store, row, planned.key) for row in rows],
    }


def _committed(store: ObjectStore, shard: int) -> list[GenerationRow]:
    """A shard's records in force of every column version, as a generation would list them."""
    versions = [one for name in making_order(list_columns(store)) for one in list_versions(store, name)]
    found = ((version, version.record(shard)) for version in versions)
    return [row_of(version, record) for version, record in found if record is not None]


def _column(store: ObjectStore, row: GenerationRow, key: str) -> dict[str, Any]:
    """The sample of one column and the record that made it exist."""
    record = read_record(store, row)
    reject = next((reject for reject in record.rejects if reject.key == key), None)
    value = None
    if reject is None:
        check_row(store, row)
        files = next((sample.files for sample in read_shard(store, row.data) if sample.key == key), {})
        value = json.loads(files["json"]) if "json" in files else {name: len(d) for name, d in files.items()}
    return {
        "column": row.column,
        "fingerprint": row.fingerprint,
        "record": row.record,
        "data": row.data.name,
        "attempt": record.attempt,
        "created_utc": record.created_utc,
        "models": dict(record.models),
        "rejected": None if reject is None else {"reason": reject.reason, "detail": reject.detail},
        "value": value,
    }


def image_picture(dataset: str, key: str, shard: int, number: int | None) -> bytes:
    """A PNG of one image of a generation with its masks; without a generation, of the image as taken in.

    Raises:
        StorageError: it cannot be read.
    """
    from maskmill.workers.pictures.render import image_picture, plain_picture

    store = open_store(dataset)
    if number is None:
        return plain_picture(store, _committed(store, shard), key)
    return image_picture(store, load_generation(store, number), key, shard)
