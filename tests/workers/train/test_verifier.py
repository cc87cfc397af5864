"""A verifier trained on people's reviews, end to end: reviews, the command, the column, what it says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs.steps.planning import describe_run
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.pipeline.rle import decode, encode_mask
from maskmill.pipeline.verify.ranks import auc
from maskmill.storage.dataset.join import join
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork
from maskmill.workers.run.spec import IMAGES, MASKS, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.base import Picture, StageResult
from maskmill.workers.stages.build import Stages, build_stages
from maskmill.workers.stages.masks.grid import GridMasks
from maskmill.workers.stages.verdicts.record import VERDICTS
from maskmill.workers.train.verifier import CONFIRMED_IOU, fates_of, judged_by
from tests.fakes import jpeg_bytes
from tests.workers.train.training_set import SIZE, annotation, now, scene_of, write_student

CREATED = "2025-01-01T00:00:00+00:00"
PICTURES, REVIEWED = 22, 18


class HalfRight:
    """Stands in for the mask stage: each block's mask, and each a second time where no block is."""

    def __init__(self) -> None:
        self.pictures: Sequence[Picture] = ()

    def __call__(self, images: object) -> list[AnnotatedImage]:
        return [
            AnnotatedImage(SIZE, SIZE, tuple(annotation(mask) for mask in masks_of(one.source)))
            for one in self.pictures
        ]


class HalfRightStage(GridMasks):
    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        self._annotate.pictures = pictures  # type: ignore[attr-defined]
        return super().run(pictures)


def masks_of(source: str) -> list[Any]:
    truth = scene_of(source)
    return [*truth.masks_NHW, *(np.roll(mask, (5, 6), (0, 1)) for mask in truth.masks_NHW)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures of blocks, annotated half rightly; a person judged all but the last ones."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("verifier")
    (folder / "inputs").mkdir()
    for seed in range(PICTURES):
        (folder / "inputs" / f"{seed:02d}.jpg").write_bytes(jpeg_bytes(scene_of(str(seed)).image))
    root = str(folder / "dataset")
    store = open_store(root)
    make_plan(store, [str(folder / "inputs")], shard_size=PICTURES)
    run = config(folder)
    spec = describe_run(root, run)
    stage = HalfRightStage(HalfRight(), fingerprint=spec.fingerprints[MASKS], models={"segmenter": "fake"})
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=0, attempt="0" * 16))
    assert publish_and_verify(spec, run).check.ok

    for place, sample in enumerate(join(store, now(store), (MASKS,))):
        if place < REVIEWED:
            review(root, sample.key, json.loads(sample.files[MASKS]["json"]), place)
    return root


def config(folder: Path, **verdicts: str) -> RunConfig:
    weights = folder / "student.safetensors"
    if not weights.exists():
        write_student(weights)
    sets = [
        f"segmenter.weights={weights}",
        "segmenter.device=cpu",
        "segmenter.threads=1",
        "run.shard_size=22",
    ]
    return load_config(
        "nano", sets=[*sets, *(f"verdicts.{name}={value}" for name, value in verdicts.items())]
    )


