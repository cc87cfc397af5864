"""Tuning: its rows are what the stage gives, its suggestion follows from them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.reference import adjust_heads
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.verdicts import VerdictSettings
from maskmill.pipeline.verify.verifier import load_verifier
from maskmill.workers.foreign.images.codec import normalise
from maskmill.workers.jobs.tune import (
    PREDICTED_IOUS,
    JudgedImage,
    TuneRow,
    fitting,
    judge,
    suggest,
    threshold_pairs,
    tune_inputs,
)
from maskmill.workers.jobs.tune_verdicts import EXPECTED_IOUS
from maskmill.workers.pictures.render import label_map
from maskmill.workers.run.ingest_settings import IngestSettings
from tests.fakes import jpeg_bytes
from tests.pipeline.conftest import build_tiny_sam

MASKS = MaskSettings(points_per_side=8, predicted_iou=0.9, stability=0.95, min_area_px=6)
IOUS, STABILITIES = (0.8, 0.9, 1.0), (0.85, 0.99)


def photo(seed: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut()[seed * 20 : seed * 20 + 384 : 4, ::4])


@pytest.fixture(scope="module")
def segmenter() -> SamSegmenter:
    sam = build_tiny_sam(image_size=64)
    adjust_heads(sam, photo(0))
    return SamSegmenter(sam)


@pytest.fixture(scope="module")
def judged(segmenter: SamSegmenter) -> JudgedImage:
    pairs = threshold_pairs(MASKS, IOUS, STABILITIES)
    stage = AutomaticMasks(segmenter, MASKS)
    return judge(stage, "a.jpg", photo(0), stage.candidates(photo(0)), pairs)


def test_every_pair_keeps_what_the_stage_would_keep(segmenter: SamSegmenter, judged: JudgedImage) -> None:
    counts = set()
    for pair, kept in zip(judged.pairs, judged.kept, strict=True):
        run = AutomaticMasks(segmenter, pair)([photo(0)])[0]
        assert [(a.area_px, a.output_token, a.point_xy) for a in kept.annotations] == [
            (a.area_px, a.output_token, a.point_xy) for a in run.annotations
        ]
        counts.add(len(kept.annotations))
    assert len(counts) > 2, "thresholds matter here"


def test_coverage_is_the_share_of_the_image_under_masks(judged: JudgedImage) -> None:
    for kept, coverage in zip(judged.kept, judged.coverage, strict=True):
        assert coverage == pytest.approx(float((label_map(kept) > 0).mean()), abs=0.02)


def test_pairs_hold_the_current_thresholds_and_leave_the_rest() -> None:
    pairs = threshold_pairs(MASKS, IOUS, STABILITIES)
    assert len(pairs) == len({*IOUS, 0.9}) * len({*STABILITIES, 0.95})
    assert MASKS in pairs
    assert {dataclasses.replace(pair, predicted_iou=0.9, stability=0.95) for pair in pairs} == {MASKS}
    with pytest.raises(ValueError, match="predicted_iou"):
        threshold_pairs(MASKS, (1.5,), ())


def test_thresholds_fit_the_scores_of_the_model() -> None:
    sure, unsure = (
        np.linspace(0.5, 1.02, 400, dtype=np.float32),
        np.linspace(0.1, 0.72, 400, dtype=np.float32),
    )
    assert fitting(sure, PREDICTED_IOUS) == PREDICTED_IOUS
    found = fitting(unsure, PREDICTED_IOUS)
    assert len(found) >= 4 and found == tuple(sorted(found)) and found[-1] < 0.72
    assert fitting(np.zeros(0, np.float32), PREDICTED_IOUS) == PREDICTED_IOUS


def row(predicted_iou: float, stability: float, masks: float, coverage: float) -> TuneRow:
    return TuneRow(
        predicted_iou=predicted_iou,
        stability=stability,
        masks_per_image=masks,
        masks_min=0,
        masks_max=999,
        coverage=coverage,
    )


def test_the_suggestion_keeps_coverage_with_the_fewest_masks() -> None:
    rows = [
        row(0.7, 0.8, 200, 0.90),
        row(0.8, 0.9, 120, 0.88),
        row(0.88, 0.95, 90, 0.86),
        row(0.95, 0.97, 20, 0.4),
    ]
    chosen = suggest(rows)
    assert (chosen.predicted_iou, chosen.stability) == (0.88, 0.95)
    assert "90.0 an image" in chosen.why and "86%" in chosen.why and "90%" in chosen.why


def test_among_equals_the_stricter_pair_wins_and_nothing_kept_is_said() -> None:
    chosen = suggest([row(0.7, 0.8, 50, 0.5), row(0.8, 0.8, 50, 0.5), row(0.7, 0.9, 50, 0.5)])
    assert (chosen.predicted_iou, chosen.stability) == (0.8, 0.8)
    nothing = suggest([row(0.9, 0.9, 0, 0.0), row(0.7, 0.8, 0, 0.0)])
    assert (nothing.predicted_iou, nothing.stability) == (0.7, 0.8)
    assert "no pair keeps any mask" in nothing.why


def test_from_inputs_to_a_report(segmenter: SamSegmenter, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_bytes(photo(i)))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    seen: list[tuple[int, int]] = []
    report = tune_inputs(
        [str(tmp_path)],
        ingest=IngestSettings(),
        masks=MASKS,
        segmenter=SegmenterSettings(),
        predicted_ious=IOUS,
        stabilities=STABILITIES,
        progress=lambda done, todo: seen.append((done, todo)),
        load=lambda settings: segmenter,
    )
    assert report.num_images == 2 and report.skipped == (f"{tmp_path}/broken.jpg: not_an_image",)
    assert len(report.rows) == 9 and report.current in report.rows
    assert (report.current.predicted_iou, report.current.stability) == (0.9, 0.95)
    assert all(r.masks_min <= r.masks_per_image <= r.masks_max and 0 <= r.coverage <= 1 for r in report.rows)
    assert (report.suggestion.predicted_iou, report.suggestion.stability) in {
        (r.predicted_iou, r.stability) for r in report.rows
    }
    picture = np.asarray(Image.open(io.BytesIO(report.picture_png)))
    assert (
        picture.shape[1] == 2 * 24 + 3 * 400 + 2 * 20 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    )
    assert len(seen) == 2


def test_inputs_that_cannot_be_decoded_are_no_sample(segmenter: SamSegmenter, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no image to run: .*broken\.jpg: not_an_image"):
        tune_inputs(
            [str(tmp_path)],
            ingest=IngestSettings(),
            masks=MASKS,
            segmenter=SegmenterSettings(),
            load=lambda settings: segmenter,
        )


def test_verdicts_show_what_a_filter_by_expected_iou_keeps(segmenter: SamSegmenter, tmp_path: Path) -> None:
    """Every filter's row is what the shipped verifier says of the masks that these candidates give."""
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(photo(1)))
    report = tune_inputs(
        [str(tmp_path)],
        ingest=IngestSettings(),
        masks=MASKS,
        segmenter=SegmenterSettings(),
        num_images=1,
        predicted_ious=(0.8,),
        stabilities=(0.85,),
        verdicts=VerdictSettings(verifier="shipped"),
        load=lambda _: segmenter,
    )
    pixels = normalise((tmp_path / "a.jpg").read_bytes(), IngestSettings()).pixels_HWC
    stage = AutomaticMasks(segmenter, MASKS)
    kept = stage.select(stage.candidates(pixels), height=pixels.shape[0], width=pixels.shape[1])
    said = load_verifier(None)(kept, pixels_HWC=pixels, embedding=segmenter.embed([pixels])[0]).masks
    assert report.current.right == pytest.approx(float(said.right_N.mean()), abs=1e-4)
    assert [row.expected_iou for row in report.verdicts] == list(EXPECTED_IOUS)
    for row in report.verdicts:
        keep_N = said.expected_iou_N >= row.expected_iou
        assert row.masks_per_image == keep_N.sum()
        assert row.right_kept == pytest.approx(
            float(said.right_N[keep_N].sum() / said.right_N.sum()), abs=1e-4
        )
    assert report.verdicts[0].right_kept == 1
    assert len({row.masks_per_image for row in report.verdicts}) > 1, "filters matter here"
    assert report.is_calibrated, "for nano, which the settings name"
    assert all(row.right is None or 0 <= row.right <= 1 for row in report.rows)
