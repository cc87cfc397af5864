"""A dry run: a few images through the real stages in a temporary folder, and what that predicts for all.

How it works: images are drawn evenly from the inputs and made a dataset of one-image shards, in a temporary
folder that is removed; each shard is worked as a worker would, after one warm-up image. Means over the
images are carried to all inputs. Intervals are Student's t at 95 % with the correction for a finite input:
they speak of the draw alone, and shrink to nothing when every input was run.

What it does not know is said in `Estimate.unknown`.
"""

from __future__ import annotations

import dataclasses
import io
import math
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskmill.storage.dataset.records import CommitRecord, new_attempt
from maskmill.storage.plan.endings import ending_of
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.index import read_index
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.draw_inputs import DrawnImage, InputSample, sample_inputs
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages, build_stages

CONFIDENCE = 0.95
TAR_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Interval:
    """A mean and where it may well lie; `high` is infinite where one image was run of many."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run over all inputs would take and give.

    Attributes:
        num_inputs: images in the inputs; see `tars_estimated`.
        input_bytes: of image files and tars.
        tars_estimated: tars whose images were counted by rate; 0 makes `num_inputs` exact.
        num_sampled: images that were run.
        num_workers: that share the work.
        hours: on machines like this one, model loading included.
        masks: in all.
        bytes_by_column: "images", "images index", "masks", "masks index", ...
        total_bytes: of all columns.
        seconds_by_step: seconds an image by step, as records name them.
        rejected_in_sample: reason -> count.
        setup_s: to load the models once in each worker.
        skipped_files: files in the inputs that are no image, tar or caption.
        problems: inputs that cannot be used, by reason.
        unknown: what the figures leave out, a sentence each.
    """

    num_inputs: int
    input_bytes: int
    tars_estimated: int
    num_sampled: int
    num_workers: int
    hours: Interval
    masks: Interval
    bytes_by_column: Mapping[str, Interval]
    total_bytes: Interval
    seconds_by_step: Mapping[str, float]
    rejected_in_sample: Mapping[str, int]
    setup_s: float
    skipped_files: int
    problems: Mapping[str, int]
    unknown: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """One image as a worker did it; a rejected one has taken time and left no masks."""

    seconds: float
    masks: int
    bytes_by_column: Mapping[str, float]
    seconds_by_step: Mapping[str, float]
    rejects: Mapping[str, int]


def estimate_inputs(
    inputs: Sequence[str],
    spec: RunSpec,
    *,
    num_workers: int,
    num_images: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    build: Callable[[RunSpec], Stages] = build_stages,
) -> Estimate:
    """Runs a few of the inputs' images and predicts the whole; the dataset at `spec.root` is not touched.

    Args:
        inputs: as `generate` takes them.
        spec: of the run.
        num_workers: that will share the work, each as fast as this process.
        num_images: images to run, plus one of them again to warm up.
        seed: draws which.
        progress: called with (images done, images to do).
        build: loads the models.

    Raises:
        ValueError: a count below 1.
        maskmill.storage.errors.InputError: an input is missing or holds no image that can be read.
        WeightsError: the weights are missing or damaged.
    """
    if num_images < 1 or num_workers < 1:
        raise ValueError(f"num_images={num_images} and num_workers={num_workers} must be at least 1")
    sample = sample_inputs(inputs, num_images, seed=seed, dataset_root=spec.root, ingest=spec.ingest)
    with tempfile.TemporaryDirectory(prefix="maskmill-estimate-") as folder:
        began_s = time.perf_counter()
        warm = _stages_over(Path(folder, "warm"), sample.images[:1], spec, build)
        setup_s = time.perf_counter() - began_s
        _run_all(warm, None)
        stages = _stages_over(Path(folder, "run"), sample.images, spec, lambda other: _share(warm, other))
        measured = _run_all(stages, progress)
        planned_rejects = stages.plan.rejects_by_reason
    nothing = MeasuredImage(seconds=0.0, masks=0, bytes_by_column={}, seconds_by_step={}, rejects={})
    measured.extend(nothing for _ in range(sum(planned_rejects.values())))
    return predict(sample, measured, planned_rejects, num_workers=num_workers, setup_s=setup_s)


def _stages_over(
    folder: Path, images: Sequence[DrawnImage], spec: RunSpec, build: Callable[[RunSpec], Stages]
) -> Stages:
    """A planned dataset of one-image shards over these images, and the stages to work it with."""
    source, root = folder / "inputs", folder / "dataset"
    _write_inputs(source, images)
    make_plan(open_store(str(root)), [str(source)], shard_size=1, num_threads=1)
    return build(dataclasses.replace(spec, root=str(root)))


def _write_inputs(folder: Path, images: Sequence[DrawnImage]) -> None:
    """The images as files, or in one tar where they came from tars: those are stored by reference."""
    folder.mkdir(parents=True)
    members = [image for image in images if "::" in image.source]
    for number, image in enumerate(images):
        if "::" not in image.source:
            Path(folder, f"{number:06d}{ending_of(image.source)}").write_bytes(image.data)
    if members:
        with tarfile.open(folder / "members.tar", "w") as tar:
            for number, image in enumerate(members):
                header = tarfile.TarInfo(f"{number:06d}{ending_of(image.source)}")
                header.size = len(image.data)
                tar.addfile(header, io.BytesIO(image.data))


def _share(stages: Stages, spec: RunSpec) -> Stages:
    """The same loaded models over another dataset."""
    store = open_store(spec.root)
    return dataclasses.replace(stages, spec=spec, store=store, plan=load_plans(store))


