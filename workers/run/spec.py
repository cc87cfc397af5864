"""What a driver and its workers say to each other: small frozen values, cheap to pickle.

A `RunSpec` is everything a worker needs to make one run's columns; a `ShardTask` names one turn at one shard;
a `ShardReport` is what came of it. Nothing here imports torch, ray or an image library at import time but the
settings' own modules, so that `flows/` may read it.

What it doesn't know: how a shard is worked (process.py), by whom (actors.py), how often (pool.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import BoxSettings, CaptionSettings, LabelSettings, NameSettings
from maskmill.workers.run.columns import (
    CANDIDATES,
    CAPTIONS,
    IMAGES,
    LABELS,
    MASKS,
    NAMES,
    box_facts,
    candidate_facts,
    caption_facts,
    fingerprints,
    image_facts,
    label_facts,
    label_reads,
    looked_for,
    mask_facts,
    name_facts,
)
from maskmill.workers.run.ingest_settings import IngestSettings

SettingsT = TypeVar("SettingsT")

__all__ = [
    "IMAGES",
    "MASKS",
    "Resources",
    "RunSpec",
    "ShardProgress",
    "ShardReport",
    "ShardTask",
    "check_words",
    "make_spec",
]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker takes of the cluster; `num_cpus` may be 0 beside a GPU."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.num_cpus < 0 or self.num_gpus < 0 or self.num_cpus + self.num_gpus == 0:
            raise ValueError(f"{self}: give a worker at least a part of a CPU or of a GPU")

    @property
    def threads(self) -> int:
        """Threads for the model on the CPU: whole CPUs, at least one."""
        return max(1, int(self.num_cpus))


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run's columns: where, with which settings, under which fingerprints.

    Attributes:
        root: the dataset's root, a local path or s3://bucket/prefix.
        fingerprints: column name -> 16 hex digits, in the order the columns are made; see `make_spec`.
        captions, labels, names: settings of a word column, None where the run doesn't make it.
        boxes: of given boxes that masks are made from; None makes them from the grid.
        idle: columns that no shard of the run lacks: their models are loaded only when asked for.
        decode_threads: threads that read and decode ahead of the model in each worker.
        encode_threads: threads that turn annotations into JSON and rows behind it.
        images_per_batch: images that the model embeds together; 1 keeps runs on the CPU equal byte for byte.
        repairs: shard -> column -> number of the repair record to make, though the column is committed.
    """

    root: str
    ingest: IngestSettings
    masks: MaskSettings
    segmenter: SegmenterSettings
    fingerprints: Mapping[str, str]
    captions: CaptionSettings | None = None
    labels: LabelSettings | None = None
    names: NameSettings | None = None
    boxes: BoxSettings | None = None
    idle: tuple[str, ...] = ()
    decode_threads: int = 2
    encode_threads: int = 1
    images_per_batch: int = 1
    repairs: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("decode_threads", "encode_threads", "images_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")


def make_spec(
    root: str,
    *,
    ingest: IngestSettings,
    masks: MaskSettings,
    segmenter: SegmenterSettings,
    captions: CaptionSettings | None = None,
    labels: LabelSettings | None = None,
    names: NameSettings | None = None,
    boxes: BoxSettings | None = None,
    decode_threads: int = 2,
    encode_threads: int = 1,
    images_per_batch: int = 1,
) -> RunSpec:
    """Computes the fingerprints of a run's columns; reads each weights file once for its sha256.

    Args:
        captions, labels, names: None, or settings without a model, leave the column out.
        boxes: None, or settings without a file, make masks from the grid.

    Models of the hub are pinned to their commit of now, so that every worker loads the same.

    Raises:
        WeightsError: weights are missing or damaged.
        maskmill.storage.errors.InputError: the boxes' file is missing.
        ValueError: a column reads another that is off, a vocabulary has no phrases, or candidates are to be
            kept of a grid that given boxes replace.
    """
    from maskmill.pipeline.words.vocabulary import load_vocabulary
    from maskmill.storage.stores.base import open_store

    captions = _on(captions, "model", "filter")
    labels = _on(labels, "model")
    if labels is not None:  # workers elsewhere have no such file
        labels = dataclasses.replace(labels, vocabulary=looked_for(labels) or None)
    names = _on(names, "model")
    if names is not None:
        names = dataclasses.replace(names, vocabulary=load_vocabulary(names.vocabulary))
    boxes = _placed(boxes) if boxes is not None and boxes.file is not None else None
    segmenter = _pinned(segmenter, "weights")
    check_words(captions, labels)
    if boxes is not None and masks.keep_candidates:
        raise ValueError("boxes.file makes masks without a grid: masks.keep_candidates has nothing to keep")
    facts = {IMAGES: image_facts(ingest)}
    if masks.keep_candidates:
        facts[CANDIDATES] = candidate_facts(masks, segmenter)
    facts[MASKS] = mask_facts(masks, segmenter) if boxes is None else box_facts(boxes, segmenter)
    if captions is not None:
        facts[CAPTIONS] = caption_facts(captions)
    if labels is not None:
        facts[LABELS] = label_facts(labels, segmenter)
    if names is not None:
        facts[NAMES] = name_facts(names)
    return RunSpec(
        root=open_store(root).root,  # absolute: workers start in other folders
        ingest=ingest,
        masks=masks,
        segmenter=segmenter,
        fingerprints=fingerprints(facts),
        captions=captions,
        labels=labels,
        names=names,
        boxes=boxes,
        decode_threads=decode_threads,
        encode_threads=encode_threads,
        images_per_batch=images_per_batch,
    )


