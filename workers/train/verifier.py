"""A verifier trained on what people made of a dataset's own automatic masks.

A review knows what no model does. Of an automatic mask it says, where somebody looked at it:

    confirmed               right: `CONFIRMED_IOU`
    changed, merged, split  its IoU with the outline that a person left
    rejected                its best IoU with what people left, where that isn't right; a copy of a right mask
                            says nothing of masks, and is left out
    kept                    nothing: nobody said that it is right

In a picture that somebody finished every other automatic mask is judged in the same way, also where the
person began from an empty picture; and the share of people's masks that some automatic one meets is what the
verifier of exhaustivity learns. Oracles count as people do.

Too few people's masks for a verifier may be joined by generated scenes, annotated by the same model. What it
does not know: masks that a model made whose weights are not the dataset's now; they are judged alike.

Shape suffixes: N masks, L people's masks, H x W pixels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.pipeline.evaluate.agreement import iou_matrix
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import Rle, decode
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.verify.examples import Judged, judge
from maskmill.pipeline.verify.head import RIGHT_IOU
from maskmill.pipeline.verify.ranks import auc
from maskmill.pipeline.verify.train import Trained, generated_scenes, train
from maskmill.pipeline.verify.verifier import save_verifier
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.saves import Save, read_save, read_standings, saved_numbers, standing
from maskmill.storage.errors import DamagedObject, InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.reviews.rows import AS_IT_WAS, is_hand_made
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.run.dataset_models import load

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.join import JoinedSample
    from maskmill.storage.stores.base import ObjectStore

CONFIRMED_IOU = 0.9
"""Of a mask that a person took as it is: they don't see a hundredth."""

REJECTED = "rejected"

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class VerifierReport:
    """What a verifier was trained on, and how well it judges pictures that its parts had not seen.

    Attributes:
        file: it was written to.
        pictures: that people reviewed and that say something; finished: of these, said to be complete.
        masks: of people's pictures, judged; right: share of them.
        scenes, scene_masks: generated, beside them.
        auc: of "IoU >= 0.75" over people's masks; None where they are all right or all wrong.
        predicted_iou_auc: the same by the model's own predicted IoU.
        left_out: reason -> automatic masks of reviewed pictures that say nothing.
    """

    file: str
    pictures: int
    finished: int
    masks: int
    right: float
    scenes: int
    scene_masks: int
    auc: float | None
    predicted_iou_auc: float | None
    left_out: Mapping[str, int]


def train_verifier(
    store: ObjectStore,
    generation: Generation,
    segmenter: SegmenterSettings,
    masks: MaskSettings,
    out: Path,
    *,
    scenes: int = 0,
    progress: Progress = lambda done, total: None,
) -> VerifierReport:
    """Trains a verifier on the saves of now, and writes it.

    Args:
        store: the dataset.
        generation: the latest; its automatic masks are those judged where a person began from nothing.
        segmenter: the model that made them, resolved.
        masks: how it annotates scenes.
        out: the verifier's file.
        scenes: generated pictures to add.
        progress: told pictures read and to read.

    Raises:
        InputError: nobody reviewed anything, or too little for a verifier.
        WeightsError: the segmenter's weights are missing or damaged.
        StorageError: a shard or a save cannot be read.
    """
    left_out = Counter[str]()
    model, kept = load(segmenter), KeptEmbeddings(store, generation, segmenter)
    people = list(reviewed_pictures(store, generation, model, kept, left_out, progress))
    if not people:
        why = f" ({', '.join(f'{count} masks {reason}' for reason, count in left_out.items())})"
        raise InputError(
            f"{store.root}: nobody said yet of an automatic mask what it is worth{why if left_out else ''}; "
            f"review some pictures (`maskmill browse {store.root} --review`)"
        )
    made = list(judge(model, masks, generated_scenes(scenes)))
    identity = weights_identity(segmenter)
    try:
        trained = train(people, made, identity)
    except ValueError as error:
        raise InputError(
            f"{store.root}: {error}; review more (`maskmill browse`), or add generated pictures (--scenes 60)"
        ) from error

    about = {"reviewed": [one.truth.name for one in people], "scenes": scenes, "model": identity}
    save_verifier(trained.verifier, out, about)
    return _report(trained, people, out, scenes, left_out)


