"""What a training reads of a dataset beside its masks: verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.train.stream import Place, RawImage, TrainStream
from tests.workers.train.training_set import SETTINGS, publish_scenes, verdict_of

TOLD = replace(SETTINGS, automatic_quality="p_right", iou_target="expected")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    publish_scenes(folder, count=3, judged=True)
    return folder


def first(folder: Path, settings: TrainSettings) -> RawImage:
    store = open_store(str(folder / "dataset"))
    return next(TrainStream(store, load_generation(store, 1), settings).items(Place()))[1]


def test_automatic_masks_bring_what_the_verifier_says_of_them(judged: Path) -> None:
    found = first(judged, TOLD).labelled()
    said = np.array([verdict_of(int(mask.sum())) for mask in found.masks_NHW])
    assert found.right_N is not None
    np.testing.assert_allclose(found.right_N, said[:, 0], atol=1e-4)
    np.testing.assert_allclose(found.quality_N, said[:, 1], atol=1e-4)
    expected = first(judged, replace(TOLD, automatic_quality="expected_iou")).labelled()
    np.testing.assert_allclose(expected.quality_N, said[:, 0], atol=1e-4)


def test_nobody_is_asked_who_is_not_needed(judged: Path) -> None:
    plain = first(judged, SETTINGS)
    assert plain.verdicts is None
    assert plain.labelled().right_N is None and plain.labelled().quality_N.tolist() == pytest.approx(
        [0.9] * 3
    )


def test_a_mask_that_a_save_kept_is_known_by_its_outline_and_not_by_its_number(judged: Path) -> None:
    raw = first(judged, TOLD)
    rows: list[dict[str, Any]] = raw.record["annotations"]
    base = int(rows[0]["id"])
    kept = [{**row, "id": base + place} for place, row in enumerate([rows[2], rows[0]])]
    by_hand = {**rows[1], "id": base + 2, "made_by": "person", "segmentation": rows[0]["segmentation"]}
    saved = replace(raw, record={**raw.record, "annotations": [*kept, by_hand], "review": {}}).labelled()
    said = [verdict_of(int(mask.sum()))[0] for mask in saved.masks_NHW[:2]]
    assert saved.right_N is not None and saved.right_N[:2].tolist() == pytest.approx(said, abs=1e-4)
    assert saved.by_person_N.tolist() == [False, False, True]


def test_a_mask_without_a_verdict_goes_by_its_scores(judged: Path) -> None:
    raw = replace(first(judged, TOLD), verdicts={})
    found = raw.labelled()
    assert found.right_N is not None
    assert found.right_N.tolist() == found.quality_N.tolist() == pytest.approx([0.9] * 3)


def test_a_generation_without_verdicts_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    publish_scenes(tmp_path, count=2)
    with pytest.raises(InputError, match=r"no verdicts of the masks of 1 shards.*verdicts.verifier=shipped"):
        first(tmp_path, TOLD)