def _placed(boxes: BoxSettings) -> BoxSettings:
    """Their file by an address that means the same in every folder."""
    from maskmill.workers.foreign.boxes import absolute

    assert boxes.file is not None
    return dataclasses.replace(boxes, file=absolute(boxes.file))


def _on(settings: SettingsT | None, *sources: str) -> SettingsT | None:
    """Settings with their models pinned; None where the first of `sources` is unset."""
    if settings is None or getattr(settings, sources[0]) is None:
        return None
    return _pinned(settings, *sources)


def _pinned(settings: SettingsT, *sources: str) -> SettingsT:
    """Settings whose named fields, models by path or hub id, stand for the same weights from now on."""
    from maskmill.pipeline.weights.weights import pinned

    given = {name: value for name in sources if (value := getattr(settings, name)) is not None}
    changed = {name: new for name, value in given.items() if (new := pinned(value)) != value}
    whole: Any = settings
    result: SettingsT = dataclasses.replace(whole, **changed) if changed else settings
    return result


def check_words(captions: CaptionSettings | None, labels: LabelSettings | None) -> None:
    """Raises ValueError where a column that is on reads one that is off."""
    captions_on = captions is not None and captions.model is not None
    if labels is None or labels.model is None or captions_on:
        return
    if CAPTIONS in label_reads(labels):
        raise ValueError(
            f"labels.text={labels.text!r} looks for the captions' phrases, but captions are off: name "
            'captions.model, or use labels.text="vocabulary"'
        )


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One turn at one shard.

    Attributes:
        attempt: names the objects this turn writes; never used twice for one shard.
        one_by_one: work one image at a time and announce each before its turn (a worker died here before).
        skip_keys: keys known to kill a worker -> the column it died in; recorded as rejects there, unseen.
    """

    shard: int
    attempt: str
    one_by_one: bool = False
    skip_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What one turn at a shard made, or found made.

    Attributes:
        num_images: planned images of the shard: num_annotated + those rejected.
        num_annotated: images with a sample in every column of the run.
        rejects: reason -> images; one that several columns rejected counts once, for the first of them.
        seconds_by_step: seconds of work by step, summed over threads ("read", "decode", "model", ...).
        wall_s: seconds from start to end of the turn.
        lost_race: another worker's commit came first and stands; ours was dropped.
        already_done: every column was committed before this turn began.
        notes: what the worker has to say to people, such as batches that had to be halved.
    """

    shard: int
    attempt: str
    num_images: int
    num_annotated: int
    num_masks: int
    rejects: Mapping[str, int]
    seconds_by_step: Mapping[str, float]
    wall_s: float
    lost_race: bool = False
    already_done: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShardProgress:
    """Where a worker stands inside its shard; `shard` is None between shards.

    `gpu_bytes` is what its process holds of a GPU's memory, 0 without one.
    """

    shard: int | None = None
    attempt: str | None = None
    key: str | None = None
    images_done: int = 0
    masks_done: int = 0
    num_rejects: int = 0
    gpu_bytes: int = 0