def _run_all(stages: Stages, progress: Callable[[int, int], None] | None) -> list[MeasuredImage]:
    measured = []
    for shard in range(stages.plan.num_shards):
        report = run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()), Meter())
        measured.append(
            MeasuredImage(
                seconds=report.wall_s,
                masks=report.num_masks,
                bytes_by_column=_tar_bytes(stages, shard),
                seconds_by_step=report.seconds_by_step,
                rejects=report.rejects,
            )
        )
        if progress is not None:
            progress(shard + 1, stages.plan.num_shards)
    return [
        dataclasses.replace(image, bytes_by_column={**image.bytes_by_column, **rows})
        for image, rows in zip(measured, _index_bytes(stages), strict=True)
    ]


def _tar_bytes(stages: Stages, shard: int) -> dict[str, float]:
    """What the shard's image takes in each column's tar, the tar's own end left out."""
    return {
        column: sum(
            TAR_BLOCK_BYTES + math.ceil(len(data) / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
            for sample in stages.version(column).read(_record(stages, column, shard))
            for data in sample.files.values()
        )
        for column in stages.spec.fingerprints
    }


def _index_bytes(stages: Stages) -> list[dict[str, float]]:
    """What each image's rows take in each column's index, where the rows of all lie in one file as in a real
    shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [dict[str, float]() for _ in range(stages.plan.num_shards)]
    for column in stages.spec.fingerprints:
        records = [_record(stages, column, shard) for shard in range(stages.plan.num_shards)]
        tables = [read_index(stages.store, record.index) for record in records if record.index is not None]
        num_rows = sum(table.num_rows for table in tables)
        if not num_rows:
            continue

        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
        per_row = sink.getvalue().size / num_rows
        for image, record in zip(found, records, strict=True):
            image[f"{column} index"] = per_row * (record.index.num_samples if record.index else 0)
    return found


def _record(stages: Stages, column: str, shard: int) -> CommitRecord:
    record = stages.version(column).record(shard)
    assert record is not None
    return record


def predict(
    sample: InputSample,
    measured: Sequence[MeasuredImage],
    planned_rejects: Mapping[str, int],
    *,
    num_workers: int,
    setup_s: float,
) -> Estimate:
    """Carries the measured images over to all inputs."""
    # What was measured, over the sample
    num_inputs = sample.num_images
    columns = sorted({column for image in measured for column in image.bytes_by_column})
    seconds = total_of([image.seconds for image in measured], num_inputs)
    steps = sorted({step for image in measured for step in image.seconds_by_step})
    rejects = Counter(planned_rejects)
    for image in measured:
        rejects.update(image.rejects)

    # What that makes of all inputs
    return Estimate(
        num_inputs=num_inputs,
        input_bytes=sample.size_bytes,
        tars_estimated=sample.tars_estimated,
        num_sampled=len(measured),
        num_workers=num_workers,
        hours=Interval(*(_hours(s, setup_s, num_workers) for s in (seconds.low, seconds.mean, seconds.high))),
        masks=total_of([image.masks for image in measured], num_inputs),
        bytes_by_column={
            column: total_of([image.bytes_by_column.get(column, 0) for image in measured], num_inputs)
            for column in columns
        },
        total_bytes=total_of([sum(image.bytes_by_column.values()) for image in measured], num_inputs),
        seconds_by_step={
            step: float(np.mean([image.seconds_by_step.get(step, 0.0) for image in measured]))
            for step in steps
        },
        rejected_in_sample=dict(sorted(rejects.items())),
        setup_s=setup_s,
        skipped_files=sum(sample.skipped.values()),
        problems=sample.problems,
        unknown=_unknown(sample, len(measured), num_workers),
    )


def _hours(seconds: float, setup_s: float, num_workers: int) -> float:
    return (seconds / num_workers + setup_s) / 3600


def total_of(values: Sequence[float], num_all: int) -> Interval:
    """The sum over all from a sample without replacement, with Student's interval.

    Args:
        values: of the sample, at least one.
        num_all: how many there are in all; taken as at least the sample's size.
    """
    num, num_all = len(values), max(num_all, len(values))
    mean = float(np.mean(values))
    if num == num_all:
        return Interval(mean * num_all, mean * num_all, mean * num_all)
    if num == 1:
        return Interval(0.0, mean * num_all, math.inf)
    from scipy.stats import t

    finite = math.sqrt((num_all - num) / (num_all - 1))
    error = float(np.std(values, ddof=1)) / math.sqrt(num) * finite
    half = float(t.ppf((1 + CONFIDENCE) / 2, num - 1)) * error
    return Interval(max(0.0, mean - half) * num_all, mean * num_all, (mean + half) * num_all)


def _unknown(sample: InputSample, num_measured: int, num_workers: int) -> tuple[str, ...]:
    said = [
        "Planning reads every input once, for its checksum: that time is not in the hours.",
        "Duplicates and unreadable files are only found by planning; they make the run smaller.",
        "Images were run one at a time on this machine; in larger shards reading and writing overlap.",
    ]
    if num_workers > 1:
        said.append(
            f"{num_workers} workers are taken to be as fast as this process alone; on one machine they share "
            "its memory and disk, and its accelerator."
        )
    if sample.tars_estimated:
        said.append(
            f"Images in {sample.tars_estimated} tars are counted by the rate at the start of a few of them."
        )
    if num_measured == 1 and sample.num_images > 1:
        said.append("One image was run: how far others differ from it is not known at all.")
    return tuple(said)
