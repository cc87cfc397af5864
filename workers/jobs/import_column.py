"""Imports: given annotations written as a column of a dataset, shard by shard, and published.

The report is an account: every annotation that was read is in the column, or counted under the reason it
isn't, so that the two add up. Where no image of the file is in the dataset nothing is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, Publication, latest, publish_over
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.merge import count_rows, merge_rows
from maskmill.storage.dataset.records import fingerprint, new_attempt
from maskmill.storage.errors import InputError, NoSuchThing
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.foreign.annotations import ForeignSet, LeftOut, Tally
from maskmill.workers.foreign.given import read_given
from maskmill.workers.foreign.matching import Matching, match
from maskmill.workers.foreign.pictures import nothing_matched, pictures_of
from maskmill.workers.reviews.column import with_reviews
from maskmill.workers.reviews.imported import take_imported
from maskmill.workers.run.columns import IMAGES, Sections
from maskmill.workers.run.columns import fingerprints as fingerprints_of
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.images import image_facts
from maskmill.workers.stages.masks.given import REVISION, GivenMasks, bad_rings_of, left_out_of
from maskmill.workers.stages.registry import column_names

GIVEN = "given"

LONGEST_NAME = 63
NO_NAMES = frozenset({"true", "false", "nan", "inf", "infinity", "none", "null"})
"""What TOML or JSON would take for a value where a column's name is asked for."""

TABLES = frozenset({"shards", "saves"})
"""What a query has beside columns."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        column, fingerprint: written.
        generation: that has it; `published`: by this import.
        num_images: with annotations, or known to have none. num_masks: of them.
        rejects: reason -> images of the dataset that the files say nothing of, or that don't fit.
        matched, unmatched, ambiguous: images that the files name, by whether the dataset has them: once, not
            at all, or nobody can say which.
        num_annotations: read: num_masks and those of `left_out` together.
        left_out: reason -> annotations that were not taken; first_left_out: the first few of each.
        images_left_out: reason -> image entries of the files that say too little to be used.
        bad_rings: rings left out of polygons that were taken.
        reviews: of masks by a person, images by what became of them: new, corrected, same as before, or kept
            beside what was saved since.
    """

    dataset: str
    column: str
    fingerprint: str
    generation: int
    published: bool
    num_images: int
    num_masks: int
    rejects: Mapping[str, int]
    matched: int
    unmatched: int
    ambiguous: int
    num_annotations: int
    left_out: Mapping[str, int]
    first_left_out: Mapping[str, tuple[str, ...]]
    images_left_out: Mapping[str, int]
    bad_rings: int
    reviews: Mapping[str, int] = field(default_factory=dict)


def check_column(column: str) -> None:
    """Looks whether an import may write a column of this name.

    Raises:
        InputError: one of ours, or no name.
    """
    if (
        column in column_names()
        or column in NO_NAMES
        or column in TABLES
        or not column.isidentifier()
        or len(column) > LONGEST_NAME
        or column != column.lower()
    ):
        cure = (
            "; people's masks are put into it by `maskmill review`, which keeps what was reviewed before"
            if column == "review"
            else ""
        )
        raise InputError(
            f"column {column[:80]!r} cannot be imported: use a name of at most {LONGEST_NAME} small letters "
            f"that is none of {', '.join(column_names())}{cure}"
        )


