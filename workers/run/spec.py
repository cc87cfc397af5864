"""What a driver and its workers say to each other: small frozen values, cheap to pickle.

A `RunSpec` is everything a worker needs to make one run's columns; a `ShardTask` names one turn at one shard;
a `ShardReport` is what came of it. Nothing here imports torch, ray or an image library at import time but the
settings' own modules, so that `flows/` may read it.

What it doesn't know: how a shard is worked (shard/turn.py), by whom (pool/actors.py), how often
(pool/pool.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import IMAGES, MASKS, Sections, fingerprints
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.reading_rules import with_rules
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.stages.registry import facts_of, resolved, sections_of

__all__ = [
    "IMAGES",
    "MASKS",
    "Resources",
    "RunSpec",
    "ShardProgress",
    "ShardReport",
    "ShardTask",
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
        settings: the sections that have a say, as a worker anywhere can use them.
        work: how a worker shares its machine.
        idle: columns that no shard of the run lacks: their models are loaded only when asked for.
        repairs: shard -> column -> number of the repair record to make, though the column is committed.
    """

    root: str
    fingerprints: Mapping[str, str]
    settings: Sections = field(default_factory=Sections)
    work: WorkSettings = field(default_factory=WorkSettings)
    idle: tuple[str, ...] = ()
    repairs: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    @property
    def ingest(self) -> IngestSettings:
        """How images are taken in."""
        return self.settings.of(IngestSettings)

    @property
    def segmenter(self) -> SegmenterSettings:
        """The segmenter that all stages share."""
        return self.settings.of(SegmenterSettings)


def make_spec(root: str, *, work: WorkSettings | None = None, **sections: Any) -> RunSpec:
    """Computes the fingerprints of a run's columns; reads each weights file once for its sha256.

    Models of the hub are pinned to their commit of now, so that every worker loads the same.

    Args:
        root: the dataset's.
        work: how a worker shares its machine; None is the defaults.
        sections: settings by section ("ingest", "segmenter", "masks", ...: `section_kinds`); what is left
            out, or None, is as its dataclass has it, which leaves a column of words out.

    Raises:
        WeightsError: weights are missing or damaged.
        maskmill.storage.errors.InputError: the boxes' file is missing.
        ValueError: an unknown section, a column that reads another that is off, a vocabulary without phrases,
            or candidates to be kept of a grid that given boxes replace.
    """
    settings = sections_of(sections)
    ingest = with_rules(open_store(root), settings.of(IngestSettings))
    settings = resolved(sections_of({**settings, "ingest": ingest}))
    return RunSpec(
        root=open_store(root).root,  # absolute: workers start in other folders
        fingerprints=fingerprints(facts_of(settings)),
        settings=settings,
        work=work if work is not None else WorkSettings(),
    )


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One turn at one shard.

    Attributes:
        attempt: names the objects this turn writes; never used twice for one shard.
        one_by_one: work one image at a time and announce each before its turn (a worker died here before).
        skip_keys: keys known to kill a worker -> the column it died in; recorded as rejects there, unseen.
        likely_next: the shard that this worker will probably have next; a guess that no outcome hangs on.
    """

    shard: int
    attempt: str
    one_by_one: bool = False
    skip_keys: Mapping[str, str] = field(default_factory=dict)
    likely_next: int | None = None


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
        remarks: what is worth a look -> images taken in by this turn that it is true of.
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
    remarks: Mapping[str, int] = field(default_factory=dict)


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