def review(root: str, key: str, record: dict[str, Any], place: int) -> None:
    """The right ones confirmed, the wrong ones put right or rejected; every other picture finished."""
    store = open_store(root)
    start = begin(store, key, record=record, generation=1)
    ids = [int(row["id"]) for row in start.rows]
    right = [MaskWork(how="confirmed", sources=(id_,)) for id_ in ids[:3]]
    fixed, rejected = list[MaskWork](), tuple(ids[3:])
    if place % 2:
        true = encode_mask(scene_of(f"{place}").masks_NHW[0]).to_coco()
        fixed = [MaskWork(how="changed", sources=(ids[3],), segmentation=true)]
        rejected = tuple(ids[4:])
    masks = [*right, *fixed]
    work = Work(who="Ana", tool="page", masks=masks, rejected=rejected, finished=place % 2 == 0)
    keep(store, start, work, created_utc=CREATED)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_verifier_of_peoples_reviews_judges_pictures_that_nobody_saw(dataset: str, tmp_path: Path) -> None:
    done = run("verifier", dataset, tmp_path / "v.safetensors", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["pictures"], report["finished"], report["scenes"]) == (REVIEWED, 9, 0)
    assert report["masks"] == 6 * REVIEWED and report["right"] == pytest.approx(0.5, abs=0.05)
    assert report["predicted_iou_auc"] == 0.5, "all have the same"
    assert report["auc"] > 0.9

    # The column by it, made in this process; its verdicts on the pictures that nobody reviewed
    here = config(Path(dataset).parent, verifier=str(tmp_path / "v.safetensors"))
    spec = describe_run(dataset, here)
    run_shard(build_stages(spec), ShardTask(shard=0, attempt="1" * 16))
    assert publish_and_verify(spec, here).check.ok
    said, true = list[float](), list[bool]()
    store = open_store(dataset)
    for place, sample in enumerate(join(store, now(store), (IMAGES, VERDICTS))):
        record = json.loads(sample.files[VERDICTS]["json"])
        assert record["calibrated"], "for the model whose masks people saw"
        if place >= REVIEWED:
            said += [row["expected_iou"] for row in record["verdicts"]]
            true += [True] * 3 + [False] * 3
    assert auc(np.array(said, np.float32), np.array(true)) > 0.9


def test_what_a_save_says_of_masks(dataset: str) -> None:
    """Confirmed, put right, rejected, a rejected copy, kept, and never looked at."""
    store = open_store(dataset)
    key, record = next(
        (one.key, json.loads(one.files[MASKS]["json"]))
        for place, one in enumerate(join(store, now(store), (MASKS,)))
        if place == PICTURES - 1
    )
    image = from_sa1b(record)
    own = [one.segmentation for one in image.annotations]
    start = begin(store, key, record=record, generation=1)
    ids = [int(row["id"]) for row in start.rows]
    better = decode(own[1])
    better[np.flatnonzero(better.any(axis=1))[0]] = False  # a row less than the mask that is rejected for it
    work = Work(
        who="Ana",
        tool="page",
        masks=[
            MaskWork(how="confirmed", sources=(ids[0],)),
            MaskWork(how="changed", sources=(ids[3],), segmentation=encode_mask(better).to_coco()),
            MaskWork(how="kept", sources=(ids[2],)),
        ],
        rejected=(ids[1], ids[4], ids[5]),
    )
    save = keep(store, start, work, created_utc=CREATED).save
    left_out = Counter[str]()
    fates = fates_of(save, (save,), lambda _: dict(zip(ids, own, strict=True)))
    iou_N, is_known_N = judged_by(save, fates, image, left_out)
    assert is_known_N.tolist() == [True, False, False, True, True, True]
    assert iou_N[0] == np.float32(CONFIRMED_IOU) and (iou_N[3:] < 0.75).all()
    assert left_out == {"rejected, the copy of a right one": 1, "kept, and not looked at alone": 1}

    # Begun from nothing: what is finished says of every mask; what isn't, of none
    drawn = replace(save, annotations=save.annotations[:1], rejected=(), finished=True)
    assert judged_by(drawn, {}, image, left_out)[1].all()
    assert judged_by(replace(drawn, finished=False), {}, image, left_out)[1].tolist() == [True] + [False] * 5


def test_nobody_reviewed_anything(tmp_path: Path, dataset: str) -> None:
    """Too little is refused with what to do, and nothing is written."""
    empty = tmp_path / "data"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(jpeg_bytes(scene_of("1").image))
    store = open_store(str(empty))
    make_plan(store, [str(tmp_path / "in")], shard_size=1)
    spec = describe_run(str(empty), config(Path(dataset).parent))
    stage = HalfRightStage(HalfRight(), fingerprint=spec.fingerprints[MASKS], models={})
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=0, attempt="0" * 16))
    publish_and_verify(spec, config(Path(dataset).parent))
    done = run("verifier", str(empty), tmp_path / "v.safetensors")
    assert done.exit_code == 2
    assert "nobody said yet of an automatic mask what it is worth" in done.stderr
    assert not (tmp_path / "v.safetensors").exists()