def import_annotations(
    store: ObjectStore,
    paths: Sequence[Path],
    *,
    format: str,
    column: str = GIVEN,
    ingest: IngestSettings | None = None,
    created_utc: str,
    by: str | None = None,
    prepare: Callable[[], object] | None = None,
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
        by: the person who made the masks: they count as reviews too. None: nobody knows who did.
        prepare: called when the files are found good, before the dataset is looked at: plans its images.
        progress: called with the shards done, and in all.

    Raises:
        InputError: a file is not of its format, none of its images is in the dataset, or the column's name is
            one of ours.
        NoSuchThing: no images are planned.
    """
    check_column(column)
    given = read_given(paths, format)
    if prepare is not None:
        prepare()
    plan, before = load_plans(store), latest(store)
    if not plan.num_shards:
        raise NoSuchThing(f"{store.root}: no images are planned; name their folder with --images")
    matching = match(given.names, pictures_of(plan))
    if not matching.entry_of:
        raise InputError(f"{given.where}: {nothing_matched(given, matching, plan)}")

    spec = _spec(store, given, matching, column, before, ingest)
    stage = GivenMasks(given, matching, column=column, fingerprint=spec.fingerprints[column])
    stages = Stages(spec, store, plan, (stage,))
    for shard in range(plan.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
        if progress is not None:
            progress(shard + 1, plan.num_shards)
    saved = Counter[str]()
    if by is not None:
        names = {id_: str(id_) if one.name is None else one.name for id_, one in given.categories.items()}
        version = _version(store, spec, column)
        saved = take_imported(version, before, names, who=by, created_utc=created_utc)
    generation = _publish(store, spec, column, given, stage.models, created_utc)
    report = _report(store, spec, column, given, matching, generation, before)
    return replace(report, reviews=dict(saved))


def _spec(
    store: ObjectStore,
    given: ForeignSet,
    matching: Matching,
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
    facts = {"format": given.format, "files": given.sha256, "matched": matching.digest}
    digits[column] = fingerprint(facts, weights=None, revision=REVISION, inputs={IMAGES: digits[IMAGES]})
    return RunSpec(
        root=store.root,
        fingerprints=digits,
        settings=Sections({"ingest": ingest}),
    )


def _version(store: ObjectStore, spec: RunSpec, column: str) -> ColumnVersion:
    return ColumnVersion(store, column, spec.fingerprints[column])


def _publish(
    store: ObjectStore,
    spec: RunSpec,
    column: str,
    given: ForeignSet,
    models: Mapping[str, str],
    created_utc: str,
) -> Generation:
    settings: dict[str, Any] = {
        column: {"format": given.format, "sha256": given.sha256, "head": dict(given.head)}
    }

    def make(parent: Generation | None) -> Publication:
        """The latest generation with what this import committed in it."""
        made = {
            name: [row_of(version, record) for record in version.records()]
            for name, digits in spec.fingerprints.items()
            for version in [ColumnVersion(store, name, digits)]
        }
        merged = with_reviews(store, merge_rows(store, made, parent).rows, created_utc=created_utc)
        facts: dict[str, Mapping[str, Any]] = {
            "columns": merged.columns({**(parent.columns if parent else {}), **spec.fingerprints}),
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
    given: ForeignSet,
    matching: Matching,
    generation: Generation,
    before: Generation | None,
) -> ImportReport:
    version = _version(store, spec, column)
    rejects, stored, left_out = dict[str, str](), set[str](), Tally(given.left_out)
    masks = bad_rings = 0
    for record in version.records():
        rejects.update({reject.key: reject.reason for reject in record.rejects})
        for sample in version.read(record):
            content = json.loads(sample.files["json"])
            masks += len(content["annotations"])
            stored.add(sample.key)
            bad_rings += bad_rings_of(content)
            _merge(left_out, left_out_of(content))
    _count_unread(given, matching, stored, rejects, left_out)

    account = left_out.left_out()
    assert masks + account.num == given.num_annotations, "annotations read are taken or left out"
    return ImportReport(
        dataset=store.root,
        column=column,
        fingerprint=spec.fingerprints[column],
        generation=generation.number,
        published=before is None or generation.number != before.number,
        num_images=len(stored),
        num_masks=masks,
        rejects=dict(sorted(Counter(rejects.values()).items())),
        matched=len(matching.entry_of),
        unmatched=len(matching.unmatched),
        ambiguous=len(matching.ambiguous_entries),
        num_annotations=given.num_annotations,
        left_out=account.counts,
        first_left_out=account.first,
        images_left_out=given.images_left_out.counts,
        bad_rings=bad_rings,
    )


def _merge(left_out: Tally, more: LeftOut) -> None:
    for reason, count in more.counts.items():
        left_out.add_many(reason, count, more.first[reason])


def _count_unread(
    given: ForeignSet,
    matching: Matching,
    stored: Set[str],
    rejects: Mapping[str, str],
    left_out: Tally,
) -> None:
    """Puts the annotations of images that have no record into the account."""
    key_of = matching.key_of
    for place, image in enumerate(given.images):
        key = key_of.get(place)
        if key in stored:
            continue
        if key is not None:
            reason = rejects.get(key, "picture_rejected")
        else:
            reason = "ambiguous" if place in matching.ambiguous_entries else "image_not_in_dataset"
        for annotation in image.annotations:
            left_out.add(reason, annotation.name)
