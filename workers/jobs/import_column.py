"""Imports: given annotations written as a column of a dataset, shard by shard, and published."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.dataset.columns import ColumnVersion, fingerprint, new_attempt
from maskmill.storage.dataset.generations import Generation, Publication, latest, publish_over, row_of
from maskmill.storage.dataset.merge import count_rows, merge_rows
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.foreign.given import REVISION, GivenMasks, GivenSet, read_given
from maskmill.workers.run.columns import COLUMNS, IMAGES, image_facts
from maskmill.workers.run.columns import fingerprints as fingerprints_of
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages

GIVEN = "given"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        column, fingerprint: written.
        generation: that has it; `published`: by this import.
        num_images: with annotations, or known to have none. num_masks: of them.
        rejects: reason -> images of the dataset that the files say nothing of, or that don't fit.
        unmatched: images that the files name and the dataset lacks.
    """

    dataset: str
    column: str
    fingerprint: str
    generation: int
    published: bool
    num_images: int
    num_masks: int
    rejects: Mapping[str, int]
    unmatched: int


def import_annotations(
    store: ObjectStore,
    paths: Sequence[Path],
    *,
    format: str,
    column: str = GIVEN,
    ingest: IngestSettings | None = None,
    created_utc: str,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Writes annotation files as a column of the dataset, and publishes it beside what is there.

    Args:
        store: the dataset; its images must be planned, and are taken in where they are not yet.
        paths: annotation files; see `read_given`.
        format: "coco" or "sa1b".
        column: its name.
        ingest: how images are taken in that are not yet; None is as the latest generation has them.
        created_utc: ISO 8601.
        progress: called with the shards done, and in all.

    Raises:
        InputError: a file is not of its format, or the column's name is one of ours.
        DatasetError: no images are planned.
    """
    if column in COLUMNS or not column.isidentifier() or column != column.lower():
        raise InputError(
            f"column {column!r} cannot be imported: use a name of small letters that is none of "
            f"{', '.join(COLUMNS)}"
        )
    plan = load_plans(store)
    if not plan.num_shards:
        raise DatasetError(f"{store.root}: no images are planned; name their folder with --images")
    given, before = read_given(paths, format), latest(store)
    spec = _spec(store, given, column, before, ingest)
    stage = GivenMasks(given, column=column, fingerprint=spec.fingerprints[column])
    stages = Stages(spec, store, plan, (stage,))
    for shard in range(plan.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
        if progress is not None:
            progress(shard + 1, plan.num_shards)
    generation = _publish(store, spec, column, given, stage.models, created_utc)
    return _report(store, spec, column, given, generation, before)


def _spec(
    store: ObjectStore,
    given: GivenSet,
    column: str,
    before: Generation | None,
    ingest: IngestSettings | None,
) -> RunSpec:
    if ingest is None:
        known = before.settings.get("ingest") if before is not None else None
        ingest = IngestSettings(**known) if isinstance(known, Mapping) else IngestSettings()
    digits = dict(fingerprints_of({IMAGES: image_facts(ingest)}))
    if before is not None and IMAGES in before.columns:
        digits[IMAGES] = before.columns[IMAGES]
    facts = {"format": given.format, "files": given.sha256}
    digits[column] = fingerprint(facts, weights=None, revision=REVISION, inputs={IMAGES: digits[IMAGES]})
    return RunSpec(
        root=store.root,
        ingest=ingest,
        masks=MaskSettings(),
        segmenter=SegmenterSettings(),
        fingerprints=digits,
    )


def _publish(
    store: ObjectStore,
    spec: RunSpec,
    column: str,
    given: GivenSet,
    models: Mapping[str, str],
    created_utc: str,
) -> Generation:
    made = {
        name: [row_of(version, record) for record in version.records()]
        for name, digits in spec.fingerprints.items()
        for version in [ColumnVersion(store, name, digits)]
    }
    settings: dict[str, Any] = {
        column: {"format": given.format, "sha256": given.sha256, "head": dict(given.head)}
    }

    def make(parent: Generation | None) -> Publication:
        merged = merge_rows(store, made, parent)
        facts: dict[str, Mapping[str, Any]] = {
            "columns": {**(parent.columns if parent else {}), **spec.fingerprints},
            "settings": {**(parent.settings if parent else {}), **settings},
            "models": {**(parent.models if parent else {}), **models},
            "totals": count_rows(store, merged.rows),
        }
        return Publication(merged.rows, facts)

    return publish_over(store, make, created_utc, made_by="import")


def _report(
    store: ObjectStore,
    spec: RunSpec,
    column: str,
    given: GivenSet,
    generation: Generation,
    before: Generation | None,
) -> ImportReport:
    version = ColumnVersion(store, column, spec.fingerprints[column])
    rejects, names, masks, images = Counter[str](), set[str](), 0, 0
    for record in version.records():
        rejects.update(reject.reason for reject in record.rejects)
        for sample in version.read(record):
            content = json.loads(sample.files["json"])
            names.add(json.dumps(content["image"]["original"], sort_keys=True))
            masks += len(content["annotations"])
            images += 1
    known = {json.dumps(dict(i.entry), sort_keys=True) for found in given.images.values() for i in found}
    return ImportReport(
        dataset=store.root,
        column=column,
        fingerprint=spec.fingerprints[column],
        generation=generation.number,
        published=before is None or generation.number != before.number,
        num_images=images,
        num_masks=masks,
        rejects=dict(sorted(rejects.items())),
        unmatched=len(known - names),
    )
