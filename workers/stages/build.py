"""The stages of a run, built once per worker: models loaded once, decode and embedding shared.

A stage takes pictures and gives, for each, its output and an encoding still to be done: the model's part runs
in the worker's model thread, the rest (JSON, rows) in its encode threads. All stages of a worker see the same
decoded pictures, and embed through one `SharedEmbeddings`, so that a picture is decoded and embedded once
however many ask. A stage that reads other columns finds their outputs in `Picture.given`: fresh from the
same pass, or read back with `Stage.decode` where only later columns are missing. Models load when first
asked for; `build_stages` asks for those of columns that some shard lacks.

A new stage is a class of the protocol `Stage`, added in `build_stages`; its column's facts go in columns.py.
Everything else (rejects, tar, index, commit, retries, reading back) comes by itself.

What it doesn't know: files, threads, commits (process.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b, to_sa1b
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.plan.plan import Plan, PlannedImage, load_plans
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.base import ObjectStore, open_store
from maskmill.workers.run.columns import CANDIDATES, segmenter_name
from maskmill.workers.run.spec import MASKS, RunSpec
from maskmill.workers.stages.warnings import Notes, listen

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage, Segmenter
    from maskmill.pipeline.settings.words import BoxSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A decoded image on its way through the stages.

    Attributes:
        key: of its sample.
        image_id: the dataset's integer for it.
        pixels_HWC: uint8 RGB, upright, as stored; never written to.
        caption: what came with the image, if anything.
        source: where the image came from, for people.
        given: output by column of the stages before, as far as later ones read it; a `Reject` where that
            column has none of this picture, which a stage never sees.
    """

    key: str
    image_id: int
    pixels_HWC: npt.NDArray[np.uint8]
    caption: str | None
    source: str
    given: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSample:
    """What a column stores for one image.

    Attributes:
        sample: goes into the tar.
        rows: go into the index, a mapping of the schema's columns each; none where a column has no index.
        num_masks: to count progress by.
    """

    sample: Sample
    rows: Sequence[Mapping[str, object]] = ()
    num_masks: int = 0


@dataclass(frozen=True)
class StageResult:
    """A picture's result before its encoding.

    Attributes:
        encode: gives what is stored; may be called in any thread, once.
        seconds_by_step: what the model's part took.
        output: what later stages read; equal to what `Stage.decode` gives of the stored sample.
    """

    encode: Callable[[], EncodedSample]
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    output: object = None


class Stage(Protocol):
    """What turns pictures into a column.

    Attributes:
        column: its name.
        fingerprint: of the column version it writes.
        models: identity of each model it uses, by role.
        has_index: whether its samples carry rows.
        reads: columns whose outputs it needs, beside the images; they come before it.

    A stage whose class says `needs_pixels = False` may get pictures without any; where no stage of a turn
    needs them, no photograph is read.
    """

    column: str
    fingerprint: str
    models: Mapping[str, str]
    has_index: bool
    reads: tuple[str, ...]

    def prepare(self) -> None:
        """Loads its models, once; `run` does so too."""
        ...

    def decode(self, files: Mapping[str, bytes]) -> object:
        """The output that made a stored sample. Raises ValueError for bytes that are none of its."""
        ...

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """One result a picture, in order; running out of memory makes process.py go one by one."""
        ...


class LazySegmenter:
    """A segmenter that is loaded when first asked for; see `Segmenter`."""

    def __init__(self, load: Callable[[], Segmenter]) -> None:
        self._load = load

    @cached_property
    def loaded(self) -> Segmenter:
        """The segmenter itself."""
        return self._load()

    @property
    def image_size(self) -> int:
        return self.loaded.image_size

    @property
    def mask_threshold(self) -> float:
        return self.loaded.mask_threshold

    @property
    def images_per_batch(self) -> int:
        return self.loaded.images_per_batch

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        return self.loaded.embed(images)

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        return self.loaded.prompt(embedding)