def _report(
    trained: Trained, people: Sequence[Judged], out: Path, scenes: int, left_out: Mapping[str, int]
) -> VerifierReport:
    """Figures of people's masks, which are the last of those that were learnt from."""
    first = len(trained.examples) - sum(int(one.is_labelled_N.sum()) for one in people)
    said, theirs = trained.fitted.right_N[first:], trained.examples[np.arange(first, len(trained.examples))]
    is_right_N = theirs.iou_N >= RIGHT_IOU
    has_both = bool(is_right_N.any() and not is_right_N.all())
    return VerifierReport(
        file=str(out),
        pictures=len(people),
        finished=sum(len(one.truth.masks_NHW) > 0 for one in people),
        masks=len(theirs),
        right=float(is_right_N.mean()) if len(theirs) else 0.0,
        scenes=scenes,
        scene_masks=first,
        auc=auc(said, is_right_N) if has_both else None,
        predicted_iou_auc=auc(theirs.features_NF[:, 0], is_right_N) if has_both else None,
        left_out=dict(left_out),
    )


def reviewed_pictures(
    store: ObjectStore,
    generation: Generation,
    segmenter: Segmenter,
    kept: KeptEmbeddings,
    left_out: Counter[str],
    progress: Progress = lambda done, total: None,
) -> Iterator[Judged]:
    """Every picture that people say something of, its automatic masks judged.

    Args:
        store: the dataset.
        generation: the latest.
        segmenter: embeds pictures that have no kept embedding.
        kept: embeddings of that model.
        left_out: reason -> automatic masks that say nothing; added to.
        progress: told pictures read and to read.

    Raises:
        StorageError: a shard or a save cannot be read.
    """
    plan = load_plans(store)
    keys = [key for key in saved_numbers(store) if key not in plan.forgotten]
    saves = {key: found.in_force for key, found in read_standings(store, keys) if found.in_force is not None}
    shards = sorted({plan.shard_of(key) for key in saves})
    versions = _Versions(store, generation)
    done = 0
    for sample in join(store, generation, (IMAGES, MASKS), shards=shards) if shards else ():
        save = saves.get(sample.key)
        if save is None or MASKS not in sample.files:
            continue
        done += 1
        progress(done, len(saves))
        image = _annotated(store, sample)
        if (image.height, image.width) != (int(save.image["height"]), int(save.image["width"])):
            left_out["of a picture of another size now"] += len(image.annotations)
            continue

        # What was looked at, of the masks that stand in the generation now
        fates = fates_of(save, chain_of(store, save), _seen_first(sample, versions))
        iou_N, is_known_N = judged_by(save, fates, image, left_out)
        if is_known_N.any() or save.finished:
            pixels_HWC = _pixels(sample, image)
            embedding = kept.get(sample.key) or segmenter.embed([pixels_HWC])[0]
            truth = Truth(sample.key, pixels_HWC, _left_by_people(save, image))
            yield Judged(truth, image, embedding, iou_N, is_known_N)


class _Versions:
    """Whether a shard's automatic masks are still those of an earlier generation."""

    def __init__(self, store: ObjectStore, now: Generation) -> None:
        self._store = store
        self._known = {now.number: _masks_by_shard(now)}
        self._now = now.number

    def same(self, shard: int, number: int | None) -> bool:
        """Raises StorageError where that generation cannot be read."""
        if number is None:
            return False
        if number not in self._known:
            self._known[number] = _masks_by_shard(load_generation(self._store, number))
        return self._known[number].get(shard) == self._known[self._now].get(shard)


def _masks_by_shard(generation: Generation) -> dict[int, str]:
    return {row.shard: row.record_sha256 for row in generation.rows() if row.column == MASKS}


