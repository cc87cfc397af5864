"""A command beside a drill's job, by the runs that `maskmill` calls; see workers/drill/upsets/beside.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.flows.config import ExportSettings, load_config
from maskmill.flows.runs.collect import collect, look_for_garbage
from maskmill.flows.runs.export import export_generation
from maskmill.flows.runs.forget import forget
from maskmill.flows.runs.import_column import import_column
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.planning import pending_shards
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.workers.drill.upsets import names

if TYPE_CHECKING:
    from maskmill.workers.drill.job import DriverJob

MOST_RELABELED = 3


def carry_out(job: DriverJob) -> bool:
    """One command to its end; True where it did what was asked.

    Raises:
        StorageError: it cannot be done now.
    """
    if job.command == names.FORGET:
        forget(job.dataset, job.words)
    elif job.command == names.COLLECT:
        collect(job.dataset, look_for_garbage(job.dataset, versions=False), versions=False)
    elif job.command == names.IMPORT:
        import_column(job.dataset, [Path(job.words[0])], format="coco", column="given")
    elif job.command == names.EXPORT:
        _export(job)
    else:
        _relabel(job)
    return True


def _export(job: DriverJob) -> None:
    settings = ExportSettings(format="coco", images=False)
    report = export_generation(job.dataset, None, settings, job.words[0])
    found = json.loads(Path(job.words[0], "annotations.json").read_text())
    ids = {entry["id"] for entry in found["images"]}
    assert len(ids) == len(found["images"]) == report.num_images, "an export has each image once"
    assert all(row["image_id"] in ids for row in found["annotations"]), "masks of images that are there"


def _relabel(job: DriverJob) -> None:
    """Some shards by another revision of the stand-in, in this process."""
    from maskmill.workers.drill.same import work_in_peace
    from maskmill.workers.drill.stages import drill_spec

    spec = drill_spec(job.dataset, revision=2)
    with writing(job.dataset, "relabel"):
        chosen = dict(list(pending_shards(spec).items())[:MOST_RELABELED])
        work_in_peace(spec, chosen)
        config = load_config(sets=[f"run.shard_size={job.shard_size}"])
        publish_and_verify(spec, config, made_by="relabel", partial=True)