class SharedEmbeddings:
    """A segmenter that embeds each picture of the batch in hand once, for all stages.

    Crops and other images pass through. Pictures are known by their memory, so `hold` them for a batch's
    time.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._held: dict[tuple[int, tuple[int, ...]], ImageEmbedding | None] = {}

    @property
    def image_size(self) -> int:
        """See `Segmenter`."""
        return self._segmenter.image_size

    @property
    def mask_threshold(self) -> float:
        """See `Segmenter`."""
        return self._segmenter.mask_threshold

    @property
    def images_per_batch(self) -> int:
        """See `Segmenter`."""
        return self._segmenter.images_per_batch

    def hold(self, pictures: Sequence[Picture]) -> None:
        """Forgets the last batch; embeddings of these pictures are kept until the next call."""
        self._held = {_place(picture.pixels_HWC): None for picture in pictures}

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        places = [_place(image) for image in images]
        missing = [i for i, place in enumerate(places) if self._held.get(place) is None]
        found: dict[int, ImageEmbedding] = dict(
            zip(missing, self._segmenter.embed([images[i] for i in missing]) if missing else [], strict=True)
        )
        for i, embedding in found.items():
            if places[i] in self._held:
                self._held[places[i]] = embedding
        held = (self._held.get(place) for place in places)
        return [found[i] if i in found else _known(embedding) for i, embedding in enumerate(held)]

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """See `Segmenter.prompt`."""
        return self._segmenter.prompt(embedding)


class GridMasks:
    """The masks column: `maskmill.pipeline.masks.automask` over a segmenter.

    Args:
        annotate: gives the masks of pictures.
        prepare: loads what `annotate` needs.
    """

    column = MASKS
    has_index = True
    reads: tuple[str, ...] = ()

    def __init__(
        self,
        annotate: Callable[[Sequence[npt.NDArray[np.uint8]]], list[AnnotatedImage]],
        *,
        fingerprint: str,
        models: Mapping[str, str],
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._annotate = annotate
        self._prepare = prepare
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        if self._prepare is not None:
            self._prepare()

    def decode(self, files: Mapping[str, bytes]) -> AnnotatedImage:
        """See `Stage.decode`."""
        return decode_masks(files)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        annotated = self._annotate([picture.pixels_HWC for picture in pictures])
        return [
            StageResult(partial(encode_masks, picture, image), image.seconds_by_step, image)
            for picture, image in zip(pictures, annotated, strict=True)
        ]


def decode_masks(files: Mapping[str, bytes]) -> AnnotatedImage:
    """The inverse of `encode_masks`. Raises ValueError."""
    return from_sa1b(json.loads(files["json"]))


def encode_masks(picture: Picture, image: AnnotatedImage) -> EncodedSample:
    """The SA-1B record of a picture and its index rows."""
    record = to_sa1b(image, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    sample = Sample(picture.key, {"json": text.encode()})
    return EncodedSample(sample, _rows(picture, record), len(image.annotations))


@dataclass(eq=False)
class Stages:
    """Everything a worker keeps between shards.

    Attributes:
        spec: of the run.
        store: the dataset's.
        plan: which source files are which keys of which shards, as far as it was written when last looked.
        stages: in the order they run.
        embeddings: what they share; None where nothing embeds.
        notes: warnings for people, taken by each shard's report; None where nobody collects them.
    """

    spec: RunSpec
    store: ObjectStore
    plan: Plan
    stages: tuple[Stage, ...]
    embeddings: SharedEmbeddings | None = None
    notes: Notes | None = None

    def version(self, column: str) -> ColumnVersion:
        """The column version that this run writes."""
        return ColumnVersion(self.store, column, self.spec.fingerprints[column])

    def planned(self, shard: int) -> tuple[PlannedImage, ...]:
        """A shard's images; a worker may be older than the plan that has them.

        Raises:
            DatasetError: no plan has this shard.
        """
        if shard >= self.plan.num_shards:
            self.plan = load_plans(self.store)
        return self.plan.images(shard)

    def hold(self, pictures: Sequence[Picture]) -> None:
        """Says which pictures the stages are about to see."""
        if self.embeddings is not None:
            self.embeddings.hold(pictures)


def build_stages(spec: RunSpec) -> Stages:
    """Opens the dataset of a run and loads the models of its columns, but for idle ones.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        StorageError: the store cannot be read or has no plan.
    """
    from maskmill.pipeline.segmenters import load_segmenter
    from maskmill.workers.run.dataset_models import bring
    from maskmill.workers.stages.word_stages import word_stages

    notes = listen()

    if spec.segmenter.threads is not None:
        import torch

        torch.set_num_threads(spec.segmenter.threads)
    store = open_store(spec.root)
    bring(store, spec.segmenter)
    embeddings = SharedEmbeddings(LazySegmenter(lambda: load_segmenter(spec.segmenter)))
    stages: list[Stage] = [*_mask_stages(spec, embeddings), *word_stages(spec, embeddings)]
    for stage in stages:
        if stage.column not in spec.idle:
            stage.prepare()
    return Stages(spec, store, load_plans(store), tuple(stages), embeddings, notes)


def _box_stage(boxes: BoxSettings, spec: RunSpec, embeddings: SharedEmbeddings) -> Stage:
    from maskmill.workers.foreign.boxes import read_given_boxes
    from maskmill.workers.stages.boxes import BoxMasks

    assert boxes.file is not None
    file = boxes.file
    return BoxMasks(
        embeddings,
        lambda: read_given_boxes(file, min_score=boxes.min_score),
        lambda: load_plans(open_store(spec.root)),
        batch_size=boxes.batch_size,
        fingerprint=spec.fingerprints[MASKS],
        models={"segmenter": segmenter_name(spec.segmenter)},
    )


def _mask_stages(spec: RunSpec, embeddings: SharedEmbeddings) -> list[Stage]:
    """What makes the masks; where candidates are kept, the stage that makes these comes before."""
    from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up

    def prepare() -> None:
        """Loads the model, and the compiled kernels meanwhile."""
        with ThreadPoolExecutor(1, "warm-up") as pool:
            kernels = pool.submit(warm_up)
            embeddings.image_size  # noqa: B018  (asking loads it)
            kernels.result()

    if spec.boxes is not None:
        return [_box_stage(spec.boxes, spec, embeddings)]
    automatic = AutomaticMasks(embeddings, spec.masks)
    models = {"segmenter": segmenter_name(spec.segmenter)}
    if CANDIDATES not in spec.fingerprints:
        return [
            GridMasks(
                automatic,
                fingerprint=spec.fingerprints[MASKS],
                models=models,
                prepare=prepare,
            )
        ]
    from maskmill.workers.stages.candidates import CandidateMasks, SelectedMasks

    candidates = CandidateMasks(
        automatic,
        spec.masks,
        fingerprint=spec.fingerprints[CANDIDATES],
        models=models,
        prepare=prepare,
    )
    return [candidates, SelectedMasks(spec.masks, fingerprint=spec.fingerprints[MASKS], models=models)]


def _rows(picture: Picture, record: Mapping[str, Any]) -> list[dict[str, object]]:
    """The index's rows of an SA-1B record."""
    return [
        {
            "key": picture.key,
            "image_id": picture.image_id,
            "annotation_id": row["id"],
            "area_px": row["area"],
            **dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), row["bbox"], strict=True)),
            "predicted_iou": row["predicted_iou"],
            "stability_score": row["stability_score"],
            "output_token": row["output_token"],
            "parent": row["parent"],
            "source": picture.source,
        }
        for row in record["annotations"]
    ]


def _known(embedding: ImageEmbedding | None) -> ImageEmbedding:
    assert embedding is not None
    return embedding


def _place(image: npt.NDArray[np.uint8]) -> tuple[int, tuple[int, ...]]:
    """Where an image lies in memory: the same for an image and a view of all of it."""
    return int(image.__array_interface__["data"][0]), (*image.shape, *image.strides)