def _seen_first(sample: JoinedSample, versions: _Versions) -> Callable[[Save], Mapping[int, Rle]]:
    """What a save that began from automatic masks saw, by id; nothing where these were made anew since."""
    rows = json.loads(sample.files[MASKS]["json"])["annotations"]

    def seen(save: Save) -> Mapping[int, Rle]:
        """The masks by id."""
        is_same = save.base.column == MASKS and versions.same(sample.shard, save.base.generation)
        return {int(row["id"]): _mask(row) for row in rows} if is_same else {}

    return seen


def _annotated(store: ObjectStore, sample: JoinedSample) -> AnnotatedImage:
    try:
        return from_sa1b(json.loads(sample.files[MASKS]["json"]))
    except ValueError as error:
        raise DamagedObject(f"{store.root}: masks of {sample.key}: {error}") from error


def _pixels(sample: JoinedSample, image: AnnotatedImage) -> npt.NDArray[np.uint8]:
    stored = stored_image(Sample(sample.key, sample.files[IMAGES]))
    return decode_image(upright_jpeg(stored.jpeg, image.width, image.height, stored.source))


def chain_of(store: ObjectStore, save: Save) -> tuple[Save, ...]:
    """The saves that one takes the place of, the oldest first, and itself. Raises DamagedObject."""
    return (*(read_save(store, save.key, number) for number in sorted(save.earlier)), save)


def fates_of(
    save: Save, chain: Sequence[Save], seen_first: Callable[[Save], Mapping[int, Rle]]
) -> dict[Rle, str]:
    """What somebody made of masks that are no longer there: "rejected", or the word of what came of them.

    Args:
        save: in force.
        chain: it and those that it takes the place of.
        seen_first: what a save that began from automatic masks saw, by id.
    """
    by_number = {one.number: one for one in chain}
    found: dict[Rle, str] = {}
    for one in chain:
        before = standing([by_number[number] for number in one.base.saves if number in by_number]).in_force
        seen = (
            seen_first(one) if before is None else {int(row["id"]): _mask(row) for row in before.annotations}
        )
        found |= {seen[id_]: REJECTED for id_ in one.rejected if id_ in seen}
        for row in one.annotations:
            if row["how"] not in AS_IT_WAS:
                found |= {seen[id_]: row["how"] for id_ in row.get("from", ()) if id_ in seen}
    return found


def judged_by(
    save: Save, fates: Mapping[Rle, str], image: AnnotatedImage, left_out: Counter[str]
) -> tuple[Floats, Bools]:
    """What a save says of automatic masks: float32[N] IoU, and bool[N] whether it says anything.

    Args:
        save: in force.
        fates: of masks that are no longer there; see `fates_of`.
        image: the automatic masks.
        left_out: reason -> masks that nothing is said of; added to.
    """
    own = [one.segmentation for one in image.annotations]
    theirs = [_mask(row) for row in save.annotations if is_hand_made(row)]
    unseen = {_mask(row) for row in save.annotations if not is_hand_made(row)}
    iou_N, is_known_N = np.zeros(len(own), np.float32), np.zeros(len(own), np.bool_)
    if own and theirs:
        iou_N = iou_matrix(own, theirs).max(axis=1).astype(np.float32)

    same = set(theirs)
    for place, mask in enumerate(own):
        if mask in same:
            iou_N[place], is_known_N[place] = CONFIRMED_IOU, True
        elif mask in unseen:
            left_out["kept, and not looked at alone"] += 1
        elif not save.finished and mask not in fates:
            left_out["not looked at"] += 1
        elif fates.get(mask) == REJECTED and iou_N[place] >= RIGHT_IOU:
            left_out["rejected, the copy of a right one"] += 1
        else:
            is_known_N[place] = True
    return iou_N, is_known_N


def _left_by_people(save: Save, image: AnnotatedImage) -> Bools:
    """bool[L, H, W]: all masks of a finished picture; none of another, whose share found nobody knows."""
    masks = [decode(_mask(row)) for row in save.annotations] if save.finished else []
    return np.stack(masks) if masks else np.zeros((0, image.height, image.width), np.bool_)


def _mask(row: Mapping[str, Any]) -> Rle:
    return Rle.from_coco(row["segmentation"])
